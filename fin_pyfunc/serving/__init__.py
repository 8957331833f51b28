"""The server side: a thin ASGI shim in front of MLflow's own scoring server."""
