"""Hostile PNG, JPEG and TIFF files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.faults.hostile import Answer, Case, Refused, Right, SecondReader, damaged_files, packed_zeros, written

SIZE = (72, 80)  # rows, columns: photographs have 64 pixels or more on a side


def pixels(channels: int = 3, dtype: str = "u1") -> np.ndarray:
    """Return a smooth picture with some noise. Shape (72, 80, channels), or (72, 80) with one channel."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    levels = [y + x, 2 * y, 255 - x, 128 + 0 * x][:channels]
    array = np.stack([np.clip(level + rng.integers(0, 9, SIZE), 0, 255) for level in levels], axis=-1).astype(dtype)
    return array[..., 0] if channels == 1 else array


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the file of a picture."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(array: np.ndarray) -> bytes:
    """Return a PNG file."""
    return encoded(Image.fromarray(array), "PNG")


def png_header(content: bytes, width: int, height: int) -> bytes:
    """Put another size into a PNG, with the right checksum."""
    head = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]


def _with_chunk(chunk: bytes) -> bytes:
    """Return a PNG file with a chunk behind its header."""
    content = png(pixels())
    return content[:33] + chunk + content[33:]


def _profile_bomb() -> bytes:
    """Return a PNG file with a color profile that grows to 300 MiB as it is unpacked."""
    packed = b"iCCPicc\0\0" + packed_zeros("zlib")
    return _with_chunk(struct.pack(">I", len(packed) - 4) + packed + struct.pack(">I", zlib.crc32(packed)))


def _right(array: np.ndarray) -> Right:
    return Right(np.swapaxes(array, 0, 1), None)


def _case(name: str, answer: Answer, content: bytes | Callable[[], bytes], suffix: str = ".png") -> Case:
    return Case(f"picture {name}", written(content, f"a{suffix}"), answer)


def kind_cases() -> Iterator[Case]:
    """Yield pictures of unusual kinds."""
    color, gray = pixels(), pixels(1)
    image = Image.fromarray(color)
    yield _case("color", _right(color), png(color))
    yield _case("gray", _right(gray), png(gray))
    yield _case("with alpha", _right(np.dstack([color, gray])), png(np.dstack([color, gray])))
    yield _case("16 bits", _right(gray.astype("u2") * 200), png(gray.astype("u2") * 200))
    yield _case("palette", Refused("indices into a palette"), encoded(image.convert("P"), "PNG"))
    two = image.convert("1")
    yield _case("black and white", _right(np.asarray(two)), encoded(image.convert("1"), "PNG"))
    yield _case("gray and alpha", _right(np.asarray(image.convert("LA"))), encoded(image.convert("LA"), "PNG"))
    yield _case("interlaced", SecondReader(), encoded(image, "PNG", interlace=1))
    for suffix in (".jpg", ".jpeg", ".JPG"):
        yield _case(f"jpeg {suffix}", SecondReader(), encoded(image, "JPEG"), suffix)
    yield _case("jpeg CMYK", SecondReader(), encoded(image.convert("CMYK"), "JPEG"), ".jpg")
    yield _case("jpeg progressive", SecondReader(), encoded(image, "JPEG", progressive=True), ".jpg")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield _case(f"tiff {compression}", SecondReader(), encoded(image, "TIFF", compression=compression), ".tif")
    deep = gray.astype("u2") * 200
    yield _case("tiff of 16 bits", _right(deep), encoded(Image.fromarray(deep), "TIFF"), ".tif")
    yield _case("tiff of floats", SecondReader(), encoded(Image.fromarray(gray.astype("f4")), "TIFF"), ".tif")
    nans = gray.astype("f4")
    nans[3, 3] = np.nan
    yield _case("tiff with NaN", Refused("must be finite"), encoded(Image.fromarray(nans), "TIFF"), ".tif")
    pages = encoded(image, "TIFF", save_all=True, append_images=[image] * 3)
    yield _case("tiff with pages", Refused("must hold one image"), pages, ".tif")
    moving = encoded(image, "PNG", save_all=True, append_images=[Image.fromarray(255 - color)])
    yield _case("moving png", Refused("must hold one image"), moving)
    yield _case("png as .jpg", SecondReader(), png(color), ".jpg")
    yield _case("jpeg as .png", SecondReader(), encoded(image, "JPEG"), ".png")


def size_cases() -> Iterator[Case]:
    """Yield pictures that lie about their size, or that hold more than they seem."""
    color = pixels()
    small = ((0, 0), (0, 72), (80, 0), (81, 72), (80, 73))
    for width, height in (*small, (13000, 13000), (50000, 50000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1)):
        yield _case(f"png of {width} x {height}", Refused(), png_header(png(color), width, height))
    bits = encoded(Image.new("1", (64, 64)), "PNG")
    yield _case("png of 13000 x 13000 bits", Refused(), png_header(bits, 13000, 13000))
    many = encoded(Image.new("1", (13000, 13000)), "PNG")
    yield _case("png bomb", Refused(), png_header(many, 60000, 60000))
    text = struct.pack(">I", 2**31 - 1) + b"tEXt" + b"x" * 10
    yield _case("png with an endless text", Refused(), _with_chunk(text))
    yield _case("png with a bomb as its profile", SecondReader(), _profile_bomb)


def other_cases() -> Iterator[Case]:
    """Yield files of other kinds, and pictures that are cut."""
    color = pixels()
    image = Image.fromarray(color)
    for name, content in (
        ("gif", encoded(image.convert("P"), "GIF")),
        ("bmp", encoded(image, "BMP")),
        ("webp", b"RIFF\0\0\0\0WEBPVP8 "),
        ("pdf", b"%PDF-1.4\n"),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("psd", b"8BPS\0\1" + bytes(30)),
        ("html", b"<html></html>"),
        ("svg", b"<svg xmlns='x'/>"),
        ("text", b"hello"),
    ):
        for suffix in (".png", ".jpg", ".tif"):
            yield _case(f"{name} as {suffix}", Refused(), content, suffix)
    yield _case("png without end", SecondReader(), png(color)[:-12])
    yield _case("png with noise behind", SecondReader(), png(color) + b"noise")
    tiff = encoded(image, "TIFF", compression="tiff_lzw")
    for suffix, content in ((".png", png(color)), (".jpg", encoded(image, "JPEG")), (".tif", tiff)):
        for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
            yield _case(f"{suffix} cut to {share}", Refused(), content[: int(share * len(content))], suffix)


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield damaged files."""
    image = Image.fromarray(pixels())
    bases = {
        "a.png": png(pixels()),
        "b.jpg": encoded(image, "JPEG"),
        "c.tif": encoded(image, "TIFF"),
        "d.tif": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "e.png": png(pixels(1, "u2")),
    }
    yield from damaged_files("picture", bases, 400, seed, count)


def cases(seed: int, count: int) -> list[Case]:
    """Return every named case and `count` random ones."""
    return [*kind_cases(), *size_cases(), *other_cases(), *random_cases(seed, count)]
