"""One iteration of an inference: a case that fails does not take the others with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from monai.engines import SupervisedEvaluator

from ..data.screening import FAILURE
from .case_dataset import FATAL, FINISHED
from .failures import MachineError, describe_failure, machine_fault

_logger = logging.getLogger(__name__)


class Adaptation(Protocol):
    """What is asked of an inferer that keeps state between images."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state."""


class CaseLedger(Protocol):
    """What is asked of the handler that writes down what became of every case."""

    def begin(self, case: str) -> None:
        """Note which case is run now."""

    def skip(self, case: str) -> None:
        """Note that a case is finished, and bring back what it left to the next."""

    def fail(self, reason: str) -> None:
        """Note that the case that is run now has failed."""


class CaseIsolation:
    """`iteration_update` of a `SupervisedEvaluator` that runs its own iteration and goes on behind a failed case.

    After a failure, and for a case that is finished already, `engine.state.batch` and `engine.state.output` are empty
    lists, so that handlers which go through the items find none. What is not the fault of a case ends the run: a full
    disk, outputs that cannot be written, a broken device; a person who interrupts it, too.

    Args:
        report: The `CaseReport` of the run.
        adaptation: The inferer, if it keeps state between images: a failed image leaves the state as it was, and so
            does one behind which the state would not be finite.

    Raises:
        ValueError: At a batch of several cases, of which one could fail.
        OSError: If outputs cannot be written.
    """

    def __init__(self, report: CaseLedger, adaptation: Adaptation | None = None) -> None:
        self.report = report
        self.adaptation = adaptation

    def __call__(self, engine: SupervisedEvaluator, batchdata: Mapping[str, Any]) -> Any:
        """Run one case.

        Args:
            engine: The evaluator.
            batchdata: A batch of one case, or the stand-in of one that is not run; see `CaseDataset`.

        Returns:
            The output of the engine's own iteration; an empty list if there is none.
        """
        if len(batchdata["case"]) != 1:
            raise ValueError(
                f"An inference runs one case at a time, so that one may fail; got a batch of "
                f"{len(batchdata['case'])}. Set batch_size of the dataloader to 1."
            )
        (case,) = batchdata["case"]
        if FINISHED in batchdata:
            self.report.skip(case)
            return _nothing(engine)
        self.report.begin(case)
        if FAILURE in batchdata:
            (reason,) = batchdata[FAILURE]
            if FATAL in batchdata:
                raise MachineError(reason)
            self.report.fail(reason)
            return _nothing(engine)
        state = None if self.adaptation is None else self.adaptation.state_dict()
        try:
            output = engine._iteration(engine, batchdata)
        except Exception as error:
            if machine_fault(error, is_writing=True):
                raise
            _logger.debug("Case %s failed", case, exc_info=True)
            reason = describe_failure(error)
        else:
            if self.adaptation is not None and state is not None and not is_finite(self.adaptation.state_dict()):
                # the image is segmented, but what was learned from it would spoil all that follow
                self.adaptation.load_state_dict(state)
                _logger.warning("Case %s: the adaptation to it is not finite and is taken back.", case)
            return output
        # behind the handler, which keeps the tensors of the failed case alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.adaptation is not None and state is not None:
            self.adaptation.load_state_dict(state)
        self.report.fail(reason)
        return _nothing(engine)


def is_finite(state: Any) -> bool:
    """Tell whether all numbers of a state are finite.

    Args:
        state: Tensors and plain values, in dictionaries and sequences.
    """
    if isinstance(state, torch.Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, Mapping):
        return all(map(is_finite, state.values()))
    if isinstance(state, (list, tuple)):
        return all(map(is_finite, state))
    return True


def _nothing(engine: SupervisedEvaluator) -> list[Any]:
    engine.state.batch = []
    return []
