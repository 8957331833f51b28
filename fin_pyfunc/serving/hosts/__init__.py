"""Model hosts as a worker sees them: processes for code that is not ours, and the environments that they run in."""
