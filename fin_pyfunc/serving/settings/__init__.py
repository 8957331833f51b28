"""What can be set for the server, and from where."""

from fin_pyfunc.serving.settings.callers import Auth, Cors, Rate, Tls
from fin_pyfunc.serving.settings.loading import fields, load
from fin_pyfunc.serving.settings.sections import Cache, Limits, Mlflow, Models, Settings
from fin_pyfunc.serving.settings.sources import MAX_FILE_BYTES, SHARED_VARIABLES
from fin_pyfunc.serving.settings.watching import Admin, Metrics, Record, Shadow, Tracing
from fin_pyfunc.serving.settings.wording import PREFIX, ROOT, Setting, SettingsError

__all__ = [
    "MAX_FILE_BYTES",
    "PREFIX",
    "ROOT",
    "SHARED_VARIABLES",
    "Admin",
    "Auth",
    "Cache",
    "Cors",
    "Limits",
    "Metrics",
    "Mlflow",
    "Models",
    "Rate",
    "Record",
    "Setting",
    "Settings",
    "SettingsError",
    "Shadow",
    "Tls",
    "Tracing",
    "fields",
    "load",
]
