"""Reading, checking and making data sets."""

from .checks import CaseSummary, check_datalist, inspect_datalist
from .datalists import load_datalist
from .mask_values import MaskConvention
from .photographs import check_photographs, read_mask, read_photograph
from .problems import DatasetError, Problem
from .screening import FAILURE
from .streams import load_domain_stream

__all__ = [
    "FAILURE",
    "CaseSummary",
    "DatasetError",
    "MaskConvention",
    "Problem",
    "check_datalist",
    "check_photographs",
    "inspect_datalist",
    "load_datalist",
    "load_domain_stream",
    "read_mask",
    "read_photograph",
]
