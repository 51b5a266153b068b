"""What a network that learns from scribbles is asked to do: one object a method, used by `ObjectiveUpdate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from monai.losses import DiceLoss
from monai.utils import CommonKeys
from torch import nn

from ..losses.consistency import ConsistencyLoss
from ..losses.continuous_pseudo_label import ContinuousPseudoLabelLoss, continuous_pseudo_labels
from ..losses.gated_crf import GatedCRFLoss
from ..networks.dual_decoder import DualDecoderUNet
from ..seeding import derive_seed
from .context_masking import ContextMasking

DISTANCE = "distance"
MASKED = "masked"
MASK = "mask"
AUXILIARY = "auxiliary"

Batch = Mapping[str, torch.Tensor]


class Objective(ABC):
    """One training step's prediction and losses.

    Attributes:
        annotation: Key of the annotation that is learned from, `scribble` or `label`.
        needs_distances: Whether batches must have the `distance` to the strokes of each class.
        generators: What draws at random, by name; see `EpochSeeds`.
    """

    annotation: str = "scribble"
    needs_distances: bool = False

    @property
    def generators(self) -> dict[str, Any]:
        """Objects with `set_epoch`, which makes what they draw next a matter of their seed and the epoch."""
        return {}

    def extend(self, network: nn.Module) -> nn.Module:
        """Return the network to train, which holds `network`; by default that network itself.

        Args:
            network: The network whose weights are kept.
        """
        return network

    @abstractmethod
    def predict(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Return everything that the losses need, with the logits on the image as `pred`.

        Args:
            network: What `extend` returned, in training mode.
            batch: `image`, the annotation under its key, and `distance` where needed, on the device.
        """

    @abstractmethod
    def losses(self, predictions: Mapping[str, torch.Tensor], batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return the weighted parts of the loss by name; their sum is minimized.

        Args:
            predictions: What `predict` returned.
            batch: The same batch.
            progress: Share of the training that is over, in [0, 1).
        """


class ScribbleObjective(Objective):
    """A loss on the annotated pixels, and what is known of the others: MaCo, its parts, and simple baselines.

    With `supervised_loss` alone it is partial cross entropy, or full supervision where `annotation` is `label`; with a
    `regularizer` partial cross entropy with a CRF; with continuous pseudo labels and masking it is MaCo
    (arXiv:2408.12814):

    `L = L_sup + pseudo_label_weight L_cpl + w(t) masking_weight (L_consistency + L_sup(masked view))`

    with w(t) rising linearly from 0 to 1 over the first `ramp_fraction` of the training. The clean view is the fixed
    target of the consistency. Each view passes the network by itself, and running averages of batch normalization are
    those of the clean view alone, which is what the network sees later; both views in one batch cost Dice.

    Args:
        supervised_loss: Called with logits and annotation.
        annotation: Key of the annotation: `scribble`, or `label` for full supervision.
        pseudo_label_loss: Loss against continuous pseudo labels, None for none.
        masking: Draws what the masked view hides, None for no masked view.
        consistency_loss: Compares the two views; None leaves the supervised loss on the masked view.
        regularizer: Loss on the prediction and the image, None for none.
        pseudo_label_weight: Weight of the pseudo labels.
        masking_weight: Weight of all that concerns the masked view.
        regularizer_weight: Weight of the regularizer.
        ramp_fraction: Share of the training over which the masked view comes in; 0 takes it from the start.
    """

    def __init__(
        self,
        supervised_loss: nn.Module,
        annotation: str = "scribble",
        pseudo_label_loss: ContinuousPseudoLabelLoss | None = None,
        masking: ContextMasking | None = None,
        consistency_loss: ConsistencyLoss | None = None,
        regularizer: GatedCRFLoss | None = None,
        pseudo_label_weight: float = 0.5,
        masking_weight: float = 0.5,
        regularizer_weight: float = 0.1,
        ramp_fraction: float = 0.3,
    ) -> None:
        if consistency_loss is not None and masking is None:
            raise ValueError("consistency_loss compares the image with its masked view; give masking too.")
        if masking is not None and masking.attention == "cpl" and pseudo_label_loss is None:
            raise ValueError("attention 'cpl' takes its weights from continuous pseudo labels; give pseudo_label_loss.")
        self.supervised_loss = supervised_loss
        self.annotation = annotation
        self.pseudo_label_loss = pseudo_label_loss
        self.masking = masking
        self.consistency_loss = consistency_loss
        self.regularizer = regularizer
        self.pseudo_label_weight = pseudo_label_weight
        self.masking_weight = masking_weight
        self.regularizer_weight = regularizer_weight
        self.ramp_fraction = ramp_fraction
        self.needs_distances = pseudo_label_loss is not None

    @property
    def generators(self) -> dict[str, Any]:
        """The generator of the masks, where there are any."""
        return {} if self.masking is None else {"masking": self.masking}

    def predict(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the logits of the image as `pred`, and of its masked view as `masked`, with the `mask`."""
        image = batch[CommonKeys.IMAGE]
        if self.masking is None:
            return {CommonKeys.PRED: network(image)}
        mask = self.masking.draw(self._importance(network, batch))
        clean = network(image)
        with _kept_running_averages(network):
            masked = network(self.masking.hide(image, mask))
        return {CommonKeys.PRED: clean, MASKED: masked, MASK: mask}

    def losses(self, predictions: Mapping[str, torch.Tensor], batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return those there are of `supervised`, `pseudo_label`, `masked_supervised`, `consistency`, `regularizer`."""
        logits, target = predictions[CommonKeys.PRED], batch[self.annotation]
        parts = {"supervised": self.supervised_loss(logits, target)}
        if self.pseudo_label_loss is not None:
            parts["pseudo_label"] = self.pseudo_label_weight * self.pseudo_label_loss(logits, batch[DISTANCE])
        if self.masking is not None:
            weight = self.masking_weight * linear_ramp(progress, self.ramp_fraction)
            masked = predictions[MASKED]
            parts["masked_supervised"] = weight * self.supervised_loss(masked, target)
            if self.consistency_loss is not None:
                parts["consistency"] = weight * self.consistency_loss(masked, logits, predictions[MASK])
        if self.regularizer is not None:
            parts["regularizer"] = self.regularizer_weight * self.regularizer(logits, batch[CommonKeys.IMAGE])
        return parts

    def _importance(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """What the masking weighs patches by, per pixel in [0, 1]. Shape (B, 1, *spatial)."""
        masking, annotation = self.masking, batch[self.annotation]
        if masking is None or masking.attention == "uniform":
            return torch.zeros(annotation.shape, device=annotation.device)
        if masking.attention == "scribble":
            return masking.stroke_map(annotation)
        if masking.attention == "cpl" and self.pseudo_label_loss is not None:
            labels = continuous_pseudo_labels(batch[DISTANCE], self.pseudo_label_loss.tau_mm)
            return 1.0 - labels[:, :1]
        return _entropy(network, batch[CommonKeys.IMAGE])


class DualDecoderObjective(Objective):
    """DMPLS: two decoders, each supervised by the strokes, and both by a random mixture of the two.

    Luo et al., MICCAI 2022, arXiv:2203.02106: mean of both decoders' supervised losses, plus `pseudo_label_weight`
    times the mean Dice loss of both against `argmax(b p1 + (1 - b) p2)`, with one b ~ U(0, 1) a step.

    Args:
        supervised_loss: Called with logits and scribbles.
        pseudo_label_weight: Weight of the mixed pseudo labels.
        dropout: Of the second decoder, see `DualDecoderUNet`.
        seed: Seed of the generator of b.
    """

    def __init__(
        self, supervised_loss: nn.Module, pseudo_label_weight: float = 0.5, dropout: float = 0.5, seed: int = 0
    ) -> None:
        self.supervised_loss = supervised_loss
        self.pseudo_label_weight = pseudo_label_weight
        self.dropout = dropout
        self.mixing = _MixingGenerator(seed)
        self.dice_loss = DiceLoss(softmax=True, to_onehot_y=True)

    @property
    def generators(self) -> dict[str, Any]:
        """The generator of the mixture."""
        return {"mixing": self.mixing}

    def extend(self, network: nn.Module) -> nn.Module:
        """Return the network with a second decoder."""
        return DualDecoderUNet(network, self.dropout)

    def predict(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the logits of the two decoders as `pred` and `auxiliary`."""
        own, auxiliary = network(batch[CommonKeys.IMAGE])
        return {CommonKeys.PRED: own, AUXILIARY: auxiliary}

    def losses(self, predictions: Mapping[str, torch.Tensor], batch: Batch, progress: float) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Return `supervised` and `pseudo_label`."""
        own, auxiliary = predictions[CommonKeys.PRED].float(), predictions[AUXILIARY].float()
        target = batch[self.annotation]
        share = self.mixing.draw()
        with torch.no_grad():
            mixed = torch.lerp(torch.softmax(auxiliary, dim=1), torch.softmax(own, dim=1), share)
            pseudo_label = mixed.argmax(dim=1, keepdim=True)
        supervised = 0.5 * (self.supervised_loss(own, target) + self.supervised_loss(auxiliary, target))
        agreement = 0.5 * (self.dice_loss(own, pseudo_label) + self.dice_loss(auxiliary, pseudo_label))
        return {"supervised": supervised, "pseudo_label": self.pseudo_label_weight * agreement}


class _MixingGenerator:
    """Draws numbers in [0, 1), in each epoch others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> float:
        return torch.rand((), generator=self.generator).item()

    def set_epoch(self, epoch: int) -> None:
        self.generator.manual_seed(derive_seed("mixing", self.seed, epoch))


def linear_ramp(progress: float, fraction: float) -> float:
    """Rise linearly from 0 to 1 over the first `fraction` of the training; 1 from the start where that is 0.

    Args:
        progress: Share of the training that is over, in [0, 1].
        fraction: Share of the training that the ramp takes, in [0, 1].
    """
    return 1.0 if progress >= fraction else progress / fraction


@contextmanager
def _kept_running_averages(network: nn.Module) -> Iterator[None]:
    """Let batch normalization work with the statistics of the batch, and leave its running averages as they are."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _entropy(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Entropy of the prediction, 1 where all classes are as likely; in evaluation mode, which leaves no trace."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        log_probability = torch.log_softmax(network(image).float(), dim=1)
    network.train(was_training)
    entropy = -(log_probability.exp() * log_probability).sum(dim=1, keepdim=True)
    return entropy / torch.log(torch.tensor(float(log_probability.shape[1])))
