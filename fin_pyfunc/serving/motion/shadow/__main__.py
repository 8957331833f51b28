"""``python -m fin_pyfunc.serving.motion.shadow READ WRITE``: the process of one worker's shadow, between two pipes."""

import os
import sys

#: How much others come first while it imports what it needs and opens its model.
NICE = 10

if __name__ == "__main__":
    os.nice(NICE)
    from fin_pyfunc.serving.motion.shadow.scorer import run  # takes a second or two of a processor

    run(int(sys.argv[1]), int(sys.argv[2]))
