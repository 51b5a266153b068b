"""Archives from elsewhere: what may be unpacked, and what its configurations run."""

import io
import json
import logging
import stat
import sys
import zipfile

import pytest

from common.release.__main__ import main
from common.release.archive import write_archive
from common.release.bundle_folder import REPOSITORY
from common.release.unpacking import check_entries, list_code, unpack

CONFIG = json.dumps(
    {"a": "$print(1)", "b": {"_target_": "os.system", "command": "x"}, "c": ["$2", "text"], "_target_": 3}
)


def write(path, entries):
    with zipfile.ZipFile(path, "w") as stream:
        for entry, content in entries:
            stream.writestr(entry, content)
    return path


def info(name, mode=stat.S_IFREG | 0o644, **attributes):
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    entry.external_attr = mode << 16
    for key, value in attributes.items():
        setattr(entry, key, value)
    return entry


@pytest.fixture
def sound(tmp_path):
    return write(tmp_path / "a.zip", [("b/configs/train.json", CONFIG), ("b/LICENSE", "text")])


def test_a_sound_archive_is_unpacked_and_its_code_named(sound, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        unpack(str(sound), str(tmp_path / "out"))
    assert (tmp_path / "out" / "b" / "LICENSE").read_text() == "text"
    assert "no checksum is known" in caplog.text
    assert 'b/configs/train.json  a: "$print(1)"' in caplog.text
    assert 'b/configs/train.json  b#_target_: "os.system"' in caplog.text
    with pytest.raises(FileExistsError, match="is there already"):
        unpack(str(sound), str(tmp_path / "out"))


def test_code_of_a_configuration():
    assert list(list_code(json.loads(CONFIG))) == ['a: "$print(1)"', 'b#_target_: "os.system"', 'c#0: "$2"']


def test_our_own_archives_pass(tmp_path):
    archive = write_archive(REPOSITORY / "bundles" / "vptta", tmp_path / "vptta.zip", with_weights=False)
    assert "vptta/configs/inference.json" in check_entries(archive)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (info("../evil.py"), "leaves the folder"),
        (info("b/../../evil.py"), "leaves the folder"),
        (info("b\\..\\evil.py"), "leaves the folder"),
        (info("/etc/evil"), "absolute path"),
        (info("C:/evil"), "absolute path"),
        (info("C:\\evil"), "absolute path"),
        (info("\\\\server\\evil"), "absolute path"),
        (info("b/link", stat.S_IFLNK | 0o777), "is a link or a device"),
        (info("b/pipe", stat.S_IFIFO | 0o644), "is a link or a device"),
        (info("b/device", stat.S_IFCHR | 0o644), "is a link or a device"),
        (info("b/root", stat.S_IFREG | 0o4755), "rights of another user"),
        (info("b/\x1b[2J"), "no printable name"),
        (info("b/new\nline"), "no printable name"),
    ],
)
def test_entries_that_could_do_harm(tmp_path, entry, message):
    path = write(tmp_path / "a.zip", [("b/x", "x"), (entry, "evil")])
    with pytest.raises(ValueError, match=message):
        unpack(str(path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_entries_that_would_be_one_file(tmp_path):
    with pytest.raises(ValueError, match="would be one file"):
        check_entries(write(tmp_path / "a.zip", [("b/Train.json", "1"), ("b/train.json", "2")]))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = write(tmp_path / "b.zip", [("b/x", "1"), ("b/x", "2")])
    with pytest.raises(ValueError, match="an entry twice"):
        check_entries(twice)
    with pytest.raises(ValueError, match="would be one file"):
        check_entries(write(tmp_path / "c.zip", [("b/x", "1"), ("b/x/", "")]))


def test_bombs(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("b/zeros", bytes(50 * 2**20))
    with pytest.raises(ValueError, match="would grow from"):
        check_entries(path)
    many = write(tmp_path / "b.zip", [(f"b/{i}", "") for i in range(10_001)])
    with pytest.raises(ValueError, match="must have 1 to 10,000 entries; found 10,001"):
        check_entries(many)


def test_what_is_no_archive(tmp_path, sound):
    content = sound.read_bytes()
    for name, damaged in (("cut", content[:-30]), ("empty", b""), ("text", b"hello"), ("nothing", bytes(100))):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is no ZIP file that can be read"):
            check_entries(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_entries(tmp_path / "nowhere.zip")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    (tmp_path / "none.zip").write_bytes(empty.getvalue())
    with pytest.raises(ValueError, match="found 0"):
        check_entries(tmp_path / "none.zip")


def test_a_flipped_bit_is_refused(tmp_path, sound):
    sound.write_bytes(sound.read_bytes().replace(b"text", b"tent", 1))
    with pytest.raises(ValueError, match=r"wrong checksum|no ZIP file"):
        unpack(str(sound), str(tmp_path / "out"))


def test_checksums(tmp_path, sound, monkeypatch):
    with pytest.raises(ValueError, match=r"must have the SHA-256 00; found [0-9a-f]{64}; download it"):
        unpack(str(sound), str(tmp_path / "out"), sha256="00")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  a.zip\n")
    monkeypatch.setattr(sys, "argv", ["x", "unpack", "--archive", str(sound), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="must have the SHA-256 0000"):
        main()
    assert not (tmp_path / "out").exists()
