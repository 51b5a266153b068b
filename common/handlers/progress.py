"""Progress bars."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from ignite.handlers import ProgressBar


class LossProgressBar(ProgressBar):
    """Ignite's progress bar with the loss of a MONAI trainer beside it.

    Ignite takes what is to be shown when the bar is attached; MONAI attaches handlers with the engine alone.
    """

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:
        """Attach to a trainer whose output is a dictionary with `loss`."""
        kwargs.setdefault("output_transform", lambda output: {"loss": output["loss"].item()})
        super().attach(engine, *args, **kwargs)
