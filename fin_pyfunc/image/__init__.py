"""One image, one model: what Docker needs to build it, and the build itself."""

from fin_pyfunc.image.build import build
from fin_pyfunc.image.context import Context, write_context

__all__ = ["Context", "build", "write_context"]
