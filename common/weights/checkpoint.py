"""Reading of checkpoint files, with designed messages for what is not one."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_SAFETENSOR_ERROR: type[Exception] = ValueError
try:  # comes with transformers; torch.load reads such files, too
    from safetensors import SafetensorError

    _SAFETENSOR_ERROR = SafetensorError
except ImportError:
    pass

# Under which key training programs keep the weights: PyMIC, Lightning and others, MONAI's CheckpointSaver.
STATE_DICT_KEYS = ("model_state_dict", "state_dict", "network", "model")
# What torch.load raises on files that are not checkpoints, or only in part.
READ_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
    OSError,
    zipfile.BadZipFile,
    _SAFETENSOR_ERROR,
)
# What `torch.nn.DataParallel` puts before each key.
PARALLEL_PREFIX = "module."


def numpy_scalar_globals() -> list[Any]:
    """Return what unpickling a NumPy scalar needs, for `torch.serialization.safe_globals`.

    PyMIC stores its validation score as a NumPy scalar. These types hold a number and run no code.
    """
    scalar = np.float64(0).__reduce__()[0]
    # The same function under the name that NumPy 1 and the one that NumPy 2 writes.
    named = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [*named, np.dtype, *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")}]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the state dict of a checkpoint file onto the CPU; nothing in the file is executed.

    Args:
        path: File written by `torch.save`: a bare state dict, or a dictionary that holds one as `model_state_dict`
            (PyMIC), `state_dict`, `network` or `model`. A `module.` prefix of `DataParallel` is taken off.

    Returns:
        Key to tensor.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, is truncated, or holds anything but weights and numbers.
    """
    return unwrap_state_dict(read_content(path), str(path), from_file=True)


def read_content(path: str | os.PathLike[str]) -> Any:
    """Read all that a checkpoint file holds onto the CPU; arguments and errors are those of `read_checkpoint`."""
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"Checkpoint {file} {what}. Give the path of a file written by torch.save.")
    try:
        _check_archive(file)
        with torch.serialization.safe_globals(numpy_scalar_globals()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        raise ValueError(
            f"Checkpoint {file} ({file.stat().st_size} bytes) cannot be read: it is not a file of weights written by "
            f"torch.save, or is truncated, or holds more than weights and numbers. Download it again and compare its "
            f"size, or save a bare state dict. torch says: {complaint_of(error)}"
        ) from error
    return content


def complaint_of(error: BaseException) -> str:
    """Return the first line of what torch says about a file that it cannot read.

    The rest of the line proposes to read without `weights_only`, which would run what is in the file.

    Args:
        error: One of `READ_ERRORS`.
    """
    return str(error).strip().partition("\n")[0].partition(". In PyTorch")[0] or type(error).__name__


def _check_archive(file: Path) -> None:
    """Refuse a ZIP file that would grow when it is read: `torch.save` compresses nothing and writes each name once.

    Raises:
        ValueError: If an entry is compressed, twice, or longer than the file.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("an entry of the archive is there twice")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"the entry {entry.filename!r} is compressed ({entry.file_size:,} bytes)")
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise ValueError("the entries of the archive are longer than the file")


def unwrap_state_dict(content: object, source: str, from_file: bool = False) -> dict[str, torch.Tensor]:
    """Return the bare state dict within the content of a checkpoint.

    Args:
        content: A state dict, or a dictionary that holds one under one of `STATE_DICT_KEYS`.
        source: Where it comes from, for the message.
        from_file: Whether it was read from a file, so that its tensors must be on the CPU.

    Returns:
        Key to tensor, without a `module.` prefix that all keys have.

    Raises:
        ValueError: If there is no state dict in it, or it has a value that is no tensor.
    """
    if isinstance(content, Mapping):
        for key in STATE_DICT_KEYS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        found = "an empty dictionary" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ValueError(
            f"{source} must hold a state dict (key to tensor), bare or as one of {', '.join(STATE_DICT_KEYS)}; "
            f"found {found}. Save `network.state_dict()`."
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(
            f"{source} must hold only tensors in its state dict, but {len(others)} of {len(content)} values are not, "
            f"the first under {others[0]!r}. Save `network.state_dict()`, bare or as one of "
            f"{', '.join(STATE_DICT_KEYS)}."
        )
    for key, value in content.items():
        if problem := _problem_of(value, from_file):
            raise ValueError(f"{source} must hold tensors of real numbers that are all there; {key!r} {problem}.")
    state = {str(key): value for key, value in content.items()}
    if all(key.startswith(PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(PARALLEL_PREFIX): value for key, value in state.items()}
    return state


def _problem_of(tensor: torch.Tensor, from_file: bool) -> str:
    """Return why a tensor is no weight; nothing where it may be one."""
    if tensor.layout != torch.strided or tensor.is_quantized or (from_file and tensor.device.type != "cpu"):
        return f"is {tensor.layout}, quantized or on {tensor.device}"
    if tensor.is_complex():
        return "is complex"
    stored_bytes = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored_bytes:  # a view that repeats a few numbers without end
        return f"has the shape {tuple(tensor.shape)} on {stored_bytes:,} bytes"
    return ""
