"""How workers come and go: started, replaced, reloaded and stopped, with no request lost."""
