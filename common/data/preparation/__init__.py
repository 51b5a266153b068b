"""From folders of files to a data set: pairs, patients, sections, doubts, and a page of pictures."""

from .command import prepare

__all__ = ["prepare"]
