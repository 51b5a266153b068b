"""What an adaptation at test time needs from the engine: a fresh start per domain, and its state kept over runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events

from ..engines.case_dataset import FINISHED
from ..files import write_atomically

_logger = logging.getLogger(__name__)


class Adaptation(Protocol):
    """What the handlers ask of an inferer that keeps state between images."""

    def reset(self) -> None:
        """Forget everything that was adapted."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""


class DomainReset:
    """Reset an adaptation whenever the images come from another domain than the ones before.

    Enabled, every domain starts with the source model, as the published evaluation of GraTa (arXiv:2408.07343);
    disabled, the adaptation goes on over the whole stream, as that of VPTTA (arXiv:2311.18363).

    Args:
        inferer: Inferer with `reset`.
        enabled: Whether to reset; if not, the handler does nothing.

    Note:
        The batch must name the `domain` of each image. The first image of a run resets nothing, so that a restored
        state is used.
    """

    def __init__(self, inferer: Adaptation, enabled: bool) -> None:
        self.inferer = inferer
        self.enabled = enabled
        self.domain: str | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_STARTED, self._compare)

    def _start(self, _engine: Engine) -> None:
        self.domain = None

    def _compare(self, engine: Engine) -> None:
        domains = list(dict.fromkeys(engine.state.batch["domain"]))
        if len(domains) > 1:
            raise ValueError(
                f"A batch must hold images of one domain where the adaptation is reset between domains; found "
                f"{', '.join(domains)}. Load one image at a time, or set reset_on_domain_change to false."
            )
        # what a former run has finished was reset there
        if self.domain not in (None, *domains) and FINISHED not in engine.state.batch:
            self.inferer.reset()
            _logger.info("Domain %s follows %s: the adaptation starts anew.", domains[0], self.domain)
        self.domain = domains[0]


class AdaptationState:
    """Take up an adaptation where a former run left it, and leave its state for the next.

    Args:
        inferer: Inferer with `state_dict` and `load_state_dict`.
        path: File of the state, a dictionary that `torch.load(..., weights_only=True)` reads.
        load: Whether to begin with the state of this file.
        save: Whether to write it when all images are done; a run that fails leaves the file as it was.

    Raises:
        FileNotFoundError: At the start of a run, if the state is wanted and not there.
    """

    def __init__(self, inferer: Adaptation, path: str | Path, load: bool = False, save: bool = False) -> None:
        self.inferer = inferer
        self.path = Path(path)
        self.load = load
        self.save = save

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.load:
            engine.add_event_handler(Events.STARTED, self._load)
        if self.save:
            engine.add_event_handler(Events.COMPLETED, self._save)

    def _load(self, _engine: Engine) -> None:
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path} does not exist, so there is no state to go on with; leave load_state off for the first "
                f"run, and write one with --save_state True."
            )
        self.inferer.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        _logger.info("The adaptation goes on from %s.", self.path)

    def _save(self, _engine: Engine) -> None:
        write_atomically(self.inferer.state_dict(), self.path)
        _logger.info("State of the adaptation: %s", self.path)
