"""The admin socket: a Unix socket for the server's operators."""
