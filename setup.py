"""Packaging lives in setup.cfg; this one call lets every build front end find it."""

from setuptools import setup

setup()
