"""The page of a scored folder, with pictures of its worst cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ..files import write_text_atomically
from .masks import read_case_masks
from .overlays import draw_disagreement, read_backdrop, worst_cases
from .reports import score_page
from .scores import ScoreTable
from .scoring import ScoredFolder, read_prediction

OVERLAY_DIR = "overlays"
# A comparison shows them, too.
RANKED_BY = "dice"


def write_score_report(
    scored: ScoredFolder, output_dir: str | Path, num_worst: int, find_image: Callable[[str], Path | None] | None = None
) -> None:
    """Draw the worst cases to `overlays/`, and write `report.html`, which needs no other file.

    Args:
        scored: Scores, and the files that they come from.
        output_dir: Where to write.
        num_worst: How many cases are drawn.
        find_image: Function from the name of a case to its image, to be drawn under the masks; None draws no image.
    """
    folder = Path(output_dir) / OVERLAY_DIR
    for old in folder.rglob("*.png"):
        old.unlink()
    pairs = {pair.case: pair for pair in scored.pairs}
    pictures = []
    for case, structure in worst_cases(scored.table, RANKED_BY, num_worst):
        reference = read_case_masks(pairs[case].reference, scored.settings.label_set)
        prediction = read_prediction(pairs[case], reference, scored.settings)
        predicted = None if prediction is None else prediction.masks.get(structure)
        backdrop = None if find_image is None else read_backdrop(find_image(case), case, reference.grid)
        caption = _caption(scored.table, case, structure)
        picture = draw_disagreement(predicted, reference.masks[structure], reference.grid, backdrop, caption)
        path = folder / f"{case}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
        pictures.append((picture, caption))
    write_text_atomically(score_page(scored.table, scored.summary, pictures), Path(output_dir) / "report.html")


def saved_overlays(output_dir: str | Path, num_worst: int) -> Iterator[tuple[bytes, str]]:
    """Yield the pictures of the worst cases that `write_score_report` has drawn, and their captions.

    Args:
        output_dir: Where it wrote; nothing comes of a path that is no folder.
        num_worst: How many of them.
    """
    if not Path(output_dir).is_dir():
        return
    table = ScoreTable.read(output_dir)
    if RANKED_BY not in table.values:
        return
    for case, structure in worst_cases(table, RANKED_BY, num_worst):
        picture = Path(output_dir) / OVERLAY_DIR / f"{case}.png"
        if picture.is_file():
            yield picture.read_bytes(), _caption(table, case, structure)


def _caption(table: ScoreTable, case: str, structure: str) -> str:
    i, j = table.cases.index(case), table.structures.index(structure)
    mean = float(table.case_means(RANKED_BY)[i])
    return f"{case}: mean Dice {mean:.3f}; {structure} {table.values[RANKED_BY][i, j]:.3f} ({table.outcomes[i, j]})"
