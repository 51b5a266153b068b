"""Readers for tests that share no code with those of `common.data.readers`: what does a file say, byte by byte?"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import itk
import numpy as np
import pydicom
import tifffile

from common.data.readers import load_itk
from tests.faults.hostile_nifti import CODES, FIELDS

Reading = tuple[np.ndarray | None, np.ndarray | None]
META_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
}
NRRD_TYPES = {
    "uchar": "u1",
    "signed char": "i1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
    "int64": "i8",
    "uint64": "u8",
    "long long int": "i8",
}
# Axes of a space against those of LPS.
NRRD_SIGNS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
TYPES = {code: name for name, code in CODES.items()}


def second_reading(path: Path) -> Reading | None:
    """Return values and affine to RAS mm of a file; None where it does not say them."""
    name = path.name.lower()
    if path.is_dir():
        return _dicom(path)
    try:
        if name.endswith((".nii", ".nii.gz")):
            return _nifti(path)
        if name.endswith((".mha", ".mhd")):
            return _metaimage(path)
        if name.endswith(".nrrd"):
            return _nrrd(path)
        return _picture(path)
    except (struct.error, zlib.error, OSError, EOFError, ValueError, OverflowError, KeyError, IndexError, TypeError):
        return None


def _nifti(path: Path) -> Reading | None:
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.decompress(content)
    endian = next((e for e in "<>" if struct.unpack_from(f"{e}i", content)[0] == 348), None)
    if endian is None:
        return None
    header = {}
    for name, (offset, layout) in FIELDS.items():
        values = struct.unpack_from(endian + layout, content, offset)
        header[name] = values if len(values) > 1 else values[0]
    rank = header["dim"][0]
    shape = header["dim"][1 : rank + 1]
    offset = header["vox_offset"]
    if header["magic"] != b"n+1\0" or not 1 <= rank <= 7 or min(shape) < 1 or offset < 352 or offset != int(offset):
        return None
    dtype = np.dtype(endian + TYPES[header["datatype"]])
    count = math.prod(shape)
    array = np.frombuffer(content, dtype, count, int(offset)).reshape(shape, order="F")
    slope, inter = header["scl_slope"], header["scl_inter"]
    if not math.isnan(slope) and slope != 0 and (slope, inter) != (1, 0):
        if not math.isfinite(slope) or not math.isfinite(inter):
            return None
        array = array * slope + inter
    return array, _nifti_affine(header)


def _nifti_affine(header: dict) -> np.ndarray | None:
    affine = np.eye(4)
    if header["sform_code"] > 0:
        affine[:3] = np.reshape(header["srow"], (3, 4))
        return affine
    if header["qform_code"] <= 0:
        return None  # a guess is as good as another
    b, c, d = header["quatern"]
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    # negative sizes are taken as positive; an axis that is not there has size 1
    sizes = [abs(s) if axis < header["dim"][0] else 1.0 for axis, s in enumerate(header["pixdim"][1:4])]
    qfac = -1.0 if header["pixdim"][0] == -1 else 1.0
    affine[:3, :3] = rotation @ np.diag([*sizes[:2], qfac * sizes[2]])
    affine[:3, 3] = header["qoffset"]
    return affine


def _metaimage(path: Path) -> Reading | None:
    content = path.read_bytes()
    fields, start = {}, 0
    while "ElementDataFile" not in fields:
        end = content.index(b"\n", start)
        name, _, value = content[start:end].decode("latin-1").partition("=")
        if name.strip() in fields:
            return None
        fields[name.strip()] = value.strip()
        start = end + 1
    data = (
        content[start:]
        if fields["ElementDataFile"] == "LOCAL"
        else (path.parent / fields["ElementDataFile"]).read_bytes()
    )
    if fields.get("CompressedData", "False").lower() == "true":
        data = zlib.decompress(data)
    rank = int(fields["NDims"])
    shape = [int(n) for n in fields["DimSize"].split()]
    if len(shape) != rank or min(shape) < 1 or fields.get("BinaryData", "True").lower() != "true":
        return None
    endian = ">" if fields.get("BinaryDataByteOrderMSB", "False").lower() == "true" else "<"
    dtype = np.dtype(endian + META_TYPES[fields["ElementType"]])
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    array = np.frombuffer(data, dtype, math.prod(shape) * channels)
    array = array.reshape((channels, *shape) if channels > 1 else shape, order="F")
    array = np.moveaxis(array, 0, -1) if channels > 1 else array
    directions = _floats(fields.get("TransformMatrix", " ".join(map(str, np.eye(rank).ravel()))), rank * rank)
    spacing = _floats(fields.get("ElementSpacing", "1 " * rank), rank)
    origin = _floats(fields.get("Offset", "0 " * rank), rank)
    return array, _ras(np.reshape(directions, (rank, rank)).T * spacing, origin)


def _nrrd(path: Path) -> Reading | None:
    head, _, data = path.read_bytes().partition(b"\n\n")
    magic, *lines = head.decode("latin-1").splitlines()
    pairs = [line.partition(": ") for line in lines if not line.startswith("#") and ":=" not in line]
    fields = {name.lower(): value for name, _, value in pairs}
    if not magic.startswith("NRRD000") or len(fields) < len(pairs):
        return None
    shape = [int(n) for n in fields["sizes"].split()]
    if len(shape) != int(fields["dimension"]) or min(shape) < 1:
        return None
    encoding = fields["encoding"].lower()
    if encoding in ("gzip", "gz"):
        data = zlib.decompressobj(31).decompress(data)
    elif encoding != "raw":
        return None
    byte_order = {"little": "<", "big": ">"}[fields["endian"].lower()]
    array = np.frombuffer(data, np.dtype(byte_order + NRRD_TYPES[fields["type"]]), math.prod(shape))
    array = array.reshape(shape, order="F")
    if "space directions" not in fields:
        affine = _ras(np.diag(_floats(fields.get("spacings", "1 1 1"), 3)), [0.0, 0.0, 0.0])
        return array, affine
    vectors = [
        _floats(v.strip("()").replace(",", " "), 3) for v in re.findall(r"\([^)]*\)", fields["space directions"])
    ]
    origin = _floats(fields.get("space origin", "(0,0,0)").strip("()").replace(",", " "), 3)
    turn = np.array(NRRD_SIGNS[fields.get("space", "lps").lower()], float)
    return array, _ras(np.array(vectors).T * turn[:, None], np.array(origin) * turn)


def _floats(text: str, count: int) -> list[float]:
    numbers = [float(word) for word in text.split()]
    if len(numbers) != count:
        raise ValueError(text)
    return numbers


def _ras(matrix_lps: np.ndarray, origin_lps: list[float] | np.ndarray) -> np.ndarray:
    """Put a 2D or 3D LPS geometry into a 4 x 4 affine to RAS."""
    rank = min(len(origin_lps), 3)
    affine = np.eye(4)
    affine[:rank, :rank] = matrix_lps[:rank, :rank]
    affine[:rank, 3] = origin_lps[:rank]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _dicom(folder: Path) -> Reading | None:
    """Stack the slices of a folder with pydicom, whatever it says about their differences."""
    slices = []
    for path in sorted(folder.iterdir()):
        if path.suffix != ".dcm" or not path.is_file():
            continue
        try:
            data = pydicom.dcmread(path)
            slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
            pixels = data.pixel_array.astype(float) * slope + intercept
            fields = (data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing)
            slices.append((*(np.array(field, float) for field in fields), pixels))
        except Exception:  # whatever pydicom raises on noise
            return None
    _, orientation, spacing, pixels = slices[0]
    same = all(
        np.allclose(o, orientation, atol=1e-4) and np.allclose(s, spacing, rtol=1e-3) and p.shape == pixels.shape
        for _, o, s, p in slices
    )
    if not same or len(slices) < 2:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    slices.sort(key=lambda entry: float(entry[0] @ normal))
    step = (slices[-1][0] - slices[0][0]) / (len(slices) - 1)
    matrix = np.stack([orientation[:3] * spacing[1], orientation[3:] * spacing[0], step], axis=1)
    array = np.stack([entry[3].T for entry in slices], axis=-1)
    return array, _ras(matrix, slices[0][0])


def _picture(path: Path) -> Reading | None:
    """Read a PNG through ITK, a TIFF through tifffile; axes columns, rows as Pillow's reader gives them.

    Of a JPEG, which has no checksum and whose decoders differ by some steps, nothing is known but that it begins so.
    """
    start = path.read_bytes()[:4]
    if start.startswith(b"\xff\xd8"):
        return None, None
    try:
        if start in (b"II*\0", b"MM\0*"):
            with tifffile.TiffFile(path) as file:
                if tifffile.COMPRESSION(file.pages[0].compression).name in ("LZW", "JPEG"):
                    return None, None
                array = file.pages[0].asarray()
        else:
            load_itk()
            array = itk.array_from_image(itk.imread(str(path), imageio=itk.PNGImageIO.New()))
    except Exception:  # whatever they raise on noise
        return None
    return np.swapaxes(array, 0, 1), None
