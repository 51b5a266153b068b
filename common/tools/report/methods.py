"""Pictures that belong to one method, chosen by what a run's configuration names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .fusion_pictures import draw_fusion
from .localization_pictures import draw_localization
from .prompt_pictures import draw_prompts
from .records import Run
from .replay import REPLAY_ERRORS, Replay, targets_of, working_dir_of
from .scribble_pictures import draw_scribbles


class Method(NamedTuple):
    """One kind of pictures.

    Attributes:
        target: Class that the configuration must name, without its package.
        title: What stands above.
        draw: Yields HTML, nothing where the run did not use the class.
    """

    target: str
    title: str
    draw: Callable[[Run, Replay], Iterator[str]]


METHODS = (
    Method("FusionPrepareBatch", "What pretraining sees", draw_fusion),
    Method("VPTTAInferer", "Prompts", draw_prompts),
    Method("LocalizationInferer", "Localization", draw_localization),
    Method("ScribbleObjective", "What training sees", draw_scribbles),
)


def method_sections(run: Run) -> Iterator[tuple[str, str]]:
    """Draw what belongs to the method of a run, and note what cannot be drawn any more.

    Args:
        run: The run.

    Yields:
        Title and HTML.
    """
    config = run.record.get("config")
    if not config:
        return
    named = set(targets_of(config))
    for method in METHODS:
        if method.target not in named:
            continue
        try:
            with working_dir_of(run):
                content = "".join(method.draw(run, Replay(run)))
        except REPLAY_ERRORS as error:
            reason = " ".join(str(_first_cause(error)).split()) or type(error).__name__
            run.problems.append(
                f"{method.title!r} is not drawn: what the run used cannot be read again, or has changed: {reason}"
            )
            continue
        if content:
            yield method.title, content


def _first_cause(error: BaseException) -> BaseException:
    """What MONAI's "Failed to evaluate" is about."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
