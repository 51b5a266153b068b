"""What reading a hostile file may end in, and what the stock transform gives afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.transforms import LoadImage

from common.data import DatasetError, inspect_datalist
from common.data.readers import Volume, read_volume
from tests.faults.hostile import Case, Refused, Right, budget
from tests.faults.hostile_second_readers import second_reading

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TOLERANCE_MM = 1e-3


def judge(case: Case, folder: Path) -> dict[str, float | str]:
    """Read and check a case within its budget, and assert that it ended as it may.

    Returns:
        `seconds`, `peak_bytes`, and `outcome`: "refused" or "read".
    """
    path = case.write(folder)
    error = volume = None
    with budget() as spent:
        try:
            volume = read_volume(path)
            inspect_datalist(
                [{"image": str(path)}],
                keys=("image",),
                spatial_dims=len(volume.spatial_shape),
                in_channels=volume.num_channels,
                num_workers=1,
            )
        except DatasetError as caught:
            error = caught
    if volume is not None:
        assert_right(case, path, volume)
    if error is not None:
        assert_designed(error)
        assert not isinstance(case.answer, Right), f"refused: {error}"
        assert not isinstance(case.answer, Refused) or case.answer.message in str(error), str(error)
        return {**spent, "outcome": "refused"}
    assert volume is not None
    assert not isinstance(case.answer, Refused), f"read as {volume.array.dtype} {volume.array.shape}, {volume.affine}"
    assert_stock_reads_the_same(path, volume)
    return {**spent, "outcome": "read"}


def assert_designed(error: DatasetError) -> None:
    """A message has its file, rule, found value and remedy, and can be printed."""
    assert error.problems
    for problem in error.problems:
        assert all((str(problem.file), problem.rule, problem.found, problem.remedy)), problem
    str(error).encode("utf-8", "backslashreplace")
    assert "Traceback" not in str(error)


def assert_right(case: Case, path: Path, volume: Volume) -> None:
    """Values and affine are the expected ones, or those that a second reader finds."""
    if isinstance(case.answer, Refused):
        return  # refused by what it contains
    if isinstance(case.answer, Right):
        array, affine = case.answer.array, case.answer.affine
    else:
        reading = second_reading(path)
        assert reading is not None, f"read as {volume.array.dtype} {volume.array.shape}, but it does not say that"
        array, affine = reading
    if array is not None:
        assert volume.array.shape == array.shape
        np.testing.assert_allclose(volume.array.astype(float), array.astype(float), rtol=1e-5, equal_nan=True)
    if affine is not None:
        scale = max(1.0, float(np.abs(affine).max()))
        np.testing.assert_allclose(volume.affine, affine, atol=TOLERANCE_MM * min(scale, 100), rtol=1e-5)


def assert_stock_reads_the_same(path: Path, volume: Volume) -> None:
    """`LoadImaged` gives the values and the affine that were checked."""
    reader = "PILReader" if path.suffix.lower() in PICTURES else None
    stock = LoadImage(reader=reader, image_only=True)(str(path))
    assert stock.shape == volume.array.shape
    np.testing.assert_array_equal(stock.numpy(), volume.array.astype(np.float32))
    assert np.isfinite(stock.numpy()).all()
    if volume.affine is not None:
        np.testing.assert_array_equal(stock.affine.numpy(), volume.affine)
