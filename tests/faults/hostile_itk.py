"""Hostile MHA, MHD and NRRD files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.faults.hostile import Answer, Case, Refused, Right, SecondReader, damaged_files, packed_zeros, written
from tests.faults.hostile_nifti import oblique, voxels

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TYPES = {
    "u1": "UCHAR",
    "i1": "CHAR",
    "i2": "SHORT",
    "u2": "USHORT",
    "i4": "INT",
    "u4": "UINT",
    "f4": "FLOAT",
    "f8": "DOUBLE",
}
NRRD_TYPES = {
    "u1": "uchar",
    "i1": "signed char",
    "i2": "short",
    "u2": "ushort",
    "i4": "int",
    "u4": "uint",
    "f4": "float",
    "f8": "double",
    "i8": "int64",
    "u8": "uint64",
}
HEADER_BYTES = 480


def _join(numbers: np.ndarray) -> str:
    return " ".join(repr(float(n)) for n in np.ravel(numbers))


def mha_bytes(array: np.ndarray, packed: bool = False, data_file: str = "LOCAL", **fields: str | None) -> bytes:
    """Return an MHA file, or the header of an MHD; `fields` replace lines, None leaves one out."""
    lps = LPS @ oblique()
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    data = array.tobytes(order="F")
    data = zlib.compress(data) if packed else data
    lines: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(packed),
        "CompressedDataSize": str(len(data)) if packed else None,
        "TransformMatrix": _join((lps[:3, :3] / spacing).T),
        "Offset": _join(lps[:3, 3]),
        "ElementSpacing": _join(spacing),
        "DimSize": " ".join(map(str, array.shape)),
        "ElementType": f"MET_{TYPES[array.dtype.str[1:]]}",
        **fields,
        "ElementDataFile": data_file,
    }
    text = "".join(f"{name} = {value}\n" for name, value in lines.items() if value is not None)
    return text.encode("latin-1") + (data if data_file == "LOCAL" else b"")


def nrrd_bytes(array: np.ndarray, encoding: str = "raw", data: bytes | None = None, **fields: str | None) -> bytes:
    """Return an NRRD file; `fields` replace lines, None leaves one out."""
    lps = LPS @ oblique()
    pack = {"gzip": gzip.compress, "raw": bytes}.get(encoding, bytes)
    lines: dict[str, str | None] = {
        "type": NRRD_TYPES[array.dtype.str[1:]],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape)),
        "space_directions": " ".join(f"({','.join(repr(float(x)) for x in lps[:3, axis])})" for axis in range(3)),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": encoding,
        "space_origin": f"({','.join(repr(float(x)) for x in lps[:3, 3])})",
        **fields,
    }
    text = "".join(f"{name.replace('_', ' ')}: {value}\n" for name, value in lines.items() if value is not None)
    content = pack(array.tobytes(order="F")) if data is None else data
    return b"NRRD0004\n" + text.encode("latin-1") + b"\n" + content


def _mha(name: str, answer: Answer, packed: bool = False, **fields: str | None) -> Case:
    return Case(f"mha {name}", written(mha_bytes(voxels(), packed, **fields), "a.mha"), answer)


def mha_size_cases() -> Iterator[Case]:
    """Yield MetaImages that lie about their size."""
    right = Right(voxels(), oblique())
    yield _mha("sound", right)
    yield _mha("sound, packed", right, packed=True)
    many = "13 9 99999999999999999999"
    for size in ("13 9", "13 9 7 1", "13 9 0", "13 9 -7", "13 9 x", "13 9 7.5", "", "1e9 9 7", many):
        yield _mha(f"DimSize {size}", Refused(), DimSize=size)
    for size in ("14 9 7", "30000 30000 30000", "2147483647 2147483647 2147483647", "4294967297 9 7"):
        yield _mha(f"DimSize {size}", Refused("must hold the voxels that its header announces"), DimSize=size)
        yield _mha(f"DimSize {size}, packed", Refused(), packed=True, DimSize=size)
    yield _mha("fewer voxels than stored", SecondReader(), DimSize="13 9 6")
    for rank in ("0", "1", "2", "4", "10", "11", "-3", "x", "3.0", "99999999999"):
        yield _mha(f"NDims {rank}", Refused(), NDims=rank)


def mha_geometry_cases() -> Iterator[Case]:
    """Yield MetaImages with a geometry that is none, or an unusual one."""
    for name in ("ElementSpacing", "Offset", "TransformMatrix"):
        for value in ("nan nan nan", "1 2", "1 2 x", "1e400 1 1", "inf 1 1", "", "0x10 1 1", "1,5 1 1", "1 1 1 1"):
            yield _mha(f"{name} {value}", Refused(), **{name: value})
        yield _mha(f"without {name}", SecondReader(), **{name: None})
    for value in ("0 1 1", "-1 1 1", "1e-30 1 1", "1e30 1 1", "-0.8 -1.1 -3"):
        yield _mha(f"ElementSpacing {value}", Refused(), ElementSpacing=value)
    for value in ("1e30 0 0", "-1e12 0 0"):
        yield _mha(f"Offset {value}", Refused(), Offset=value)
    for value in ("0 " * 9, "1 0 0 1 0 0 0 0 1", "1 0 0 1 1e-6 0 0 0 1"):
        yield _mha(f"TransformMatrix {value}", Refused(), TransformMatrix=value)
    for value in ("1 0 0 0 -1 0 0 0 1", "0 1 0 1 0 0 0 0 1", "1 0 0 0.2 1 0 0 0 1", "2 0 0 0 1 0 0 0 1"):
        yield _mha(f"TransformMatrix {value}", SecondReader(), TransformMatrix=value)


def mha_form_cases() -> Iterator[Case]:
    """Yield MetaImages that lie about the form of their voxels."""
    for name in ("NONE", "STRING", "OTHER", "DOUBLE", "UCHAR", "LONG_LONG", "LONG"):
        yield _mha(f"ElementType MET_{name}", SecondReader(), ElementType=f"MET_{name}")
    for value in ("short", ""):
        yield _mha(f"ElementType {value}", SecondReader(), ElementType=value)
    for value in ("0", "-1", "2", "100000", "x"):
        yield _mha(f"ElementNumberOfChannels {value}", Refused(), ElementNumberOfChannels=value)
    yield _mha("ElementNumberOfChannels 7", SecondReader(), DimSize="13 9 1", ElementNumberOfChannels="7")
    for name in ("BinaryData", "CompressedData", "BinaryDataByteOrderMSB"):
        for value in ("perhaps", "1", "T", "true", "False", "True", ""):
            yield _mha(f"{name} {value}", SecondReader(), **{name: value})
    for value in ("1", "-1", "100000", "-5"):
        yield _mha(f"HeaderSize {value}", Refused(), HeaderSize=value)
    yield _mha("CompressedDataSize too small", SecondReader(), packed=True, CompressedDataSize="5")
    yield _mha("CompressedDataSize too large", SecondReader(), packed=True, CompressedDataSize="99999999")
    yield _mha("CompressedDataSize absent", Refused(), packed=True, CompressedDataSize=None)
    yield _mha("CompressedDataSize negative", SecondReader(), packed=True, CompressedDataSize="-1")
    yield _mha("scaled", Refused(), ElementToIntensityFunctionSlope="2")
    yield _mha("two origins", Refused(), Position="1 2 3")
    yield _mha("ObjectType", SecondReader(), ObjectType="Spline")


def mha_container_cases() -> Iterator[Case]:
    """Yield MetaImages that are cut, that point elsewhere, or that hold more than they seem."""
    good = voxels()
    elsewhere = ("/etc/passwd", "../secret.raw", "/dev/zero", "LIST", "%03d.raw 1 7 1", "sub/../../x.raw")
    for name in (*elsewhere, "absent.raw", "", "."):
        yield Case(f"mhd data file {name}", written(mha_bytes(good, data_file=name), "a.mhd"), Refused())
    content = mha_bytes(good, packed=True)
    for cut in (1, 4, 100, 1000, len(content) - 10):
        yield Case(f"mha cut by {cut}", written(content[:-cut], "a.mha"), Refused())
        yield Case(f"mha raw, cut by {cut}", written(mha_bytes(good)[:-cut], "a.mha"), Refused())
    huge = content.replace(b"ObjectType", b"Comment = " + b"x" * 300_000 + b"\nObjectType")
    yield Case("mha with an endless line", written(huge, "a.mha"), Refused())
    twice = content.replace(b"Offset", b"Offset = 1 2 3\nOffset")
    yield Case("mha Offset twice", written(twice, "a.mha"), Refused("twice"))
    bomb = mha_bytes(np.zeros((2, 2, 2), "u1"), packed=True)
    start = bomb.index(b"LOCAL\n") + 6
    yield Case("mha bomb", written(lambda: bomb[:start] + packed_zeros("zlib"), "a.mha"), Refused())


def _nrrd(
    name: str, answer: Answer, encoding: str = "raw", array: np.ndarray | None = None, **fields: str | None
) -> Case:
    content = nrrd_bytes(voxels() if array is None else array, encoding, **fields)
    return Case(f"nrrd {name}", written(content, "a.nrrd"), answer)


def nrrd_size_cases() -> Iterator[Case]:
    """Yield NRRD files of all types, and such that lie about their size."""
    right = Right(voxels(), oblique())
    yield _nrrd("sound", right)
    yield _nrrd("sound, packed", right, "gzip")
    for dtype in NRRD_TYPES:
        array = voxels(dtype)
        answer = Refused("of one of the types") if dtype in ("i1", "i8") else Right(array, oblique())
        yield _nrrd(f"of {dtype}", answer, array=array)
    huge = ("30000 30000 30000", "4294967296 4294967296 4294967296")
    for sizes in ("13 9", "13 9 7 1", "13 9 0", "13 9 -7", "13 9 x", "", "14 9 7", *huge):
        yield _nrrd(f"sizes {sizes}", Refused(), sizes=sizes)
        yield _nrrd(f"sizes {sizes}, packed", Refused(), "gzip", sizes=sizes)
    yield _nrrd("fewer voxels than stored", SecondReader(), sizes="13 9 6")
    for rank in ("0", "2", "4", "16", "17", "-1", "x", "99999999999"):
        yield _nrrd(f"dimension {rank}", Refused(), dimension=rank)


def nrrd_geometry_cases() -> Iterator[Case]:
    """Yield NRRD files with a geometry that is none, or an unusual one."""
    right = Right(voxels(), oblique())
    others = " (0,1,0) (0,0,1)"
    for value in (
        *(f"({length},0,0){others}" for length in ("nan", "inf", "0", "1e30", "1e-30")),
        "(1,0,0) (0,1,0)",
        "(1,0,0) (0,1,0) (0,0,x)",
        "(1,0,0) (1,0,0) (0,0,1)",
        "1 0 0",
        "",
        "(1,0) (0,1) (0,0)",
        "none none none",
        "(1,0,0) (0,1,0) none",
    ):
        yield _nrrd(f"space directions {value}", Refused(), space_directions=value)
    for value in ("(1,2)", "(1,2,x)", "(nan,0,0)", "(1e30,0,0)", "1,2,3", ""):
        yield _nrrd(f"space origin {value}", Refused(), space_origin=value)
    for space in ("right-anterior-superior", "RAS", "LAS", "left-anterior-superior", "LPS"):
        yield _nrrd(f"space {space}", SecondReader(), space=space)
    for space in ("scanner-xyz", "3D-right-handed", "left-posterior-superior-time", "nowhere", ""):
        yield _nrrd(f"space {space}", Refused(), space=space)
    yield _nrrd("space units um", Refused("must be in mm"), space_units='"um" "um" "um"')
    yield _nrrd("space units mm", right, space_units='"mm" "mm" "mm"')
    yield _nrrd("without space", SecondReader(), space=None)
    yield _nrrd("without place", SecondReader(), space=None, space_directions=None, space_origin=None)
    spacings = {"space": None, "space_directions": None, "space_origin": None}
    for value in ("0.8 1.1 3", "0 1 1", "-1 1 1", "nan nan nan", "1 1", "x 1 1", "inf 1 1"):
        yield _nrrd(f"spacings {value}", SecondReader(), spacings=value, **spacings)


def nrrd_form_cases() -> Iterator[Case]:
    """Yield NRRD files that lie about the form of their voxels, are cut, or hold more than they seem."""
    good = voxels()
    for value in ("float", "double", "uchar", "block", "int128", "", "long long int"):
        yield _nrrd(f"type {value}", SecondReader(), type=value)
    for value in ("big", "middle", "", None):
        yield _nrrd(f"endian {value}", SecondReader(), endian=value)
    packed = nrrd_bytes(good, "raw", gzip.compress(b"x"))
    yield Case("nrrd gzip that is called raw", written(packed, "a.nrrd"), Refused())
    not_packed = nrrd_bytes(good, "gzip", good.tobytes())
    yield Case("nrrd raw that is called gzip", written(not_packed, "a.nrrd"), Refused())
    for value in ("bzip2", "ascii", "hex", "zrl", "nothing", "", None):
        yield _nrrd(f"encoding {value}", Refused(), encoding=value)
    for field in ("data_file", "byte_skip", "line_skip"):
        for value in ("/etc/passwd", "../x.raw", "-1", "5", "LIST"):
            yield _nrrd(f"{field} {value}", Refused("right behind its header"), **{field: value})
    for value in ("domain", "vector domain domain", "list domain domain", "x y z", "domain domain domain domain"):
        yield _nrrd(f"kinds {value}", SecondReader(), kinds=value)
    content = nrrd_bytes(good, "gzip")
    for cut in (1, 4, 9, 100, 1000, len(content) - 10):
        yield Case(f"nrrd cut by {cut}", written(content[:-cut], "a.nrrd"), Refused())
    for cut in (1, 1000):
        yield Case(f"nrrd raw, cut by {cut}", written(nrrd_bytes(good)[:-cut], "a.nrrd"), Refused())
    bomb = nrrd_bytes(np.zeros((2, 2, 2), "u1"), "gzip", b"")
    yield Case("nrrd bomb", written(lambda: bomb + packed_zeros("gzip"), "a.nrrd"), Refused())
    yield Case("nrrd mha", written(mha_bytes(good), "a.nrrd"), Refused())
    yield Case("mha nrrd", written(nrrd_bytes(good), "a.mha"), Refused())


def detached_cases() -> Iterator[Case]:
    """Yield MHD files with voxels in a second file."""
    good = voxels()
    data = good.tobytes(order="F")

    def case(name, answer, content, data_name="a.raw", **fields):
        def write(folder: Path) -> Path:
            (folder / "a.raw").write_bytes(content)
            (folder / "a.mhd").write_bytes(mha_bytes(good, data_file=data_name, **fields))
            return folder / "a.mhd"

        return Case(f"mhd {name}", write, answer)

    yield case("sound", Right(good, oblique()), data)
    yield case("short", Refused("header announces"), data[:-1])
    yield case("empty", Refused(), b"")
    yield case("with more behind", SecondReader(), data + b"more")
    packed = zlib.compress(data)
    size = str(len(packed))
    yield case("packed", Right(good, oblique()), packed, CompressedData="True", CompressedDataSize=size)
    yield case("packed, cut", Refused(), packed[:-9], CompressedData="True")

    def linked(folder: Path) -> Path:
        (folder / "a.raw").symlink_to("a.raw")
        (folder / "a.mhd").write_bytes(mha_bytes(good, data_file="a.raw"))
        return folder / "a.mhd"

    yield Case("mhd data is a loop of links", linked, Refused())


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield damaged files, most of them damaged in the header."""
    bases = {
        "a.mha": mha_bytes(voxels()),
        "b.mha": mha_bytes(voxels(), packed=True),
        "c.nrrd": nrrd_bytes(voxels()),
        "d.nrrd": nrrd_bytes(voxels("f4"), "gzip"),
    }
    yield from damaged_files("itk", bases, HEADER_BYTES, seed, count)


def cases(seed: int, count: int) -> list[Case]:
    """Return every named case and `count` random ones."""
    mha = (*mha_size_cases(), *mha_geometry_cases(), *mha_form_cases(), *mha_container_cases())
    nrrd = (*nrrd_size_cases(), *nrrd_geometry_cases(), *nrrd_form_cases())
    return [*mha, *nrrd, *detached_cases(), *random_cases(seed, count)]
