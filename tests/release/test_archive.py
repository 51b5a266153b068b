"""Archives: what is in them, that their bytes are always the same, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import zipfile

import pytest
import torch
from monai.bundle import scripts as monai_scripts

from common.release import archive, package
from common.release.vendoring import locate_expression, rename_package, vendor_config, vendor_document
from tests.release.conftest import BUNDLES, copy_bundle, release


def read(path, name):
    with zipfile.ZipFile(path) as stream:
        return stream.read(name).decode()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    package(output_dir=str(folder))
    return folder


class TestContent:
    @pytest.mark.parametrize("name", sorted(BUNDLES))
    def test_one_folder_with_code_licences_and_no_tests(self, archives, name):
        (path,) = archives.glob(f"{name}_v*.zip")
        with zipfile.ZipFile(path) as stream:
            names = stream.namelist()
            texts = {entry: stream.read(entry).decode() for entry in names}
        assert {entry.split("/")[0] for entry in names} == {name}
        inner = {entry.removeprefix(f"{name}/") for entry in names}
        assert inner >= {"LICENSE", "configs/metadata.json", "docs/README.md", "docs/data_license.txt"}
        assert {entry.split("/")[0] for entry in inner} == {"LICENSE", "configs", "docs", f"common_{name}"}
        assert f"common_{name}/bundle.py" in inner
        assert not [entry for entry in inner if "test" in entry or "/release/" in entry or "/tools/" in entry]
        for entry, text in texts.items():
            assert f"bundles/{name}/" not in text, entry
            assert "From the root of the repository" not in text, entry
            for line in text.splitlines():
                assert "python -m common." not in line.replace("python -m common.tools", ""), f"{entry}: {line}"
        for entry in inner:
            if entry.startswith("configs/") and entry.endswith(".json"):
                text = texts[f"{name}/{entry}"]
                assert '"common.' not in text, entry
                assert "find_bundle_root" not in text, entry
        assert "This archive holds no weights" in texts[f"{name}/docs/README.md"]

    def test_code_imports_nothing_that_is_left_out(self, archives):
        with zipfile.ZipFile(next(archives.glob("maco_v*.zip"))) as stream:
            for entry in stream.namelist():
                if entry.endswith(".py"):
                    text = stream.read(entry).decode()
                    assert not re.search(r"from \.+(tools|release)\b|from \.+ import (tools|release)\b", text), entry

    def test_the_same_bytes_every_time(self, archives, tmp_path):
        again = release("grata", tmp_path)
        first = archives / again.name
        assert first.read_bytes() == again.read_bytes()
        with zipfile.ZipFile(again) as stream:
            assert {entry.date_time for entry in stream.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert {entry.external_attr >> 16 for entry in stream.infolist()} == {0o100644}
            assert stream.namelist() == sorted(stream.namelist())

    def test_weights_go_along_and_are_named(self, tmp_path):
        bundle = copy_bundle("maco", tmp_path / "bundles")
        (bundle / "models" / "finetuned").mkdir(parents=True)
        for name in ("model.pt", "finetuned/model.pt", "model_last.pt"):
            torch.save({"weight": torch.ones(2)}, bundle / "models" / name)
        torch.save({"epoch": 3}, bundle / "models" / "training_state.pt")
        with pytest.raises(ValueError, match=r"says that no weights are shipped: state their licence there, or leave"):
            release("maco", tmp_path, bundles_dir=bundle.parent)
        package(output_dir=str(tmp_path / "without"), bundles_dir=str(bundle.parent), with_weights=False)
        with zipfile.ZipFile(next((tmp_path / "without").glob("*.zip"))) as stream:
            assert not [name for name in stream.namelist() if "/models/" in name]
        (bundle / "docs" / "data_license.txt").write_text("The weights are under Apache-2.0.")
        path = release("maco", tmp_path, bundles_dir=bundle.parent)
        with zipfile.ZipFile(path) as stream:
            weights = [name for name in stream.namelist() if "/models/" in name]
        assert weights == ["maco/models/finetuned/model.pt", "maco/models/model.pt"]
        page = read(path, "maco/docs/README.md")
        assert "Weights in this archive: `models/finetuned/model.pt`, `models/model.pt`" in page


class TestChecksums:
    def test_sha256sum_finds_a_tampered_archive(self, archives, tmp_path):
        for path in archives.glob("*"):
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        command = ["sha256sum", "--check", "--ignore-missing", "SHA256SUMS"]
        assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
        victim = next(tmp_path.glob("grata_v*.zip"))
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.returncode != 0
        assert f"{victim.name}: FAILED" in done.stdout

    def test_the_command_stands_in_the_page_of_every_archive(self, archives):
        for path in archives.glob("*.zip"):
            page = read(path, f"{path.name.split('_v')[0]}/docs/README.md")
            assert "sha256sum --check --ignore-missing SHA256SUMS" in page


class TestModelInfo:
    def test_monai_finds_versions_and_archives_of_a_github_release(self, tmp_path, monkeypatch):
        """As `download --source github --repo owner/name/tag` does, without a network."""
        monkeypatch.setattr(archive, "REPOSITORY", tmp_path / "repository")
        package(bundle="maco", output_dir=str(tmp_path / "dist"), repo="owner/name/tag")
        recorded = (tmp_path / "repository" / "models" / "model_info.json").read_text()
        path = next((tmp_path / "dist").glob("*.zip"))
        entry = json.loads(recorded)[path.stem]
        assert entry["source"] == f"https://github.com/owner/name/releases/download/tag/{path.name}"
        assert entry["checksum"] == hashlib.sha1(path.read_bytes()).hexdigest()

        class Requests:
            @staticmethod
            def get(url):
                assert url == "https://raw.githubusercontent.com/owner/name/tag/models/model_info.json"
                return type("Response", (), {"text": recorded, "raise_for_status": lambda self: None})()

        fetched = []
        monkeypatch.setattr(monai_scripts, "has_requests", True)
        monkeypatch.setattr(monai_scripts, "requests", Requests)
        monkeypatch.setattr(monai_scripts, "download_url", lambda url, **options: fetched.append(url))
        monkeypatch.setattr(monai_scripts, "extractall", lambda **options: None)
        monai_scripts.download(name="maco", source="github", repo="owner/name/tag", bundle_dir=tmp_path)
        assert fetched == [entry["source"]]

    def test_a_released_version_keeps_its_content(self, tmp_path, monkeypatch):
        monkeypatch.setattr(archive, "REPOSITORY", tmp_path)
        bundle = copy_bundle("maco", tmp_path / "bundles")
        options = {"output_dir": str(tmp_path / "dist"), "repo": "owner/name/tag", "bundles_dir": str(bundle.parent)}
        package(**options)
        package(**options)
        (bundle / "docs" / "README.md").write_text("# MaCo\nother words\n")
        with pytest.raises(ValueError, match=r"maco_v0\.\d\.\d was released with other content"):
            package(**options)

    def test_repo_has_three_parts(self, tmp_path):
        with pytest.raises(ValueError, match="repo must have the form owner/name/tag; got 'owner/name'"):
            package(output_dir=str(tmp_path), repo="owner/name")


class TestRefusals:
    def test_broken_json(self, tmp_path):
        bundle = copy_bundle("maco", tmp_path / "bundles")
        (bundle / "configs" / "train.json").write_text('{"a": 1,}')
        with pytest.raises(ValueError, match=r"train\.json is no valid JSON: .*line 1 column"):
            release("maco", tmp_path, bundles_dir=bundle.parent)

    def test_pickled_code_in_weights(self, tmp_path):
        bundle = copy_bundle("maco", tmp_path / "bundles")
        (bundle / "models").mkdir()
        (bundle / "docs" / "data_license.txt").write_text("The weights are under Apache-2.0.")
        torch.save(torch.nn.Conv2d(1, 1, 1), bundle / "models" / "model.pt")
        with pytest.raises(ValueError, match=r"model\.pt .* cannot be read: .* holds more than weights and numbers"):
            release("maco", tmp_path, bundles_dir=bundle.parent)
        assert not list(tmp_path.glob("*.zip"))
        assert not list(tmp_path.glob("*.tmp"))

    def test_weights_in_a_wrapper(self, tmp_path):
        bundle = copy_bundle("maco", tmp_path / "bundles")
        (bundle / "models").mkdir()
        (bundle / "docs" / "data_license.txt").write_text("The weights are under Apache-2.0.")
        torch.save({"state_dict": {"weight": torch.ones(1)}}, bundle / "models" / "model.pt")
        with pytest.raises(ValueError, match="must be a bare state dict"):
            release("maco", tmp_path, bundles_dir=bundle.parent)

    def test_missing_licence_of_the_data(self, tmp_path):
        bundle = copy_bundle("maco", tmp_path / "bundles")
        (bundle / "docs" / "data_license.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"data_license\.txt does not exist; a bundle needs it"):
            release("maco", tmp_path, bundles_dir=bundle.parent)

    def test_unknown_bundle(self, tmp_path):
        with pytest.raises(ValueError, match="There is no bundle 'macro'; there are grata, maco"):
            package(bundle="macro", output_dir=str(tmp_path))

    def test_damaged_archive_is_no_zip_for_monai(self, archives, tmp_path):
        path = next(archives.glob("grata_v*.zip"))
        (tmp_path / "grata.zip").write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(zipfile.BadZipFile):
            monai_scripts.extractall(tmp_path / "grata.zip", tmp_path)


class TestVendoring:
    def test_only_the_package_is_renamed(self):
        text = "common.networks, python -m common.data, python -m common.tools, uncommon.x, in common. And a.common.b"
        expected = text.replace("common.networks", "common_x.networks", 1).replace("-m common.data", "-m common_x.data")
        assert rename_package(text, "x") == expected

    def test_components_of_the_package_require_its_code(self):
        config = {
            "imports": ["$import torch", "$from common.bundle import find_bundle_root"],
            "bundle_root": "$find_bundle_root('x')",
            "a": {"_target_": "common.networks.A", "_requires_": "@b", "inner": [{"_target_": "common.data.B"}]},
            "b": {"_target_": "Compose"},
            "a#_target_": "common.networks.C",
            "initialize": ["$print(1)"],
        }
        vendored = vendor_config(config, "x")
        assert vendored["a"]["_target_"] == "common_x.networks.A"
        assert vendored["a"]["_requires_"] == ["@code", "@b"]
        assert vendored["a"]["inner"] == [{"_target_": "common_x.data.B", "_requires_": ["@code"]}]
        assert vendored["b"] == {"_target_": "Compose"}
        assert vendored["a#_requires_"] == ["@code"]
        assert vendored["initialize"] == ["@code", "$print(1)"]
        assert vendored["bundle_root"] == locate_expression("common_x")
        assert vendored["imports"][0] == "$import torch"
        assert not [line for line in vendored["imports"] if "common" in line]

    def test_other_imports_are_refused(self):
        with pytest.raises(ValueError, match="would run before the released bundle finds its code"):
            vendor_config({"imports": ["$from common.data import x"]}, "x")

    def test_commands_run_in_the_folder_of_the_bundle(self):
        page = (
            "From the root of the repository, after `make install`; put `.venv/bin` first on your `PATH` (`export\n"
            "PATH=$PWD/.venv/bin:$PATH`). More.\npython -m common.data --x bundles/maco/data"
        )
        assert vendor_document(page, "maco") == (
            'From the folder of this bundle, with Python packages as in the section "This archive". More.\n'
            "python -m common_maco.data --x data"
        )
