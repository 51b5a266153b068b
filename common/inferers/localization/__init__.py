"""Localization of organs from a few supports."""
