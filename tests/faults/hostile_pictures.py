"""Hostile PNG, JPEG and TIFF files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.faults.hostile import Case, Refused, Right, SecondReader, damaged_files
from tests.faults.hostile_nifti import written

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


def named_cases() -> Iterator[Case]:
    """Yield pictures of unusual kinds, and such that lie about their size."""
    color, gray = pixels(), pixels(1)

    def right(array: np.ndarray) -> Right:
        return Right(np.swapaxes(array, 0, 1), None)

    def case(name: str, answer: Right | Refused | SecondReader, content: bytes, suffix: str = ".png") -> Case:
        return Case(f"picture {name}", written(content, f"a{suffix}"), answer)

    image = Image.fromarray(color)
    yield case("color", right(color), png(color))
    yield case("gray", right(gray), png(gray))
    yield case("with alpha", right(np.dstack([color, gray])), png(np.dstack([color, gray])))
    yield case("16 bits", right(gray.astype("u2") * 200), png(gray.astype("u2") * 200))
    yield case("palette", Refused("indices into a palette"), encoded(image.convert("P"), "PNG"))
    two = image.convert("1")
    yield case("black and white", right(np.asarray(two)), encoded(image.convert("1"), "PNG"))
    yield case("gray and alpha", right(np.asarray(image.convert("LA"))), encoded(image.convert("LA"), "PNG"))
    yield case("interlaced", SecondReader(), encoded(image, "PNG", interlace=1))
    for suffix in (".jpg", ".jpeg", ".JPG"):
        yield case(f"jpeg {suffix}", SecondReader(), encoded(image, "JPEG"), suffix)
    yield case("jpeg CMYK", SecondReader(), encoded(image.convert("CMYK"), "JPEG"), ".jpg")
    yield case("jpeg progressive", SecondReader(), encoded(image, "JPEG", progressive=True), ".jpg")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield case(f"tiff {compression}", SecondReader(), encoded(image, "TIFF", compression=compression), ".tif")
    yield case("tiff of 16 bits", right(gray.astype("u2") * 200), encoded(Image.fromarray(gray.astype("u2") * 200), "TIFF"), ".tif")  # fmt: skip
    yield case("tiff of floats", SecondReader(), encoded(Image.fromarray(gray.astype("f4")), "TIFF"), ".tif")
    nans = gray.astype("f4")
    nans[3, 3] = np.nan
    yield case("tiff with NaN", Refused("must be finite"), encoded(Image.fromarray(nans), "TIFF"), ".tif")
    pages = encoded(image, "TIFF", save_all=True, append_images=[image] * 3)
    yield case("tiff with pages", Refused("must hold one image"), pages, ".tif")
    yield case("moving png", Refused("must hold one image"), encoded(image, "PNG", save_all=True, append_images=[Image.fromarray(255 - color)]))  # fmt: skip
    for width, height in ((0, 0), (0, 72), (80, 0), (81, 72), (80, 73), (13000, 13000), (50000, 50000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1)):  # fmt: skip
        yield case(f"png of {width} x {height}", Refused(), png_header(png(color), width, height))
    bits = encoded(Image.new("1", (13000, 13000)), "PNG")
    yield case("png of 13000 x 13000 bits", Refused(), png_header(encoded(Image.new("1", (64, 64)), "PNG"), 13000, 13000))  # fmt: skip
    yield case("png bomb", Refused(), png_header(bits, 60000, 60000))
    for name, content in (("gif", encoded(image.convert("P"), "GIF")), ("bmp", encoded(image, "BMP")),
                          ("webp", b"RIFF\0\0\0\0WEBPVP8 "), ("pdf", b"%PDF-1.4\n"), ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
                          ("psd", b"8BPS\0\1" + bytes(30)), ("html", b"<html></html>"), ("svg", b"<svg xmlns='x'/>"), ("text", b"hello")):  # fmt: skip
        for suffix in (".png", ".jpg", ".tif"):
            yield case(f"{name} as {suffix}", Refused(), content, suffix)
    yield case("png as .jpg", SecondReader(), png(color), ".jpg")
    yield case("jpeg as .png", SecondReader(), encoded(image, "JPEG"), ".png")
    yield case("png without end", SecondReader(), png(color)[:-12])
    yield case("png with noise behind", SecondReader(), png(color) + b"noise")
    bomb = b"tEXt" + b"x" * 10
    text = struct.pack(">I", 2**31 - 1) + bomb
    yield case("png with an endless text", Refused(), png(color)[:33] + text + png(color)[33:])
    packed = b"iCCPicc\0\0" + zlib.compress(bytes(300 * 2**20), 9)
    chunk = struct.pack(">I", len(packed) - 4) + packed + struct.pack(">I", zlib.crc32(packed))
    yield case("png with a bomb as its profile", SecondReader(), png(color)[:33] + chunk + png(color)[33:])
    for suffix, content in ((".png", png(color)), (".jpg", encoded(image, "JPEG")), (".tif", encoded(image, "TIFF", compression="tiff_lzw"))):  # fmt: skip
        for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
            yield case(f"{suffix} cut to {share}", Refused(), content[: int(share * len(content))], suffix)


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
    return [*named_cases(), *random_cases(seed, count)]
