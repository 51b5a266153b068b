"""Reading, checking and making data sets."""

from .checks import CaseSummary, check_datalist, inspect_datalist
from .datalists import load_datalist
from .problems import DatasetError, Problem

__all__ = ["CaseSummary", "DatasetError", "Problem", "check_datalist", "inspect_datalist", "load_datalist"]
