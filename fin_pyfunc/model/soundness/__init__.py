"""Whether what a file says can be used: numbers that compiled code takes as positions without a look of its own."""
