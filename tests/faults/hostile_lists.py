"""Hostile `dataset.json` files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

GOOD: dict[str, Any] = {
    "name": "a",
    "labels": {"0": "background", "1": "liver"},
    "training": [{"image": f"imagesTr/{i}.nii.gz", "label": f"labelsTr/{i}.nii.gz"} for i in range(4)],
    "test": ["imagesTs/9.nii.gz"],
}
VALUES: list[Any] = [
    *(None, True, 0, -1, 1e308, float("nan"), float("inf"), 2**70),
    *("", " ", ".", "..", "/", "/etc/passwd", "../../x.nii.gz", "~", "~nobody/x.nii", "~root/x.nii"),
    *("a\0b.nii", "\ud800.nii", "a\nb.nii.gz", "x" * 5000, "a" * 300 + ".nii.gz", "//x//y.nii", "C:\\x.nii"),
    *("$HOME/x.nii", "*.nii.gz", "http://x/y.nii", "imagesTr/0.nii.gz"),
    *([], [[]], {}, {"image": 3}, [None], ["a.nii", 3], ["a.nii", "a.nii"], [["a.nii"]]),
]


def texts() -> Iterator[tuple[str, bytes]]:
    """Yield contents that are no data set, by name."""
    for value in VALUES:
        shown = repr(value)[:40]
        yield f"whole {shown}", _dump(value)
        for section in ("training", "validation", "test", "unlabeled", "labels", "name"):
            yield f"{section} {shown}", _dump({**GOOD, section: value})
            yield f"{section} of {shown}", _dump({**GOOD, section: [value]})
        for key in ("image", "label", "case", "entry"):
            entry = {**GOOD["training"][0], key: value}
            yield f"a {key} of {shown}", _dump({**GOOD, "training": [*GOOD["training"], entry]})
    good = _dump(GOOD)
    yield "twice", _dump({**GOOD, "training": GOOD["training"] * 2})
    entries = [{"image": f"{i}.nii", "label": f"l{i}.nii"} for i in range(3_000)]
    yield "three thousand entries", _dump({"training": entries})
    yield "three thousand times the same", _dump({"training": [{"image": "0.nii", "label": "l.nii"}] * 3_000})
    yield "lists in lists", b"[" * 100_000
    yield "objects in objects", b'{"training":' * 100_000
    yield "digits without end", b'{"training": [' + b"9" * 100_000 + b"]}"
    yield "a section twice", good[:-1] + b', "training": []}'
    yield "two texts", good + good
    yield "a byte order mark", b"\xef\xbb\xbf" + good
    yield "UTF-16", good.decode().encode("utf-16")
    yield "invalid UTF-8", good.replace(b"liver", b"\xff\xfe")
    yield "zeros", bytes(1000)
    yield "nothing", b""


def damaged_texts(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged copies of a sound file."""
    good = json.dumps(GOOD, indent=1).encode()
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        content = bytearray(good)
        for _ in range(int(rng.integers(1, 5))):
            at, kind = int(rng.integers(len(content))), int(rng.integers(4))
            if kind == 0:
                content[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                content[at : at + int(rng.integers(1, 30))] = b""
            elif kind == 2:
                content[at:at] = content[int(rng.integers(len(content))) :][: int(rng.integers(1, 40))]
            else:
                content[at] = b'{}[],:"\\ 0n'[int(rng.integers(11))]
            if not content:
                break
        yield f"damaged {seed}-{index}", bytes(content)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()
