"""Pages about runs: what ran, its curves, its scores, its cases, and pictures of its method."""

from .command import overview_table, report, report_page
from .records import Run, find_runs

__all__ = ["Run", "find_runs", "overview_table", "report", "report_page"]
