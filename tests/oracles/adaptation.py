"""VPTTA and GraTa written plainly from the papers (arXiv:2311.18363 and arXiv:2408.07343): whole FFTs, one view after
another, gradients of everything by autograd. Slow, and the measure of the fast inferers."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class WarmUpNorm(nn.Module):
    """BatchNorm that mixes source statistics and those of the image, and keeps their distance."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.own_weight = 0.0
        self.distance = None

    def forward(self, x):
        own_mean, own_variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
        mean = self.own_weight * own_mean.detach() + (1 - self.own_weight) * self.norm.running_mean
        variance = self.own_weight * own_variance.detach() + (1 - self.own_weight) * self.norm.running_var
        self.distance = (mean - own_mean).abs().mean() + (variance.sqrt() - own_variance.sqrt()).abs().mean()
        shape = (1, -1, 1, 1)
        scaled = (x - mean.view(shape)) / torch.sqrt(variance + self.norm.eps).view(shape)
        return scaled * self.norm.weight.view(shape) + self.norm.bias.view(shape)


def swap_norms(network):
    """Put `WarmUpNorm` in place of each BatchNorm2d of a copy."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, WarmUpNorm(child))
    return network


class VPTTAOracle:
    """One image after another; `published` as in the authors' code, else centered window and stated bank size."""

    def __init__(self, network, learning_rate, warm_up, fraction, neighbors, memory_size, published):
        self.network = swap_norms(network)
        self.norms = [module for module in self.network.modules() if isinstance(module, WarmUpNorm)]
        self.learning_rate, self.warm_up, self.fraction = learning_rate, warm_up, fraction
        self.neighbors, self.published = neighbors, published
        self.capacity = memory_size + 1 if published else memory_size
        self.bank = []
        self.count = 0
        self.prompt = None

    def window(self, height, width):
        sides = []
        for side in (height, width):
            size = max(1, int(self.fraction * side))
            if not self.published:
                size += 1 - size % 2
            first = (side - size) // 2 if self.published else side // 2 - size // 2
            sides.append(slice(first, first + size))
        return sides

    def prompted(self, spectrum, rows, columns):
        amplitude, phase = spectrum.abs(), spectrum.angle()
        factors = torch.ones_like(amplitude)
        factors[:, :, rows, columns] = self.prompt[None]
        scaled = torch.polar(amplitude * factors, phase)
        axes = (1, 2, 3) if self.published else (2, 3)
        return torch.fft.ifft2(torch.fft.ifftshift(scaled, dim=axes)).real

    def recall(self, key):
        if len(self.bank) < self.neighbors:
            return torch.ones_like(key)
        scored = []
        for other, prompt in self.bank:
            cosine = float((other * key).sum() / (other.norm() * key.norm()))
            scored.append((cosine, prompt))
        scored.sort(key=lambda pair: -pair[0])
        best = scored[: self.neighbors]
        weights = np.exp(np.array([cosine for cosine, _ in best]) / 0.2)
        return sum(weight * prompt for weight, (_, prompt) in zip(weights / weights.sum(), best, strict=True))

    def __call__(self, image):
        # As published, the channels are shifted with the spatial axes, which rolls three of them by one.
        axes = (1, 2, 3) if self.published else (2, 3)
        spectrum = torch.fft.fftshift(torch.fft.fft2(image), dim=axes)
        rows, columns = self.window(*image.shape[2:])
        key = spectrum[0, :, rows, columns].abs()
        if self.prompt is None:
            self.prompt = nn.Parameter(torch.ones_like(key))
            self.optimizer = torch.optim.Adam([self.prompt], lr=self.learning_rate, betas=(0.9, 0.99))
        self.prompt.data = self.recall(key)
        self.count += 1
        for norm in self.norms:
            norm.own_weight = 1 / (math.sqrt(self.count) / self.warm_up + 1)
        self.network(self.prompted(spectrum, rows, columns))
        loss = sum(norm.distance for norm in self.norms) / len(self.norms)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            logits = self.network(self.prompted(spectrum, rows, columns))
        self.bank.append((key, self.prompt.detach().clone()))
        self.bank = self.bank[-self.capacity :]
        return logits


VIEWS = (
    (lambda x: x, lambda y: y),
    (lambda x: torch.flip(x, (3,)), lambda y: torch.flip(y, (3,))),
    (lambda x: torch.flip(x, (2,)), lambda y: torch.flip(y, (2,))),
    (lambda x: torch.rot90(x, 1, (2, 3)), lambda y: torch.rot90(y, 3, (2, 3))),
    (lambda x: torch.rot90(x, 2, (2, 3)), lambda y: torch.rot90(y, 2, (2, 3))),
    (lambda x: torch.rot90(x, 3, (2, 3)), lambda y: torch.rot90(y, 1, (2, 3))),
)


class GraTaOracle:
    """One image after another; the strong view is passed in."""

    def __init__(self, network, learning_rate=1e-4):
        self.network = copy.deepcopy(network).train().requires_grad_(False)
        self.parameters = []
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = module.running_var = None
                module.track_running_stats = False
                self.parameters += [module.weight.requires_grad_(), module.bias.requires_grad_()]
        self.learning_rate = learning_rate
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate)

    def __call__(self, image, strong_view):
        p = torch.sigmoid(self.network(image))
        entropy = (-p * torch.log(p + 1e-6)).sum(1).mean()
        auxiliary = torch.autograd.grad(entropy, self.parameters)
        start = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, auxiliary, strict=True):
                parameter -= gradient
            target = sum(back(torch.sigmoid(self.network(view(image)))) for view, back in VIEWS) / 6
        strong = (strong_view - strong_view.min()) / (strong_view.max() - strong_view.min())
        consistency = F.binary_cross_entropy_with_logits(self.network(strong), target)
        pseudo = torch.autograd.grad(consistency, self.parameters)
        product = sum(float((a * b).sum()) for a, b in zip(auxiliary, pseudo, strict=True))
        norms = [math.sqrt(sum(float(g.square().sum()) for g in gradients)) for gradients in (auxiliary, pseudo)]
        self.cosine = product / (norms[0] * norms[1] + 1e-12)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate * (self.cosine + 1) ** 2 / 4
        with torch.no_grad():
            for parameter, value, gradient in zip(self.parameters, start, pseudo, strict=True):
                parameter.copy_(value)
                parameter.grad = gradient
            self.optimizer.step()
            return self.network(image)
