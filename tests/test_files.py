"""Files that are there whole or not at all, and what is said where they cannot be written."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
import torch

from common.files import remove_leftovers, require_writable, write_atomically, write_text_atomically

FULL = OSError(errno.ENOSPC, "No space left on device")


def refuse(error):
    def call(*_args, **_kwargs):
        raise error

    return call


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "model.pt"
    write_atomically({"weight": torch.ones(1)}, path)
    return path


def assert_untouched(path):
    assert torch.load(path, weights_only=True)["weight"].item() == 1.0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


class TestRefusals:
    @pytest.mark.parametrize("room", [0, 100, 100_000], ids=["header", "small", "tensor"])
    def test_a_full_disk_while_writing(self, path, monkeypatch, room):
        """torch.save covers the error of the disk by one of its own, with a position in the file."""

        class FullDisk(io.BufferedWriter):
            left = room

            def write(self, data):
                self.left -= len(data)
                if self.left < 0:
                    raise FULL
                return super().write(data)

        monkeypatch.setattr(Path, "open", lambda self, mode: FullDisk(io.FileIO(self, mode)))
        with pytest.raises(OSError, match=r"model\.pt cannot be written: No space left on device\.") as caught:
            write_atomically({"weight": torch.zeros(100_000)}, path)
        assert caught.value.errno == errno.ENOSPC
        monkeypatch.undo()
        assert_untouched(path)

    @pytest.mark.parametrize("call", ["fsync", "replace", "open", "mkdir"])
    @pytest.mark.parametrize(
        "error",
        [FULL, OSError(errno.EROFS, "Read-only file system"), PermissionError(errno.EACCES, "Permission denied")],
    )
    def test_a_refusal_in_any_step(self, path, monkeypatch, call, error):
        monkeypatch.setattr(os if call == "fsync" else Path, call, refuse(error))
        with pytest.raises(type(error), match=rf"model\.pt cannot be written: {error.strerror}.*another folder"):
            write_atomically({"weight": torch.zeros(1)}, path)
        monkeypatch.undo()
        assert_untouched(path)

    def test_a_file_in_the_place_of_the_folder(self, path):
        with pytest.raises(OSError, match=r"model\.pt/a\.txt cannot be written"):
            write_text_atomically("a", path / "a.txt")
        assert_untouched(path)

    def test_other_errors_are_left_alone(self, path):
        with pytest.raises((AttributeError, TypeError)):
            write_atomically({"weight": (value for value in ())}, path)  # a generator cannot be saved
        assert_untouched(path)


class TestFolders:
    def test_a_folder_that_cannot_be_written_is_refused(self, path, tmp_path, monkeypatch):
        require_writable(tmp_path / "new" / "folder")
        assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "folder"]
        with pytest.raises(OSError, match=r"model\.pt cannot be written"):
            require_writable(path)
        monkeypatch.setattr(os, "open", refuse(OSError(errno.EROFS, "Read-only file system")))
        with pytest.raises(OSError, match="cannot be written: Read-only file system"):
            require_writable(tmp_path)

    def test_a_folder_is_brought_to_the_disk_where_the_disk_can(self, path, monkeypatch):
        synced = []
        real = os.fsync

        def sync(descriptor):
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            if synced[-1].is_dir():
                raise OSError(errno.EINVAL, "Invalid argument")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", sync)
        write_text_atomically("b", path)
        assert synced[-1] == path.parent
        assert path.read_text() == "b"

    def test_leftovers_of_killed_processes_are_removed_and_nothing_else(self, path):
        for name in (".model.pt.17.tmp", ".model.pt.4194304.tmp", ".other.pt.17.tmp", "model.pt.tmp", ".model.pt"):
            (path.parent / name).touch()
        assert len(remove_leftovers(path, path.parent / "missing" / "model.pt")) == 2
        assert {entry.name for entry in path.parent.iterdir()} == {
            "model.pt", ".other.pt.17.tmp", "model.pt.tmp", ".model.pt",
        }  # fmt: skip
