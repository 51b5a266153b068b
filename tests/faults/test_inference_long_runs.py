"""Streams of 2,000 images and folders of 200 scans: memory, open files and time per case stay where they are."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.handlers import CaseReport
from tests.faults.inference_runs import (
    outcomes_of,
    run_inference,
    stream_overrides,
    volume_overrides,
    write_photographs,
    write_volumes,
)

NUM_IMAGES, NUM_SCANS = 2000, 200
# A single image of a stream that stays in memory is 48 KiB, a scan of a folder 128 KiB and its label map 32.
MAX_GROWTH_BYTES = 12 * 1024
MAX_SLOWER = 1.6
PAGE = os.sysconf("SC_PAGE_SIZE")
METHODS = [
    ("vptta", "vptta"),
    ("grata", "grata"),
    ("vptta", "tent"),
    ("vptta", "batch_norm"),
    ("grata", "none"),
]


@pytest.fixture
def samples(monkeypatch):
    """Resident bytes, open files and the processor seconds behind every case, as others share the machine."""
    taken, finish = [], CaseReport._finish

    def measure(self, engine):
        finish(self, engine)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        taken.append((resident, len(list(Path("/proc/self/fd").iterdir())), time.process_time()))

    monkeypatch.setattr(CaseReport, "_finish", measure)
    return taken


def check_flat(samples, num_cases):
    assert len(samples) == num_cases
    resident, handles, clock = (np.array(column) for column in zip(*samples, strict=True))
    quarter = num_cases // 4
    # the first quarter warms caches up
    growth = np.polyfit(np.arange(num_cases - quarter), resident[quarter:], 1)[0]
    assert growth < MAX_GROWTH_BYTES, f"{growth:.0f} bytes a case"
    assert handles[-quarter:].max() <= handles[:quarter].max()
    seconds = np.diff(clock)
    first, last = statistics.median(seconds[:quarter]), statistics.median(seconds[-quarter:])
    assert last < MAX_SLOWER * first + 0.005, (first, last)


def write_stream(folder, num_images):
    """A stream of one domain, cheap to write."""
    generator = np.random.default_rng(0)
    (folder / "b" / "imagesTs").mkdir(parents=True)
    for index in range(num_images):
        small = generator.integers(0, 255, (8, 8, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize((64, 64), Image.Resampling.BILINEAR)
        picture.save(folder / "b" / "imagesTs" / f"p{index:04d}.png", compress_level=1)


def check_stream(bundle, method, num_images, samples, tmp_path):
    write_stream(tmp_path / "data", num_images)
    options = {"output_dir": str(tmp_path / "out"), "image_size": 64, "save_probabilities": False}
    settings = stream_overrides(tmp_path / "data", tmp_path, **options)
    run_inference(bundle, {**settings, "inferer": f"@methods#{method}"})
    assert set(outcomes_of(tmp_path / "out").values()) == {"done"}
    return (tmp_path / "out" / "stream_state.pt").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "method"), METHODS)
def test_a_stream_of_2000_images(bundle, method, samples, tmp_path):
    size = check_stream(bundle, method, NUM_IMAGES, samples, tmp_path)
    check_flat(samples, NUM_IMAGES)
    assert size < 100_000


@pytest.mark.slow
def test_a_folder_of_200_scans(samples, tmp_path):
    write_volumes(tmp_path / "data", NUM_SCANS, (32, 32, 32))
    settings = volume_overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "out"), roi_size=[16, 16, 16])
    run_inference("volume_fusion", settings)
    assert set(outcomes_of(tmp_path / "out").values()) == {"done"}
    check_flat(samples, NUM_SCANS)


def test_handles_of_a_short_stream(samples, tmp_path):
    write_photographs(tmp_path / "data", 20)
    run_inference("vptta", stream_overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "out")))
    handles = [sample[1] for sample in samples]
    assert len(handles) == 20
    assert max(handles[10:]) <= max(handles[:10])
