"""How many bytes of tensors are alive at once, counted without computing anything."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["inference_bytes", "training_bytes"]


class _LiveBytes(TorchDispatchMode):
    """Count what operations allocate, from their first use to the moment that nothing refers to it anymore.

    Args:
        existing: Tensors that were there before; views of them allocate nothing.
    """

    def __init__(self, existing: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, int] = {}
        # held, so that no other storage can get the id of one of them
        self._existing = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in existing)}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        del types  # of subclasses, of which there are none here
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, sum(self._live.values()))
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._live and key not in self._existing:
            self._live[key] = storage.nbytes()
            weakref.finalize(storage, self._live.pop, key, None)


def training_bytes(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    num_passes: int = 1,
    states_per_parameter: int = 2,
) -> tuple[int, int]:
    """Return what one iteration of training needs at its peak, and how much of it does not depend on the input.

    The network runs forward and backward on PyTorch's device `meta`, where tensors have a size and no content, in
    float32. Every tensor that is alive is counted: activations kept for the backward pass, gradients, temporaries. What
    is not: scratch memory of convolutions, the caching of the allocator, other copies of the batch. Mixed precision
    needs less.

    Args:
        network: Network; a copy of it is used.
        inputs: Arguments of its `forward`, on any device.
        num_passes: How often an iteration runs the network before its backward pass.
        states_per_parameter: Numbers that the optimizer keeps for each: Adam 2, SGD with momentum 1.

    Raises:
        RuntimeError: If the network cannot run without content, or not on these sizes.
    """
    imitation, arguments = _imitate(network, inputs)
    imitation.train()
    with _LiveBytes(_tensors(imitation, arguments)) as live:
        losses = [_imitated_loss(imitation(*arguments)) for _ in range(num_passes)]
        torch.stack(losses).sum().backward()
    trained = sum(p.numel() * p.element_size() for p in imitation.parameters() if p.requires_grad)
    fixed = _stored_bytes(imitation) + trained * states_per_parameter
    return live.peak + fixed + _stored_inputs(arguments), fixed + trained


def inference_bytes(network: nn.Module, inputs: Sequence[torch.Tensor], with_gradient: bool = False) -> tuple[int, int]:
    """Return what one call of the network needs at its peak, and how much of it does not depend on the input.

    Args:
        network: Network; a copy of it is used.
        inputs: Arguments of its `forward`, on any device.
        with_gradient: Whether the gradient with regard to the input is taken, as test-time adaptation does.

    Raises:
        RuntimeError: If the network cannot run without content, or not on these sizes.
    """
    imitation, arguments = _imitate(network, inputs)
    imitation.eval()
    fixed = _stored_bytes(imitation)
    with _LiveBytes(_tensors(imitation, arguments)) as live:
        if with_gradient:
            arguments[0].requires_grad_()
            _imitated_loss(imitation(*arguments)).backward()
        else:
            with torch.no_grad():
                imitation(*arguments)
    return live.peak + fixed + _stored_inputs(arguments), fixed


def _imitate(network: nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[nn.Module, list[torch.Tensor]]:
    # tensors of fine-tuning may share storage with what was loaded, so the copy comes first
    imitation = copy.deepcopy(network).to("meta")
    return imitation, [value.to("meta") for value in inputs]


def _imitated_loss(output: Any) -> torch.Tensor:
    """Stand in for a loss: probabilities, and their product with a target of the same size."""
    maps = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    terms = [(m.float().softmax(1) * torch.zeros_like(m) if m.dim() > 2 else m.float()).sum() for m in maps]
    return torch.stack(terms).sum()


def _tensors(network: nn.Module, arguments: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers(), *arguments]


def _stored_bytes(network: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))


def _stored_inputs(arguments: Sequence[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in arguments)
