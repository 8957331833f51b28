"""Models that may run code, each in a process of its own: a worker's side of `fin_pyfunc.host`."""
