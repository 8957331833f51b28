"""`python -m fin_pyfunc_cli`, the same as `fin-pyfunc`."""

from fin_pyfunc_cli.main import main

main()
