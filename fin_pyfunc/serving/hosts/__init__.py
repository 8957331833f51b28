"""Models that may run code, each in a process of its own, and the environments that these run in: a worker's side."""
