"""What VPTTA's prompts do to a photograph, and what a stream of adaptations looks like."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import torch

from ...evaluation.html import charts, legend, panels
from ...inferers.batch_norm import at_least_float32
from ...inferers.prompt import FrequencyWindow
from ..pictures import colored, encode, gray, structure_colors
from .curves import draw_steps
from .records import Run, numbers
from .replay import Replay

NUM_IMAGES = 3
DIFFERENCES, FACTORS, SPECTRUM = "seismic", "PuOr", "magma"


def draw_stream(run: Run, _replay: Replay | None = None) -> Iterator[str]:
    """Draw the numbers of an adaptation over the stream, as the run has recorded them.

    Args:
        run: The run.

    Yields:
        HTML.
    """
    steps = numbers(run.steps())
    names = [name for name in (steps[0] if steps else ()) if name != "case"]
    if not names:
        return
    columns = {name: [np.nan if step[name] is None else float(step[name]) for step in steps] for name in names}
    domains = [str(step["case"]).rsplit("/", 1)[0] for step in steps]
    yield f"<p>{len(steps)} images of {len(set(domains))} domains, in the order of the stream.</p>"
    yield charts(draw_steps(columns, domains))


def draw_prompts(run: Run, replay: Replay) -> Iterator[str]:
    """Draw the prompts of the first images of the stream: in the image, in the spectrum, and in the result.

    The stream is adapted to again from its start, with the weights and the settings of the run.

    Args:
        run: The run.
        replay: The run, built again.

    Yields:
        HTML.
    """
    if run.settings.get("load_state"):
        yield "<p>The run went on from a saved state, which it has changed: its prompts cannot be made again.</p>"
        return
    inferer, dataset = replay["inferer"], replay["dataset"]
    if not hasattr(inferer, "prompt_fraction"):
        return  # another method of the same bundle
    network, _ = replay["network"], replay["weights"]
    network.eval()
    names = [str(name) for name in run.settings.get("channel_names", ())]
    colors = structure_colors(names, on_photograph=True)
    palette = [mpl.colors.to_rgb(color) for color in colors.values()]
    pictures: list[list[tuple[bytes, str]]] = []
    for index in range(min(NUM_IMAGES, len(dataset))):
        image = torch.as_tensor(dataset[index]["image"])[None]
        with torch.no_grad():
            without = network(image)
        logits = inferer(image, network)
        step = inferer.last_step
        if step is None:
            continue
        window = FrequencyWindow.of_image(image.shape[2], image.shape[3], inferer.prompt_fraction, inferer.published)
        prompted = window.apply(window.read(at_least_float32(image)), step.trained_prompt)
        pictures.append(list(_of_image(image[0], prompted[0], step.trained_prompt, (without[0], logits[0]), palette)))
    yield (
        f"<p>The first {len(pictures)} images of the stream. A prompt multiplies the amplitudes of the "
        "lowest frequencies; everything else of the image stays. Its factors are shown as the mean over the colors: 1 "
        "is white, orange below, violet above. The change of the image is shown blue where it is darker and red where "
        "it is brighter, full color at the largest change, which the caption gives in the range of the image; so is "
        "the change of the spectrum, in the logarithm of its amplitudes. The last picture is of the image with its "
        "prompt, segmented with adapted statistics, as the run did.</p>"
    )
    yield legend(colors)
    yield from (panels(of_image, 4, 2) for of_image in pictures)


def _of_image(
    image: torch.Tensor,
    prompted: torch.Tensor,
    prompt: torch.Tensor,
    logits: tuple[torch.Tensor, torch.Tensor],
    palette: list[tuple[float, float, float]],
) -> Iterator[tuple[bytes, str]]:
    """Eight pictures: the image, what the prompt does to it and its spectrum, and the two results."""
    pixels = image.permute(1, 2, 0).numpy()
    low, high = float(pixels.min()), float(pixels.max())
    change = (prompted - image).mean(dim=0).numpy()
    largest = max(float(np.abs(change).max()), 1e-9)
    factors = prompt.mean(dim=0).numpy()
    reach = max(float(np.abs(factors - 1).max()), 1e-9)
    before, after = (_log_spectrum(view) for view in (image, prompted))
    most = max(float(np.abs(after - before).max()), 1e-9)
    yield encode(gray(pixels, low, high)), "image"
    yield encode(gray(prompted.permute(1, 2, 0).numpy(), low, high)), "image with its prompt"
    yield encode(colored(change, -largest, largest, DIFFERENCES)), f"change, up to {largest:.3g}"
    yield (
        encode(colored(factors, 1 - reach, 1 + reach, FACTORS), smooth=False),
        f"prompt of {factors.shape[0]} x {factors.shape[1]}, factors {factors.min():.3f} to {factors.max():.3f}",
    )
    yield encode(colored(before, 0, float(before.max()), SPECTRUM), smooth=False), "low frequencies of the image"
    yield encode(colored(after - before, -most, most, DIFFERENCES), smooth=False), f"their change, up to {most:.3g}"
    for result, caption in zip(logits, ("segmented by the model as it was", "segmented after adaptation"), strict=True):
        labels = np.zeros(pixels.shape[:2], dtype=np.uint8)
        for number, channel in enumerate(torch.sigmoid(result.float()) >= 0.5, start=1):
            labels[channel.numpy()] = number
        yield encode(gray(pixels, low, high), 1.0, labels, palette), caption


def _log_spectrum(image: torch.Tensor, reach: int = 16) -> np.ndarray:
    """Logarithm of the amplitudes around the frequency 0, mean over the colors. Shape (2 reach + 1, 2 reach + 1)."""
    amplitudes = torch.fft.fftshift(torch.fft.fft2(image.float()), dim=(-2, -1)).abs().mean(dim=0)
    middle = [n // 2 for n in amplitudes.shape]
    cut = amplitudes[middle[0] - reach : middle[0] + reach + 1, middle[1] - reach : middle[1] + reach + 1]
    return torch.log1p(cut).numpy()
