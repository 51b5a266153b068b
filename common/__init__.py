"""Shared code of the Frugal Bundles: everything with a loop, a branch, a formula or a tensor."""
