"""What every test-time adaptation shares: its own copy of the network, a stream of images, state and refusals."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks import eval_mode
from monai.utils import convert_to_dst_type
from torch import nn

logger = logging.getLogger(__name__)


class AdaptationInferer(Inferer, ABC):
    """Segment a stream of images without labels, adapting to it as it goes.

    A call takes images and nothing else, so no label can reach the adaptation. At the first call, and at the first
    after `reset()`, the inferer makes its own copy of the network and adapts that; the network of the caller is never
    written to. A batch is a piece of the stream: its images are adapted to and predicted one after the other, in order,
    each with its own statistics, so that a batch of B gives what B calls give.

    It runs in a `SupervisedEvaluator`, in eval mode and under `no_grad` or `inference_mode`; the gradients that a
    method needs are switched on inside. All that one image leaves to the next is in `state_dict()`; `reset()` forgets
    it. The state's size does not grow with the stream.

    A constant image (one value everywhere) says nothing about the scanner, and its statistics would be 0/0: it is
    segmented by the network as given, the state stays as it is, and a warning is logged.

    Args:
        channels_last: If True, the copy and the images are laid out channels-last, which is faster on most devices and
            changes results by rounding only.
    """

    def __init__(self, channels_last: bool = True) -> None:
        self.channels_last = channels_last
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._given: nn.Module | None = None
        self._restored: dict[str, Any] | None = None
        self._num_images = 0

    def __call__(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        """Adapt to each image and segment it.

        Args:
            inputs: Images of the stream, in order. Shape (B, C, H, W), floating point.
            network: Source model: maps (1, C, H, W) to logits (1, K, H, W). It is copied, not changed.

        Returns:
            Logits. Shape (B, K, H, W); a `MetaTensor` with the metadata of `inputs` if that is one.

        Raises:
            TypeError: If `inputs` is no tensor.
            ValueError: If `inputs` is not 4-D, is empty, is not floating point or has values that are not finite, if
                `network` has no BatchNorm2d to adapt or is another one than at the last call, or if the image is so
                small that a BatchNorm layer sees one value per channel.
        """
        images = check_images(inputs)
        if self._given is None:
            self._adopt(network)
        elif network is not self._given:
            raise ValueError(
                f"{type(self).__name__} adapts a copy of the network of its first call, and got another network now. "
                "Call reset() to start over, or use one inferer per network."
            )
        logits = []
        for image in images.split(1):
            if bool(image.amin() == image.amax()):
                logger.warning(
                    "Image %d of the stream is constant: segmented without adaptation, state unchanged",
                    self._num_images + 1,
                )
                logits.append(predict_as_given(network, image))
            else:
                with torch.inference_mode(False), torch.enable_grad():
                    logits.append(self._adapt_and_predict(self._own(image)).detach())
            self._num_images += 1
        return convert_to_dst_type(torch.cat(logits), inputs, dtype=logits[0].dtype)[0]

    @property
    def num_images(self) -> int:
        """How many images have been segmented since the construction or the last `reset()`."""
        return self._num_images

    def reset(self) -> None:
        """Forget the stream: the state is that after the construction, random generators included."""
        self._given = None
        self._restored = None
        self._num_images = 0
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the stream has left, of tensors and plain values only; copies, not views."""
        state = self._restored
        if self._given is not None:
            state = copy.deepcopy(self._state())
        return {"method": type(self).__name__, "num_images": self._num_images, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up a stream where `state_dict()` left it; the network is taken at the next call, unadapted.

        Args:
            state_dict: What `state_dict()` returned, of an inferer of the same class and arguments.

        Raises:
            ValueError: If the state is of another method.
        """
        if state_dict.get("method") != type(self).__name__:
            raise ValueError(
                f"The state must be one that {type(self).__name__}.state_dict() returned; it is of "
                f"{state_dict.get('method')!r}. Choose the method that wrote it."
            )
        self.reset()
        self._num_images = state_dict["num_images"]
        self._restored = copy.deepcopy(state_dict["state"])

    def _adopt(self, network: nn.Module) -> None:
        """Copy the network, prepare the copy and restore what `load_state_dict` was given."""
        with torch.inference_mode(False), torch.enable_grad():
            own = copy.deepcopy(network).eval().requires_grad_(False)
            self._prepare(own.to(memory_format=self._memory_format))  # type: ignore[call-overload]
            if self._restored is not None:
                self._restore(self._restored)
        self._given = network
        self._restored = None

    def _own(self, image: torch.Tensor) -> torch.Tensor:
        """Return `image` in the wanted layout, in no case a tensor that a caller made in inference mode."""
        image = image.contiguous(memory_format=self._memory_format)
        return image.clone() if image.is_inference() else image

    @abstractmethod
    def _prepare(self, network: nn.Module) -> None:
        """Turn the inferer's own copy into the network that adapts, and make the state of a new stream.

        Args:
            network: A copy in eval mode whose parameters need no gradient.
        """

    @abstractmethod
    def _adapt_and_predict(self, image: torch.Tensor) -> torch.Tensor:
        """Adapt to one image and return its logits, shape (1, K, H, W). Gradients are enabled.

        Args:
            image: Image that is finite and not constant. Shape (1, C, H, W).
        """

    def _forget(self) -> None:
        """Drop the prepared network and the state."""

    def _state(self) -> dict[str, Any]:
        """Return the state of a prepared inferer."""
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        """Set the state of a newly prepared inferer.

        Args:
            state: What `_state` returned.
        """


class NoAdaptationInferer(AdaptationInferer):
    """The source model as it is: the baseline that every adaptation must beat.

    Args:
        channels_last: If True, network and images are laid out channels-last.
    """

    def _prepare(self, network: nn.Module) -> None:
        self._network = network

    def _adapt_and_predict(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self._network(image)


def check_images(inputs: torch.Tensor) -> torch.Tensor:
    """Refuse what is not a batch of images, and return it as a plain tensor.

    Args:
        inputs: Shape (B, C, H, W), floating point, finite.

    Returns:
        The same values, detached, without metadata.

    Raises:
        TypeError: If `inputs` is no tensor.
        ValueError: If shape, type or values break the rule.
    """
    if not isinstance(inputs, torch.Tensor):
        raise TypeError(
            f"inputs must be a tensor of images of shape (B, C, H, W), got {type(inputs).__name__}. Test-time "
            "adaptation takes images only: no dictionary, no label."
        )
    if inputs.dim() != 4 or inputs.numel() == 0:
        raise ValueError(
            f"inputs must have shape (B, C, H, W) with at least one pixel, got {tuple(inputs.shape)}. Add the batch "
            "axis, and check the crop that made it."
        )
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs must be floating point, got {inputs.dtype}. Scale the images as in training; is this a label?"
        )
    images = inputs.detach().as_subclass(torch.Tensor)
    if not bool(torch.isfinite(images).all()):
        count = int((~torch.isfinite(images)).sum())
        raise ValueError(
            f"inputs must be finite, but {count} of {images.numel()} values are NaN or infinite. One such image would "
            "spoil the state for all that follow; repair or leave out the file."
        )
    return images


def predict_as_given(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the logits of the caller's network in eval mode, shape (1, K, H, W); its mode is given back.

    Args:
        network: The network as the caller has it.
        image: Image. Shape (1, C, H, W).
    """
    with eval_mode(network):
        return network(image)
