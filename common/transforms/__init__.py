"""Transforms of the methods, in MONAI's form."""
