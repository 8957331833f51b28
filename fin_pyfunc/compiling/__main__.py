"""``python -m fin_pyfunc.compiling FOLDER``: do the job that lies in a folder."""

import sys
from pathlib import Path

from fin_pyfunc.compiling.job import run

run(Path(sys.argv[1]))
