"""A stream of domains: the cases of several folders, one domain after the other."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .datalists import load_datalist
from .problems import refusal

__all__ = ["load_domain_stream"]


def load_domain_stream(
    dataset_dirs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    section: str | Sequence[str] = ("training", "validation", "test"),
    keys: str | Sequence[str] = ("image",),
) -> list[dict[str, Any]]:
    """List the cases of several folders in their order, each with its domain.

    Args:
        dataset_dirs: One folder for each domain, in the order of the stream; each in one of the forms that
            `load_datalist` reads. The name of the folder is the name of the domain; where two folders share one, their
            parents are put before it.
        section: Section of every folder, or several, in this order; one of them must be there.
        keys: What each case must have: `image`, and `label` for an evaluation.

    Returns:
        One dictionary a case: `keys` with absolute paths, `domain`, and `case`, which is "<domain>/<name>" and unique.

    Raises:
        DatasetError: If no folder is given, a folder twice, or a folder is refused by `load_datalist`.
    """
    directories = [dataset_dirs] if isinstance(dataset_dirs, (str, os.PathLike)) else list(dataset_dirs)
    roots = [Path(os.path.abspath(Path(directory).expanduser())) for directory in directories]  # noqa: PTH100
    if not roots:
        raise refusal("dataset_dirs", "must name a folder for each domain", "an empty list", "give at least one folder")
    doubles = [root for root, count in Counter(roots).items() if count > 1]
    if doubles:
        raise refusal(doubles[0], "must be in dataset_dirs once", "it several times", "remove all but one")
    stream: list[dict[str, Any]] = []
    for root, domain in zip(roots, _domain_names(roots), strict=True):
        cases = load_datalist(root, section, keys, val_fraction=0)
        stream += [{**case, "domain": domain, "case": f"{domain}/{case['case']}"} for case in cases]
    return stream


def _domain_names(roots: list[Path]) -> list[str]:
    """Name folders by as few of their last parts as tell them apart."""
    for depth in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["_".join(root.parts[-depth:]).replace("/", "") for root in roots]
        if len(set(names)) == len(names):
            return names
    raise refusal(roots[0], "must have a name that no other folder has", ", ".join(names), "rename the folders")
