"""What wraps every request, outermost first in app.py."""
