"""Hostile NIfTI files."""

from __future__ import annotations

import gzip
import itertools
import struct
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from tests.faults.hostile import Answer, Case, Refused, Right, SecondReader, damaged_files, written

HEADER_BYTES = 352
# Offset and format of the fields of a NIfTI-1 header.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}
SPACING_MM = (0.8, 1.1, 3.0)
NAN, INF = float("nan"), float("inf")


def oblique() -> np.ndarray:
    """Affine to RAS mm: oblique, anisotropic, right-handed."""
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag(SPACING_MM)
    affine[:3, 3] = [-50, 20, 300]
    return affine


def voxels(dtype: str = "i2", shape: tuple[int, ...] = (13, 9, 7)) -> np.ndarray:
    """Return values that fill a good part of the range of a type."""
    rng = np.random.default_rng(0)
    if dtype.startswith("f"):
        return rng.normal(0, 500, shape).astype(dtype)
    low, high = (0, 200) if dtype in ("u1", "i1") else (-1000 * (dtype[0] == "i"), 1500)
    return rng.integers(low, min(high, np.iinfo(dtype).max), shape).astype(dtype)


def nifti_bytes(array: np.ndarray, affine: np.ndarray | None = None, endian: str = "<", **fields: object) -> bytes:
    """Return a NIfTI-1 file with sform alone, written by hand; `fields` replace what stands in the header."""
    affine = oblique() if affine is None else affine
    header = bytearray(HEADER_BYTES)
    dim = [array.ndim, *array.shape, *(1,) * 7][:8]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    values: dict[str, object] = {
        "sizeof_hdr": 348,
        "dim": dim,
        "datatype": CODES[array.dtype.str[1:]],
        "bitpix": array.dtype.itemsize * 8,
        "pixdim": [1.0, *spacing, 1.0, 1.0, 1.0, 1.0],
        "vox_offset": float(HEADER_BYTES),
        "scl_slope": 1.0,
        "xyzt_units": 2,
        "sform_code": 1,
        "srow": affine[:3].ravel().tolist(),
        "magic": b"n+1\0",
        **fields,
    }
    for name, value in values.items():
        offset, layout = FIELDS[name]
        parts = value if isinstance(value, list | tuple) else [value]
        struct.pack_into(endian + layout, header, offset, *parts)
    with np.errstate(all="ignore"):
        stored = array.astype(array.dtype.newbyteorder(endian))
    return bytes(header) + stored.tobytes(order="F")


def _case(name: str, answer: Answer, array: np.ndarray | None = None, **fields: object) -> Case:
    return Case(f"nifti {name}", written(nifti_bytes(voxels() if array is None else array, **fields)), answer)


def header_cases() -> Iterator[Case]:
    """Yield headers that lie about the size or form of the voxels."""
    dim = (3, 13, 9, 7, 1, 1, 1, 1)
    for number in (0, -1, 8, 70, 32767, -32768):
        yield _case(f"dim0 {number}", Refused(), dim=(number, *dim[1:]))
    for axis, number in itertools.product((1, 2, 3), (0, -1, -13)):
        yield _case(f"axis {axis} of {number}", Refused(), dim=(*dim[:axis], number, *dim[axis + 1 :]))
    for extent in (14, 100, 30000, 32767):
        refused = Refused("must hold the voxels that its header announces")
        yield _case(f"{extent} on every axis", refused, dim=(3, extent, extent, extent, 1, 1, 1, 1))
    yield _case("seven huge axes", Refused(), dim=(7, *(32767,) * 7))
    yield _case("fewer voxels than stored", SecondReader(), dim=(3, 13, 9, 6, 1, 1, 1, 1))
    for code in (0, 1, 3, 32, 128, 256, 512, 1536, 1792, 2048, 2304, 9999, -1):
        yield _case(f"datatype {code}", SecondReader(), datatype=code)
    for bits in (0, 8, 64, -16):
        yield _case(f"bitpix {bits}", SecondReader(), bitpix=bits)
    for offset in (0.0, 1.0, 347.0, 351.0, 352.5, 353.0, 1e9, -352.0, NAN, INF, 3e38):
        yield _case(f"vox_offset {offset}", SecondReader(), vox_offset=offset)
    for magic in (b"ni1\0", b"n+2\0", b"\0\0\0\0", b"abcd", b"n+1 "):
        yield _case(f"magic {magic!r}", SecondReader(), magic=magic)
    for size in (0, 347, 349, 540, -348, 1543569408):
        yield _case(f"sizeof_hdr {size}", Refused(), sizeof_hdr=size)


