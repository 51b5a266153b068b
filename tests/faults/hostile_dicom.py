"""Hostile DICOM series."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.faults.hostile import Case, Refused, Right, SecondReader, mutate
from tests.faults.hostile_nifti import oblique, voxels

HEADER_BYTES = 900
Change = Callable[[int, Dataset], bool | None]


def slice_dataset(array: np.ndarray, k: int) -> Dataset:
    """Return one slice of a CT series, axes as the array's."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique()
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.826.0.1.{k + 1}"
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.Modality, data.PatientID, data.PatientName = "CT", "phantom", "phantom"
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.826.0.2", "1.2.826.0.3"
    data.SeriesDate, data.SeriesNumber, data.InstanceNumber = "20200101", 1, k + 1
    data.ImagePositionPatient = [round(x, 6) for x in (lps @ [0, 0, k, 1])[:3].tolist()]
    data.ImageOrientationPatient = [round(x, 8) for x in (*axes[:, 0].tolist(), *axes[:, 1].tolist())]
    data.PixelSpacing, data.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2])
    data.Columns, data.Rows = array.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = np.ascontiguousarray(array[:, :, k].T + 1024).astype(np.int16).tobytes()
    return data


def _encode(data: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


@cache
def series() -> tuple[bytes, ...]:
    """Return the files of a sound series of seven slices."""
    array = voxels()
    return tuple(_encode(slice_dataset(array, k)) for k in range(array.shape[2]))


def _series_case(name: str, answer: Right | Refused | SecondReader, change: Change) -> Case:
    """Change the slices of a series; a change that returns False leaves a slice out."""

    def write(folder: Path) -> Path:
        target = folder / "series"
        target.mkdir()
        array = voxels()
        for k in range(array.shape[2]):
            data = slice_dataset(array, k)
            if change(k, data) is not False:
                (target / f"slice{k:03d}.dcm").write_bytes(_encode(data))
        return target

    return Case(f"dicom {name}", write, answer)


def _setting(keyword: str, value: object, slices: tuple[int, ...] = tuple(range(7))) -> Change:
    def change(k: int, data: Dataset) -> None:
        if k in slices:
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)

    return change


