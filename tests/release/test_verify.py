"""`make verify`: green for what is there, and every fault has its message."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from common.release import documents, verify
from common.release.bundle_folder import NAME, read_json
from common.release.configurations import check_properties, check_references
from common.release.documents import (
    check_files,
    check_licences,
    check_metadata,
    check_paths,
    check_shipped_weights,
    check_versions,
)
from common.release.findings import NotPossibleError, run_check
from common.release.model_info import own_digest
from common.release.networks import check_network, check_onnx, check_torchscript, find_network
from common.release.packages import check_packages, imported_packages
from common.release.verification import CHECKS
from tests.release.conftest import BUNDLES, copy_bundle

# Checks that take seconds at the published sizes of the networks.
HEAVY = {"network in and out", "TorchScript", "ONNX"}
# A network of a few weights, so that an export takes a second.
TINY = {"_target_": "BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 4, "features": [4] * 6}


@pytest.fixture
def bundle(tmp_path):
    return copy_bundle("maco", tmp_path)


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def metadata(bundle):
    return bundle / "configs" / "metadata.json"


class TestGreen:
    @pytest.mark.parametrize("name", sorted(BUNDLES))
    @pytest.mark.parametrize("check", [name for name in CHECKS if name not in HEAVY])
    def test_every_bundle(self, name, check):
        finding = run_check(BUNDLES[name], check, CHECKS[check])
        if finding.outcome == "skipped":
            pytest.skip(finding.message)
        assert finding.outcome == "ok", finding

    @pytest.mark.slow
    @pytest.mark.parametrize("name", sorted(BUNDLES))
    @pytest.mark.parametrize("check", sorted(HEAVY))
    def test_network_of_every_bundle(self, name, check):
        finding = run_check(BUNDLES[name], check, CHECKS[check])
        if finding.outcome == "skipped":
            pytest.skip(finding.message)
        assert finding.outcome == "ok", finding

    def test_the_command_prints_a_line_per_check_and_the_time(self, bundle, caplog):
        change(bundle / "configs" / "inference.json", network_def=TINY)
        with caplog.at_level("INFO"):
            verify(bundle="maco", bundles_dir=str(bundle.parent))
        lines = [line for line in caplog.messages if "maco: " in line]
        assert len(lines) == len(CHECKS) + 1
        assert "maco: TorchScript: largest difference 0.0e+00" in caplog.text
        assert f"0 of {len(CHECKS)} checks failed" in caplog.text


class TestMetadata:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"version": "0.1"}, "version: '0.1' does not match"),
            ({"version": "0.10.0"}, "version: '0.10.0' does not match"),
            ({"authors": ""}, "authors: '' should be non-empty|authors: '' is too short"),
            ({"schema": "https://example.org/schema.json"}, "schema: .* was expected"),
            ({"required_packages_version": ["nibabel"]}, r"required_packages_version: \['nibabel'\] is not of type"),
            ({"licence": "Apache"}, "the whole: 'licence' does not match any of the regexes"),
            ({"network_data_format": {"inputs": {}}}, "'outputs' is a required property"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_rules(self, bundle, values, message):
        pytest.importorskip("jsonschema", reason="of the extra `dev`")
        change(metadata(bundle), **values)
        with pytest.raises(ValueError, match=rf"breaks \d rules: .*({message})"):
            check_metadata(bundle)

    def test_shape_of_a_tensor(self, bundle):
        pytest.importorskip("jsonschema", reason="of the extra `dev`")
        content = json.loads(metadata(bundle).read_text())
        content["network_data_format"]["inputs"]["image"]["num_channels"] = "1"
        metadata(bundle).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"network_data_format\.inputs\.image\.num_channels: '1' is not of type"):
            check_metadata(bundle)

    def test_without_jsonschema_it_is_skipped(self, bundle, monkeypatch):
        monkeypatch.setattr(documents, "find_spec", lambda name: None)
        with pytest.raises(NotPossibleError, match="needs jsonschema, of the extra `dev`"):
            check_metadata(bundle)

    def test_broken_json(self, bundle):
        metadata(bundle).write_text("{")
        with pytest.raises(ValueError, match=r"metadata\.json is no valid JSON: .*line 1"):
            check_metadata(bundle)

    @pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[1]"])
    def test_json_that_hides_something(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=r"the key 'a' stands twice|must hold an object in braces; found a list"):
            read_json(tmp_path / "a.json")


class TestVersion:
    def test_changelog_names_the_version(self, bundle):
        change(metadata(bundle), version="0.9.0")
        with pytest.raises(ValueError, match=r"the changelog must say what is new in 0\.9\.0"):
            check_versions(bundle)

    def test_version_is_the_newest_of_the_changelog(self, bundle):
        content = json.loads(metadata(bundle).read_text())
        change(metadata(bundle), changelog={**content["changelog"], "0.9.0": "more"})
        with pytest.raises(ValueError, match=r"but the changelog goes up to 0\.9\.0"):
            check_versions(bundle)

    def test_released_files_do_not_change_under_the_same_version(self, bundle, tmp_path, monkeypatch):
        monkeypatch.setattr(documents, "REPOSITORY", tmp_path)
        version = json.loads(metadata(bundle).read_text())["version"]
        (tmp_path / "models").mkdir()
        record = {f"maco_v{version}": {"content_sha256": own_digest(bundle)}}
        (tmp_path / "models" / "model_info.json").write_text(json.dumps(record))
        assert check_versions(bundle) == f"{version}, as released"
        (bundle / "models").mkdir()
        (bundle / "models" / "model.pt").write_bytes(b"weights are no text of the bundle")
        assert check_versions(bundle) == f"{version}, as released"
        change(bundle / "configs" / "train.json", seed=1)
        with pytest.raises(ValueError, match="its files have changed since: raise the version"):
            check_versions(bundle)


class TestFiles:
    @pytest.mark.parametrize("name", ["LICENSE", "configs/inference.json", "docs/data_license.txt"])
    def test_necessary_files(self, bundle, name):
        (bundle / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"maco lacks {name}"):
            check_files(bundle)

    @pytest.mark.parametrize("name", ["Maco", "a_vb", "a__b", "1a", "a-b", "test_vptta"])
    def test_names_that_monai_misreads(self, name):
        assert not NAME.fullmatch(name)

    @pytest.mark.parametrize("name", ["maco", "volume_fusion", "a1_b2", "vptta"])
    def test_names(self, name):
        assert NAME.fullmatch(name)

    @pytest.mark.parametrize(
        "line", ['"dataset_dir": "/home/me/data",', "put it in /mnt/disk/x", r"C:\Users\me", "see (/tmp/x)"]
    )
    def test_absolute_paths(self, bundle, line):
        with (bundle / "docs" / "README.md").open("a") as stream:
            stream.write(f"{line}\n")
        with pytest.raises(ValueError, match=r"Absolute paths: .*README\.md, line \d+"):
            check_paths(bundle)

    def test_licence(self, bundle):
        (bundle / "LICENSE").write_text("all rights reserved")
        with pytest.raises(ValueError, match="must be the Apache License"):
            check_licences(bundle)

    def test_a_bundle_without_weights_says_so(self, bundle):
        (bundle / "docs" / "data_license.txt").write_text("Weights are under Apache-2.0.")
        with pytest.raises(ValueError, match="must say that the bundle ships no weights"):
            check_licences(bundle)

    def test_weights_with_code(self, bundle):
        (bundle / "models").mkdir()
        torch.save({"network": torch.nn.Linear(1, 1)}, bundle / "models" / "model.pt")
        with pytest.raises(ValueError, match="holds more than weights and numbers"):
            check_shipped_weights(bundle)

    def test_weights_that_are_no_torchscript(self, bundle):
        (bundle / "models").mkdir()
        (bundle / "models" / "model.ts").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"model\.ts is no TorchScript file"):
            check_shipped_weights(bundle)


class TestConfigurations:
    def test_reference_to_nothing(self, bundle):
        change(bundle / "configs" / "inference.json", network="$@network_dev.to(@device)")
        with pytest.raises(ValueError, match=r"inference\.json: network refers to @network_dev, which is not defined"):
            check_references(bundle)

    def test_class_that_is_not_there(self, bundle):
        change(bundle / "configs" / "inference.json", extra={"_target_": "common.networks.PCTNets"})
        with pytest.raises(ValueError, match=r"extra names common\.networks\.PCTNets, which does not exist"):
            check_references(bundle)

    def test_missing_property(self, bundle):
        path = bundle / "configs" / "inference.json"
        content = json.loads(path.read_text())
        del content["evaluator"]
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"inference\.json lacks evaluator"):
            check_properties(bundle)

    def test_optional_property_under_another_name(self, bundle):
        path = bundle / "configs" / "inference.json"
        content = json.loads(path.read_text())
        content["post"] = content.pop("postprocessing")
        content["evaluator"]["postprocessing"] = "@post"
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="evaluator::postprocessing is @post, but MONAI looks for postprocessing"):
            check_properties(bundle)


class TestPackages:
    def test_a_package_that_is_not_listed(self, bundle):
        packages = json.loads(metadata(bundle).read_text())["required_packages_version"]
        del packages["nibabel"], packages["scikit-image"]
        change(metadata(bundle), required_packages_version=packages)
        with pytest.raises(
            ValueError, match=r"lacks nibabel \(imported by common/.*\.py\); scikit-image \(imported by"
        ):
            check_packages(bundle)

    def test_what_the_code_imports(self, bundle):
        imported = imported_packages(bundle)
        assert set(imported) >= {"monai", "torch", "ignite", "nibabel", "PIL"}
        assert not set(imported) & {"common", "transformers", "pytest", "json"}


class TestNetwork:
    def test_wrong_channels(self, bundle):
        change(bundle / "configs" / "inference.json", network_def={**TINY, "out_channels": 3})
        finding = run_check(bundle, "network in and out", check_network)
        assert finding.outcome == "FAILED"
        assert "output channel number `3` doesn't match: `4`" in finding.message

    def test_no_network_to_check(self, bundle):
        change(bundle / "configs" / "inference.json", network_def=TINY)
        shutil.copy(bundle / "configs" / "inference.json", bundle / "configs" / "again.json")
        with pytest.raises(ValueError, match=r"Exactly one file .* found \['again\.json', 'inference\.json'\]"):
            find_network(bundle)

    def test_shipped_weights_are_the_ones_that_are_exported(self, bundle):
        change(bundle / "configs" / "inference.json", network_def=TINY)
        (bundle / "models").mkdir()
        torch.save({"of": torch.ones(1), "another": torch.ones(1)}, bundle / "models" / "model.pt")
        finding = run_check(bundle, "TorchScript", check_torchscript)
        assert finding.outcome == "FAILED"
        assert "Missing key(s) in state_dict" in finding.message

    def test_onnx(self, bundle):
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason="of the extra `onnx`")
        change(bundle / "configs" / "inference.json", network_def=TINY)
        assert "largest difference" in check_onnx(bundle)

    def test_onnx_is_skipped_where_it_is_not_installed(self, bundle, monkeypatch):
        monkeypatch.setattr("common.release.networks.find_spec", lambda name: None)
        finding = run_check(bundle, "ONNX", check_onnx)
        assert finding.outcome == "skipped"
        assert finding.message == "needs onnx, onnxscript, onnxruntime, of the extra `onnx`"
