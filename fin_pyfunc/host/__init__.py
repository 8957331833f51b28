"""Child processes for what must not run in this one: the fork server, its jobs and the model hosts."""
