"""Checks of a bundle's network: what goes in and out, and export."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.bundle import ckpt_export, onnx_export, verify_net_in_out

from .bundle_folder import METADATA, read_json
from .configurations import read_configs
from .findings import NotPossibleError

NETWORK = "network_def"
WEIGHTS = "ckpt_path"
# Format of a second network, of training, where it differs.
PRETRAINING = "pretraining_data_format"
# How far an exported network may be from the original: the order of sums differs.
TOLERANCE = 1e-4
# How `any` and `n` of a format are filled for the check.
FREE_SIZE = 32


class ReleasedNetwork(NamedTuple):
    """A network that a bundle runs.

    Attributes:
        bundle: Folder of the bundle.
        config: Name of the file in `configs/` that defines it and names its weights.
    """

    bundle: Path
    config: str

    def files(self) -> dict[str, str]:
        """Arguments of MONAI's functions."""
        configs = self.bundle / "configs"
        return {"meta_file": str(self.bundle / METADATA), "config_file": str(configs / self.config)}

    def build(self) -> torch.nn.Module:
        """Return the network with random weights, in evaluation mode, on the CPU."""
        return read_configs(self.bundle, [self.config]).get_parsed_content(NETWORK).cpu().eval()

    def input_shape(self) -> tuple[int, ...]:
        """Shape of a small input that the metadata allow, with batch and channel."""
        image = read_json(self.bundle / METADATA)["network_data_format"]["inputs"]["image"]
        sizes = [_size(entry) for entry in image["spatial_shape"]]
        return (1, image["num_channels"], *sizes)

    def image(self) -> torch.Tensor:
        """A random input that the metadata allow."""
        return torch.rand(self.input_shape(), generator=torch.Generator().manual_seed(0))

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """Give the file of the weights: the bundle's own, or random ones where it ships none."""
        own = Path(read_configs(self.bundle, [self.config]).get_parsed_content(WEIGHTS))
        if own.is_file():
            yield own
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            torch.save(self.build().state_dict(), path)
            yield path


def find_network(bundle: Path) -> ReleasedNetwork:
    """Return the network that the metadata describe: of the configuration with `network_def` and `ckpt_path`.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If no configuration or several have both.
    """
    paths = sorted((bundle / "configs").glob("*.json"))
    found = [path.name for path in paths if {NETWORK, WEIGHTS} <= set(read_json(path))]
    if len(found) != 1:
        raise ValueError(
            f"Exactly one file in {bundle / 'configs'} must define {NETWORK} and {WEIGHTS}, the network of "
            f"network_data_format and its weights; found {found or 'none'}."
        )
    return ReleasedNetwork(bundle, found[0])


def check_network(bundle: Path) -> str:
    """Run MONAI's `verify_net_in_out`: channels and types are those of the metadata.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If they are others.
    """
    network = find_network(bundle)
    verify_net_in_out(net_id=NETWORK, device="cpu", n=2, any=FREE_SIZE, **network.files())
    checked = [network.config]
    pretraining = read_json(bundle / METADATA).get(PRETRAINING)
    if pretraining is not None:
        files = {**network.files(), "config_file": str(bundle / "configs/train.json")}
        verify_net_in_out(
            net_id=NETWORK, device="cpu", n=2, any=FREE_SIZE, **files, **{"_meta_#network_data_format": pretraining}
        )
        checked.append("train.json")
    return f"{NETWORK} of {' and '.join(checked)}"


def check_torchscript(bundle: Path) -> str:
    """Export with MONAI's `ckpt_export`, read the file again, and compare outputs.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If the outputs differ.
    """
    network = find_network(bundle)
    image = network.image()
    with network.weights() as weights, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ts"
        ckpt_export(net_id=NETWORK, filepath=str(path), ckpt_file=str(weights), **network.files())
        exported = torch.jit.load(path, map_location="cpu").eval()
        with torch.no_grad():
            difference = _difference(_run(network, weights, image), exported(image).numpy())
    return f"largest difference {difference:.1e} of the output's deviation"


def check_onnx(bundle: Path) -> str:
    """Export with MONAI's `onnx_export`, run the file in ONNX Runtime, and compare outputs.

    Args:
        bundle: Folder of the bundle.

    Raises:
        NotPossibleError: Without the packages of the extra `onnx`.
        ValueError: If the outputs differ.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise NotPossibleError(f"needs {', '.join(missing)}, of the extra `onnx`")
    import onnxruntime

    network = find_network(bundle)
    image = network.image()
    with network.weights() as weights, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with redirect_stdout(StringIO()):  # torch prints its progress
            onnx_export(
                net_id=NETWORK,
                filepath=str(path),
                ckpt_file=str(weights),
                input_shape=network.input_shape(),
                **network.files(),
            )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        difference = _difference(_run(network, weights, image), output)
    return f"largest difference {difference:.1e} of the output's deviation"


def _run(network: ReleasedNetwork, weights: Path, image: torch.Tensor) -> np.ndarray:
    original = network.build()
    original.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    with torch.no_grad():
        return original(image).numpy()


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference as a share of the output's deviation."""
    if expected.shape != found.shape:
        raise ValueError(f"The exported network gives the shape {found.shape} instead of {expected.shape}.")
    difference = float(np.abs(expected - found).max() / max(float(expected.std()), 1e-12))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The exported network differs by {difference:.1e} of the output's deviation; {TOLERANCE:.0e} is allowed."
        )
    return difference


def _size(entry: int | str) -> int:
    """A size for an entry of `spatial_shape`: a number, `*`, or a multiple such as `16*n`."""
    if isinstance(entry, int):
        return entry
    factor, star, _ = entry.partition("*")
    if factor.isdigit() and star:
        return 2 * int(factor)
    return FREE_SIZE
