"""All checks that a bundle has to pass before it is released, the model zoo's among them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from .bundle_folder import select_bundles
from .configurations import check_properties, check_references
from .documents import (
    check_files,
    check_licences,
    check_metadata,
    check_paths,
    check_shipped_weights,
    check_versions,
)
from .findings import Finding, run_check
from .networks import check_network, check_onnx, check_torchscript
from .packages import check_packages

CHECKS: dict[str, Callable[[Path], str | None]] = {
    "necessary files": check_files,
    "metadata": check_metadata,
    "version and changelog": check_versions,
    "licences": check_licences,
    "no absolute paths": check_paths,
    "weights hold tensors alone": check_shipped_weights,
    "references and classes": check_references,
    "required properties": check_properties,
    "required packages": check_packages,
    "network in and out": check_network,
    "TorchScript": check_torchscript,
    "ONNX": check_onnx,
}

# Loggers that tell every argument of every step, and every node of a graph.
TALKATIVE = ("monai.bundle.scripts", "monai.apps", "onnxscript", "onnx_ir", "torch.onnx")

_logger = logging.getLogger(__name__)


def verify(bundle: str | None = None, bundles_dir: str | None = None) -> None:
    """Check one bundle or all, and print a line for each check with its seconds.

    Args:
        bundle: Name of a bundle; by default all.
        bundles_dir: Folder of the bundles; by default that of the repository.

    Raises:
        ValueError: If there is no such bundle, or a check fails.
    """
    failed = []
    for path in select_bundles(bundle, bundles_dir):
        findings = verify_bundle(path)
        for finding in findings:
            _logger.info("%s", finding)
        bad = [f"{path.name}: {finding.check}" for finding in findings if finding.outcome == "FAILED"]
        _logger.info("%s: %.1f s, %d of %d checks failed\n", path.name, _seconds(findings), len(bad), len(findings))
        failed += bad
    if failed:
        raise ValueError(f"{len(failed)} checks failed: {'; '.join(failed)}")


def verify_bundle(bundle: Path) -> list[Finding]:
    """Check one bundle.

    Args:
        bundle: Its folder.

    Returns:
        The outcome of every check, in the order of `CHECKS`.
    """
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    return [run_check(bundle, name, check) for name, check in CHECKS.items()]


def _seconds(findings: list[Finding]) -> float:
    return sum(finding.seconds for finding in findings)
