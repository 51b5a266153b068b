"""Costs of learning from scribbles, as ratios in one run: distance maps, the loader, a step of MaCo.

    python -m tests.benchmarks.bench_maco [--repeats 7] [--batch_size 4] [--device cpu] [--parts "distances loader"]

Scribbles are those of heart phantoms, at 256x256. On the CPU figures are medians of the CPU time of the process on one
thread; with `--device cuda` steps are timed by the clock, and the wait for the loader always is.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import fire
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, Resized

from common.data.phantoms import write_heart_phantoms
from common.data.phantoms.heart import render_heart
from common.engines import ContextMasking, DualDecoderObjective, ScribbleObjective
from common.losses import ConsistencyLoss, ContinuousPseudoLabelLoss, GatedCRFLoss, PartialCrossEntropy
from common.tools.runs import find_bundles
from common.transforms import ScribbleDistancesd, ShiftScribbled, UnshiftScribbled
from common.transforms.distance_maps import euclidean_distance_mm
from common.transforms.scribbles import generate_scribble
from tests.oracles import maco as oracle

NUM_CLASSES = 4
KEYS = ["image", "scribble"]


def cpu_ms(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


def wall_ms(function: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def make_slices(count: int, size: int) -> list[dict[str, MetaTensor]]:
    """Annotated slices of heart phantoms, resized as the bundle does."""
    slices: list[dict[str, MetaTensor]] = []
    resize = Compose([ShiftScribbled(), Resized(KEYS, (size, size), mode=["bilinear", "nearest"])])
    seed = 0
    while len(slices) < count:
        for case in render_heart(np.random.default_rng(seed)).values():
            scribble = generate_scribble(case.label, NUM_CLASSES, f"{seed}")
            affine = np.diag([*np.linalg.norm(case.affine[:3, :2], axis=0), 1.0])
            image = (case.image / case.image.max()).astype(np.float32)
            for k in range(image.shape[2]):
                if len(np.unique(scribble[..., k])) == NUM_CLASSES + 1:
                    planes = {"image": image[..., k], "scribble": scribble[..., k]}
                    slices.append(resize({n: MetaTensor(p[None].copy(), affine=affine) for n, p in planes.items()}))
        seed += 1
    return slices[:count]


def loader_chain(distance: str) -> Compose:
    """What train.json does to a slice each time that it is drawn."""
    parser = ConfigParser()
    parser.read_config([str(find_bundle() / "configs" / "train.json")])
    parser["distance"] = distance
    return Compose(parser.get_parsed_content("random_transforms"))


def find_bundle() -> Path:
    (bundle,) = (path for path in find_bundles() if path.name == "maco")
    return bundle


def bench_distances(slices: list[dict[str, MetaTensor]], repeats: int) -> None:
    unshift = UnshiftScribbled()
    items = [unshift(item) for item in slices]
    labels = [item["scribble"][0].numpy() for item in items]
    spacings = [item["scribble"].pixdim.tolist() for item in items]
    euclidean = ScribbleDistancesd("scribble", NUM_CLASSES)
    geodesic = ScribbleDistancesd("scribble", NUM_CLASSES, method="geodesic")
    across = ScribbleDistancesd("scribble", NUM_CLASSES, method="geodesic", slice_axis=2)
    affine = np.diag([*spacings[0], 8.0, 1.0])
    volume = {key: MetaTensor(torch.stack([i[key].as_tensor() for i in items], -1), affine=affine) for key in KEYS}
    with_maps = [{**item, "distance": geodesic(plain)["distance"]} for item, plain in zip(slices, items, strict=True)]
    augment, augment_maps = loader_chain("euclidean"), loader_chain("geodesic")
    brute = 1
    functions = {
        "brute force": (partial(_each, partial(_loop, oracle.distance_maps), labels[:brute], spacings), brute),
        "SciPy, double": (partial(_each, partial(_loop, oracle.distance_maps_scipy), labels, spacings), len(items)),
        "ours": (partial(_each, _euclidean_maps, labels, spacings), len(items)),
        "ours, as a transform": (lambda: [euclidean(item) for item in items], len(items)),
        "ours, geodesic": (lambda: [geodesic(item) for item in items[:brute]], brute),
        "ours, geodesic, across slices": (lambda: across(volume), len(items)),
        "whole chain of the loader": (lambda: [augment(item) for item in slices], len(items)),
        "the same, geodesic maps at hand": (lambda: [augment_maps(item) for item in with_maps], len(items)),
    }
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        for name, (function, count) in functions.items():
            if repeat == 0 or not name.startswith(("brute force", "ours, geodesic")):
                times[name].append(cpu_ms(function) / count)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:30s} {value:9.2f} ms CPU a slice, one thread   {value / medians['ours']:8.2f} times ours")
    for item, label, spacing in zip(items, labels, spacings, strict=True):
        expected = oracle.distance_maps_scipy(label, NUM_CLASSES, spacing)
        np.testing.assert_allclose(euclidean(item)["distance"], expected, rtol=1e-4)


def _loop(function: Callable[..., object], label: np.ndarray, spacing: list[float]) -> object:
    return function(label, NUM_CLASSES, spacing)


def _euclidean_maps(label: np.ndarray, spacing: list[float]) -> np.ndarray:
    maps = np.empty((NUM_CLASSES, *label.shape), dtype=np.float32)
    for c in range(NUM_CLASSES):
        euclidean_distance_mm(label == c, spacing, maps[c])
    return maps


def _each(function: Callable[..., object], labels: list[np.ndarray], spacings: list[list[float]]) -> None:
    for label, spacing in zip(labels, spacings, strict=False):
        function(label, spacing)


def bench_steps(slices: list[dict[str, MetaTensor]], repeats: int, device: torch.device) -> None:
    chain = Compose([UnshiftScribbled(), ScribbleDistancesd("scribble", NUM_CLASSES)])
    items = [chain(item) for item in slices]
    batch = {key: torch.stack([torch.as_tensor(i[key]) for i in items]).to(device) for key in (*KEYS, "distance")}
    partial_loss, cpl = PartialCrossEntropy(), ContinuousPseudoLabelLoss()
    objectives = {
        "partial cross entropy": ScribbleObjective(partial_loss),
        "MaCo": ScribbleObjective(
            partial_loss, pseudo_label_loss=cpl, masking=ContextMasking(), consistency_loss=ConsistencyLoss()
        ),
        "MaCo without CPL": ScribbleObjective(
            partial_loss, masking=ContextMasking(), consistency_loss=ConsistencyLoss()
        ),
        "MaCo without MCM": ScribbleObjective(partial_loss, pseudo_label_loss=cpl),
        "partial cross entropy and CRF": ScribbleObjective(partial_loss, regularizer=GatedCRFLoss()),
        "DMPLS": DualDecoderObjective(partial_loss),
    }
    measure = wall_ms if device.type == "cuda" else cpu_ms
    times: dict[str, list[float]] = {name: [] for name in objectives}
    memory: dict[str, float] = {}
    steps: dict[str, Callable[[], None]] = {}
    for name, objective in objectives.items():
        features = (16, 32, 64, 128, 256, 16)
        network = objective.extend(BasicUNet(2, 1, NUM_CLASSES, features, norm="batch", upsample="nontrainable"))
        network = network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)

        def step(objective=objective, network=network, optimizer=optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", enabled=device.type == "cuda"):
                predictions = objective.predict(network, batch)
            torch.stack(list(objective.losses(predictions, batch, 0.9).values())).sum().backward()
            optimizer.step()

        steps[name] = step
        if device.type == "cuda":
            step()
            torch.cuda.reset_peak_memory_stats()
            step()
            memory[name] = torch.cuda.max_memory_allocated() / 2**30
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(measure(step))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["partial cross entropy"]
    for name, value in medians.items():
        peak = f"   peak {memory[name]:.2f} GiB" if name in memory else ""
        print(f"{name:30s} {value:9.1f} ms a step of {len(items)}   {value / base:6.2f} times partial CE{peak}")


def bench_loader(batch_size: int, size: int, device: torch.device, num_workers: int, steps: int) -> None:
    """Train by train.json for some steps, and compare the time spent waiting for data with that of the steps."""
    parser = ConfigParser()
    parser.read_config([str(find_bundle() / "configs" / "train.json")])
    moments: list[tuple[str, float]] = []

    def mark(_engine: Engine, name: str) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        moments.append((name, time.perf_counter()))

    with TemporaryDirectory() as folder:
        write_heart_phantoms(f"{folder}/data", 3, num_validation=1, num_test=0, image_size=size)
        places = {"dataset_dir": f"{folder}/data", "ckpt_dir": folder, "output_dir": folder}
        amounts = {"batch_size": batch_size, "roi_size": [size, size], "num_workers": num_workers}
        length = {"max_epochs": 1, "epoch_length": steps + 2, "val_interval": 2}
        for key, value in {**places, **amounts, **length, "device": device}.items():
            parser[key] = value
        trainer = parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.GET_BATCH_STARTED, mark, "wait")
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, mark, "step")
        trainer.add_event_handler(Events.ITERATION_COMPLETED, mark, "rest")
        trainer.run()
    spent = {"wait": 0.0, "step": 0.0, "rest": 0.0}
    starts = [index for index, (name, _) in enumerate(moments) if name == "wait"]
    counted = moments[starts[2] : starts[2] + 3 * steps]  # the first steps prepare workers and memory
    for (name, begin), (_, end) in pairwise(counted):
        spent[name] += end - begin
    share = 100 * spent["wait"] / (spent["wait"] + spent["step"])
    each = ", ".join(f"{name} {1e3 * value / steps:.1f} ms" for name, value in spent.items() if name != "rest")
    print(f"train.json, {batch_size} slices, {num_workers} workers, {device}: {each} a step; waiting {share:.1f} %")


def bench_maco(
    repeats: int = 7,
    batch_size: int = 4,
    size: int = 256,
    device: str = "cpu",
    num_workers: int = 0,
    loader_steps: int = 10,
    parts: str = "distances steps loader",
) -> None:
    """Print milliseconds and ratios."""
    torch.set_num_threads(1)
    slices = make_slices(batch_size, size)
    if "distances" in parts:
        bench_distances(slices, repeats)
    if "steps" in parts:
        bench_steps(slices, repeats, torch.device(device))
    if "loader" in parts:
        bench_loader(batch_size, size, torch.device(device), num_workers, loader_steps)
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    fire.Fire(bench_maco)