def series_cases() -> Iterator[Case]:
    """Yield series that are no stack, or whose slices differ."""
    right = Right(voxels(), oblique())
    yield _series_case("sound", right, lambda k, data: None)
    for gone in (1, 3, 5):
        yield _series_case(f"without slice {gone}", Refused("must be evenly spaced"), lambda k, d, gone=gone: k != gone)
    yield _series_case("one slice", Refused("at least two slices"), lambda k, d: k == 0)
    yield _series_case("two slices far apart", SecondReader(), lambda k, d: k in (0, 6))
    middle = (3,)
    for keyword, value in (
        ("PixelSpacing", [1.2, 0.8]),
        ("PixelSpacing", [0.8, 1.1]),
        ("PixelSpacing", [1.1, 0.9]),
        ("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
        ("ImagePositionPatient", [0, 0, 0]),
        ("Rows", 8),
        ("Columns", 12),
        ("Rows", 9000),
        ("RescaleSlope", 2),
        ("RescaleSlope", 1.5),
        ("RescaleIntercept", 0),
        ("BitsStored", 12),
        ("PixelRepresentation", 0),
        ("PhotometricInterpretation", "MONOCHROME1"),
        ("SeriesInstanceUID", "1.2.826.0.9"),
        ("Modality", "MR"),
        ("PixelData", b""),
        ("PixelData", b"\0\0"),
        ("ImagePositionPatient", None),
        ("ImageOrientationPatient", None),
        ("PixelSpacing", None),
        ("Rows", None),
        ("PixelData", None),
        ("SeriesInstanceUID", None),
        ("InstanceNumber", 99),
        ("SliceThickness", 77),
        ("SOPClassUID", "1.2.840.10008.5.!.4.1.1.2"),
        ("PhotometricInterpretation", "MONOCHROME"),
        ("SamplesPerPixel", None),
    ):
        yield _series_case(f"slice 3 with {keyword} {value}", SecondReader(), _setting(keyword, value, middle))
        yield _series_case(f"slice 0 with {keyword} {value}", SecondReader(), _setting(keyword, value, (0,)))
        yield _series_case(f"every slice with {keyword} {value}", SecondReader(), _setting(keyword, value))
    for value in ([0, 0], [-1, 1], [1e-30, 1], [1e30, 1e30], [float("nan")] * 2, [1]):
        yield _series_case(f"every slice with PixelSpacing {value}", SecondReader(), _setting("PixelSpacing", value))
    for value in (0, -1, 1e30, 1e-30):
        yield _series_case(f"every slice with RescaleSlope {value}", SecondReader(), _setting("RescaleSlope", value))
    for value in ([0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 2, 0], [1, 0, 0, 0.5, 1, 0], [float("nan")] * 6):
        change = _setting("ImageOrientationPatient", value)
        yield _series_case(f"every slice with orientation {value}", SecondReader(), change)
    yield _series_case("far away", Refused(), lambda k, d: setattr(d, "ImagePositionPatient", [0, 0, 1e12 + 3 * k]))
    yield _series_case("turned upside down", right, lambda k, d: setattr(d, "InstanceNumber", 7 - k))


def folder_cases() -> Iterator[Case]:
    """Yield folders with more than a series in them."""

    def case(name: str, answer: Right | Refused | SecondReader, add: Callable[[Path], object]) -> Case:
        def write(folder: Path) -> Path:
            target = folder / "a series ü"
            target.mkdir()
            for k, content in enumerate(series()):
                (target / f"{k}.dcm").write_bytes(content)
            add(target)
            return target

        return Case(f"dicom folder {name}", write, answer)

    right = Right(voxels(), oblique())
    yield case("sound", right, lambda folder: None)
    yield case("with a slice twice", Refused(), lambda folder: (folder / "copy.dcm").write_bytes(series()[2]))
    yield case("with a subfolder", right, lambda folder: (folder / "sub").mkdir())
    yield case("with an empty file", Refused(), lambda folder: (folder / "empty.dcm").write_bytes(b""))
    yield case("with a note", right, lambda folder: (folder / "note.txt").write_text("note"))
    yield case("with a note as .dcm", Refused(), lambda folder: (folder / "note.dcm").write_text("note"))
    yield case("with a pipe", Refused("pipe"), lambda folder: os.mkfifo(folder / "pipe"))
    yield case("with a pipe as .dcm", Refused("pipe"), lambda folder: os.mkfifo(folder / "pipe.dcm"))
    yield case("with a dangling link", SecondReader(), lambda folder: (folder / "x.dcm").symlink_to("nowhere"))
    yield case("with a loop of links", SecondReader(), lambda folder: (folder / "x.dcm").symlink_to("x.dcm"))
    yield case("with a link to itself", SecondReader(), lambda folder: (folder / "self").symlink_to(folder))
    yield case("with a device", Refused("device"), lambda folder: (folder / "zero.dcm").symlink_to("/dev/zero"))
    for cut in (1, 50, 300, 900):
        half = series()[3][:-cut]
        yield case(f"with a slice cut by {cut}", Refused(), lambda f, half=half: (f / "3.dcm").write_bytes(half))


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield a series with one damaged slice."""
    for index in range(count):
        rng = np.random.default_rng([seed, index, 2])
        k = int(rng.integers(7))
        kind, content = mutate(series()[k], rng, len(series()[k]) - 234)

        def write(folder: Path, k: int = k, content: bytes = content) -> Path:
            for other, sound in enumerate(series()):
                (folder / f"slice{other:03d}.dcm").write_bytes(content if other == k else sound)
            return folder

        yield Case(f"dicom slice {k} {kind} {seed}-{index}", write, SecondReader())


def cases(seed: int, count: int) -> list[Case]:
    """Return every named case and `count` random ones."""
    return [*series_cases(), *folder_cases(), *random_cases(seed, count)]