def scaling_cases() -> Iterator[Case]:
    """Yield headers with a unit or a scaling that is none, or an unusual one."""
    good = voxels()
    right, other = Right(good, oblique()), Refused("in mm")
    for units, answer in ((0, right), (10, right), (1, other), (3, other), (7, SecondReader())):
        yield _case(f"xyzt_units {units}", answer, xyzt_units=units)
    yield _case("unset scaling", Right(good, oblique()), scl_slope=0.0, scl_inter=7.0)
    yield _case("scaling of NaN as nibabel writes it", Right(good, oblique()), scl_slope=NAN, scl_inter=NAN)
    yield _case("scaled", Right(good * 0.5 + 3, oblique()), scl_slope=0.5, scl_inter=3.0)
    yield _case("turned around by the slope", Right(-good.astype(float), oblique()), scl_slope=-1.0)
    for slope, inter in ((INF, 0.0), (-INF, 0.0), (2.0, NAN), (2.0, INF), (3e38, 0.0), (1e36, 3e38), (1.0, NAN)):
        yield _case(f"slope {slope} inter {inter}", Refused(), scl_slope=slope, scl_inter=inter)
    for slope in (1e-30, 1e-45):
        yield _case(f"slope {slope}", SecondReader(), scl_slope=slope)


def geometry_cases() -> Iterator[Case]:
    """Yield headers with a geometry that is none, that is at a limit, or that contradicts itself."""
    good = voxels()
    for size in (1e-30, 1e30, 1e10, 1e-10, 0.0, NAN, INF, -INF):
        scaled = oblique()
        scaled[:3, 2] *= size / SPACING_MM[2]
        pixdim = [1, 0.8, 1.1, size, 1, 1, 1, 1]
        yield _case(f"spacing {size}", Refused(), srow=scaled[:3].ravel().tolist(), pixdim=pixdim)
        yield _case(f"spacing {size} without sform", SecondReader(), sform_code=0, qform_code=1, pixdim=pixdim)
    yield _case("spacing negative in pixdim", SecondReader(), pixdim=[1, -0.8, 1.1, 3, 1, 1, 1, 1])
    for position in (1e30, -1e12, NAN, INF):
        far = oblique()
        far[0, 3] = position
        yield _case(f"origin {position}", Refused(), srow=far[:3].ravel().tolist())
    yield _case("sform of zeros", Refused(), srow=[0.0] * 12)
    singular = oblique()
    singular[:, 2] = singular[:, 1]
    yield _case("two equal axes", Refused(), srow=singular[:3].ravel().tolist())
    sheared = oblique() @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    spacing = np.linalg.norm(sheared[:3, :3], axis=0)
    yield _case("sheared", Right(good, sheared), srow=sheared[:3].ravel().tolist(), pixdim=[1, *spacing, 1, 1, 1, 1])
    flat = oblique() @ np.array([[1, 0.99999, 0, 0], [0, 0.001, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    spacing = np.linalg.norm(flat[:3, :3], axis=0)
    yield _case("sheared flat", Refused(), srow=flat[:3].ravel().tolist(), pixdim=[1, *spacing, 1, 1, 1, 1])
    left = oblique() @ np.diag([-1.0, 1, 1, 1])
    yield _case("left-handed", Right(good, left), srow=left[:3].ravel().tolist())
    yield from orientation_cases()
    yield _case("pixdim against sform", Refused("must give one voxel size"), pixdim=[1.0] * 8)
    yield _case("neither form", Right(good, None), sform_code=0)
    yield _case("qform moved against sform", Right(good, oblique()), qform_code=1, qoffset=(1.0, 2.0, 3.0))
    yield from qform_cases()


def orientation_cases() -> Iterator[Case]:
    """Yield all orientations of the axes."""
    good = voxels()
    for signs in itertools.product((1.0, -1.0), repeat=3):
        for order in itertools.permutations(range(3)):
            turned = oblique()
            turned[:3, :3] = np.diag(signs) @ turned[list(order), :3]
            yield _case(f"orientation {signs} {order}", Right(good, turned), srow=turned[:3].ravel().tolist())


def qform_cases() -> Iterator[Case]:
    """Yield headers with a qform that is none, or unusual codes."""
    pixdim = [1.0, *SPACING_MM, 1, 1, 1, 1]
    yield _case("qform alone", SecondReader(), sform_code=0, qform_code=1, quatern=(0.1, 0.2, 0.3), qoffset=(1, 2, 3))
    for quaternion in ((2.0, 0.0, 0.0), (NAN, 0.0, 0.0), (1e30, 1e30, 0.0), (0.8, 0.8, 0.0)):
        yield _case(f"quaternion {quaternion}", Refused(), sform_code=0, qform_code=1, quatern=quaternion)
    for handedness in (-1.0, 0.0, 5.0, NAN):
        yield _case(f"qfac {handedness}", SecondReader(), sform_code=0, qform_code=1, pixdim=[handedness, *pixdim[1:]])
    for code in (-1, 32767):
        yield _case(f"sform_code {code}", SecondReader(), sform_code=code)


def value_cases() -> Iterator[Case]:
    """Yield arrays at a limit."""
    for shape in ((1, 1, 1), (1, 9, 7), (13, 1, 7), (13, 9, 1)):
        array = voxels(shape=shape)
        yield _case(f"shape {shape}", Right(array, oblique()), array)
    for shape in ((13, 9), (13, 9, 7, 1), (5, 4, 3, 2)):
        array = voxels(shape=shape)
        yield _case(f"shape {shape}", Refused("as MONAI drops an sform alone"), array)
        straight = np.diag([*SPACING_MM, 1.0])
        yield _case(f"shape {shape}, not turned", SecondReader(), array, affine=straight)
    for shape in ((5, 4, 3, 2, 2), (5, 4, 3, 1, 1), (5, 4, 3, 1, 1, 1, 2)):
        yield _case(f"shape {shape}", Refused("at most one of channels"), voxels(shape=shape))
    yield _case("one axis", SecondReader(), voxels(shape=(13,)))
    for dtype in CODES:
        array = voxels(dtype)
        yield _case(f"type {dtype}", Right(array, oblique()), array)
        yield _case(f"constant {dtype}", Right(np.full_like(array, 3), oblique()), np.full_like(array, 3))
        content = nifti_bytes(array, endian=">")
        yield Case(f"nifti big endian {dtype}", written(content), Right(array, oblique()))
        if dtype[0] in "iu":
            limits = np.full_like(array, np.iinfo(dtype).max)
            limits[0] = np.iinfo(dtype).min
            yield _case(f"limits of {dtype}", Right(limits, oblique()), limits)
            scaled = Right(limits * 2.5 + 1, oblique())
            yield _case(f"limits of {dtype}, scaled", scaled, limits, scl_slope=2.5, scl_inter=1.0)
    for number in (NAN, INF, -INF):
        for dtype in ("f4", "f8"):
            array = voxels(dtype)
            array[3, 4, 5] = number
            yield _case(f"{number} in {dtype}", Refused("must be finite"), array)
    array = voxels("f8")
    array[3, 4, 5] = 1e300
    yield _case("beyond float32", Refused("must be finite"), array)


def container_cases() -> Iterator[Case]:
    """Yield files whose name or compression is not what it seems."""
    good, content = voxels(), nifti_bytes(voxels())
    packed = gzip.compress(content, mtime=0)
    for name in (
        "a b.nii.gz",
        "  .nii.gz",
        "naïve ü.nii.gz",
        "naive\u0308.nii.gz",
        "日本語.nii.gz",
        "a'\"$(x);&.nii.gz",
        "-rf.nii.gz",
        "a\nb.nii.gz",
        "CASE.NII.GZ",
        "x.nii.nii.gz",
        f"{'long' * 60}.nii.gz",
    ):
        yield Case(f"nifti name {name[-30:]!r}", written(packed, name), Right(good, oblique()))
        plain = name.removesuffix(".gz").removesuffix(".GZ")
        yield Case(f"nifti name {plain[-30:]!r}", written(content, plain), Right(good, oblique()))
    yield Case("nifti .nii that is gzip", written(packed, "a.nii"), Refused("must open"))
    yield Case("nifti .nii.gz that is not", written(content, "a.nii.gz"), Refused("must open"))
    yield Case("nifti gzip of gzip", written(gzip.compress(packed), "a.nii.gz"), Refused("must open"))
    yield Case("nifti gzip of nothing", written(gzip.compress(b""), "a.nii.gz"), Refused("must open"))
    two = gzip.compress(content[:400], mtime=0) + gzip.compress(content[400:], mtime=0)
    yield Case("nifti gzip in two members", written(two, "a.nii.gz"), Right(good, oblique()))
    yield Case("nifti gzip with zeros behind", written(packed + bytes(100), "a.nii.gz"), Right(good, oblique()))
    yield Case("nifti gzip with noise behind", written(packed + b"noise", "a.nii.gz"), Refused("must open"))
    for cut in (1, 4, 8, 9, 20, 200, len(packed) - 1):
        yield Case(f"nifti gzip without its last {cut}", written(packed[:-cut], "a.nii.gz"), Refused())
    for length in (0, 1, 100, 347, 348, 351, 352, 353, len(content) - 1):
        yield Case(f"nifti cut to {length}", written(content[:length]), Refused())
        yield Case(f"nifti packed, cut to {length}", written(gzip.compress(content[:length]), "a.nii.gz"), Refused())
    yield Case("nifti with more behind", written(content + b"more"), SecondReader())
    yield Case("nifti of zeros", written(bytes(5000)), Refused())
    yield Case("nifti of ones", written(b"\xff" * 5000), Refused())
    huge = nifti_bytes(voxels(), dim=(3, 32767, 32767, 100, 1, 1, 1, 1))
    yield Case("nifti packed, huge", written(gzip.compress(huge), "a.nii.gz"), Refused("header announces"))
    small = nifti_bytes(np.zeros((2, 2, 2), "u1"))
    bomb = written(lambda: gzip.compress(small + bytes(300 * 2**20), 9, mtime=0), "a.nii.gz")
    yield Case("nifti gzip with 300 MiB of zeros behind", bomb, SecondReader())
    lie = gzip.compress(nifti_bytes(np.zeros((2, 2, 2), "u1"), dim=(3, 1000, 1000, 1000, 1, 1, 1, 1)) + bytes(2**20))
    yield Case("nifti gzip of a megabyte that announces a gigabyte", written(lie, "a.nii.gz"), Refused())


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield damaged files, most of them damaged in the header, half of them compressed afterwards."""
    content = nifti_bytes(voxels(), qform_code=1, quatern=(0.1, 0.2, 0.3), qoffset=(-50, 20, 300))
    bases = {"a.nii": content, "b.nii": nifti_bytes(voxels("f4"), endian=">"), "c.nii.gz": gzip.compress(content)}
    yield from damaged_files("nifti", bases, HEADER_BYTES, seed, count)


def cases(seed: int, count: int) -> list[Case]:
    """Return every named case and `count` random ones."""
    headers = (*header_cases(), *scaling_cases(), *geometry_cases())
    return [*headers, *value_cases(), *container_cases(), *random_cases(seed, count)]
