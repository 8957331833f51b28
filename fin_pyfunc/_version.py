"""The one place the version is written; setup.cfg and every logged artifact read it from here."""

__version__ = "0.1.0"
