"""Statistics of normalization layers, the same in all processes when they validate together."""

from __future__ import annotations

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events


class SharedBuffers:
    """Give every process the buffers of process 0 before a validation.

    `DistributedDataParallel` does so before each forward pass, so behind the last one of an epoch the running
    statistics of BatchNorm differ between the processes again. Without this, each would score another network than the
    one that process 0 saves.

    Args:
        network: Network that is validated, not wrapped.

    Note:
        All processes have to start the validation, as MONAI's `ValidationHandler` makes them.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._share)

    def _share(self, _engine: Engine) -> None:
        for buffer in self.network.buffers():
            dist.broadcast(buffer, src=0)
