"""Releases: archives of bundles, the checks that they have to pass, and a template for the next bundle."""

from .archive import package

__all__ = ["package"]
