"""Benchmarks of fin_pyfunc beside what else serves the same models; `python -m benchmarks` runs them."""
