"""Releases: archives of bundles, the checks that they have to pass, and a template for the next bundle."""

from .archive import package
from .new_bundle import new_bundle
from .verification import verify

__all__ = ["new_bundle", "package", "verify"]
