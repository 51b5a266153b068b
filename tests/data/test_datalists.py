"""The cases of a data set in its three forms; nothing is opened, so the files may be empty."""

import json
import logging

import pytest

from common.data import DatasetError, load_datalist


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_json(root, **sections):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(sections))
    return root


def entries(*names):
    return [{"image": f"imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names]


def names(datalist):
    return [case["case"] for case in datalist]


def refused(*args, **kwargs):
    with pytest.raises(DatasetError) as caught:
        load_datalist(*args, **kwargs)
    return str(caught.value)


def test_sections_of_dataset_json(tmp_path):
    write_json(
        tmp_path,
        name="phantom",
        labels={"0": "background"},
        training=entries("a", "b"),
        validation=entries("c"),
        test=["./imagesTs/d.nii.gz"],  # plain paths, as in MSD
        unlabeled=[{"image": "/elsewhere/e.mha"}],
    )
    assert load_datalist(tmp_path) == [
        {
            "case": case,
            "image": str(tmp_path / f"imagesTr/{case}.nii.gz"),
            "label": str(tmp_path / f"labelsTr/{case}.nii.gz"),
        }
        for case in "ab"
    ]
    assert names(load_datalist(str(tmp_path), "validation")) == ["c"]
    assert load_datalist(tmp_path, "test", "image") == [{"case": "d", "image": str(tmp_path / "imagesTs/d.nii.gz")}]
    everything = load_datalist(tmp_path, ("training", "unlabeled"), keys=("image",))
    assert names(everything) == ["a", "b", "e"]
    assert everything[-1] == {"case": "e", "image": "/elsewhere/e.mha"}


def test_a_section_that_is_nowhere_names_those_that_are(tmp_path):
    write_json(tmp_path, training=entries("a", "b", "c", "d", "e"), test=[])
    message = refused(tmp_path, "test")
    assert "must have a section `test`; found training (5). Remedy: name one of these" in message
    assert names(load_datalist(tmp_path, ("training", "unlabeled"))) == names(load_datalist(tmp_path))
    assert "must have a section `test` or `unlabeled`" in refused(tmp_path, ["test", "unlabeled"])
    assert "set val_fraction above 0" in refused(tmp_path, "validation", val_fraction=0)


def test_validation_is_held_out_by_seed_and_said(tmp_path, caplog):
    cases = [f"case_{i:02d}" for i in range(10)]
    write_json(tmp_path / "one", training=entries(*cases))
    write_json(tmp_path / "two", training=entries(*reversed(cases)))
    with caplog.at_level(logging.INFO):
        training = load_datalist(tmp_path / "one", val_fraction=0.3)
    assert "has no validation section: 3 of 10 cases of `training` are held out (seed 0): case_" in caplog.text
    validation = load_datalist(tmp_path / "one", "validation", val_fraction=0.3)
    assert len(validation) == 3
    assert sorted(names(training) + names(validation)) == cases
    assert names(training) == sorted(names(training))  # order is kept
    assert set(names(load_datalist(tmp_path / "two", "validation", val_fraction=0.3))) == set(names(validation))
    others = [names(load_datalist(tmp_path / "one", "validation", val_fraction=0.3, seed=s)) for s in range(1, 6)]
    assert any(other != names(validation) for other in others)


def test_at_least_one_case_on_each_side(tmp_path):
    write_json(tmp_path / "two", training=entries("a", "b"))
    for fraction in (0.01, 0.99):
        assert len(load_datalist(tmp_path / "two", val_fraction=fraction)) == 1
        assert len(load_datalist(tmp_path / "two", "validation", val_fraction=fraction)) == 1
    write_json(tmp_path / "one", training=entries("a"))
    message = refused(tmp_path / "one")
    assert "must have two cases or more in `training` to hold one out for validation; found 1. Remedy: list" in message
    assert "list `validation` in dataset.json: other cases, or this one if there is no other" in message
    assert names(load_datalist(tmp_path / "one", val_fraction=0)) == ["a"]
    assert names(load_datalist(tmp_path / "one", ("training", "validation"))) == ["a"]  # nothing to hold out for


def test_a_patient_is_held_out_as_a_whole(tmp_path, caplog):
    cases = [f"patient{i:03d}_frame{j:02d}" for i in range(5) for j in (1, 12)]
    write_json(tmp_path, training=entries(*cases))
    for seed in range(5):
        options = {"val_fraction": 0.4, "seed": seed, "patient_pattern": "patient[0-9]+"}
        held_out = names(load_datalist(tmp_path, "validation", **options))
        assert len(held_out) == 4
        assert len({name.split("_")[0] for name in held_out}) == 2
        assert sorted(names(load_datalist(tmp_path, **options)) + held_out) == cases
    assert "begin as those of" not in caplog.text
    # the first group, where there is one, is the patient; here all cases are of two centers
    grouped = names(load_datalist(tmp_path, "validation", val_fraction=0.4, patient_pattern="_frame(..)"))
    assert len(grouped) == 5


def test_names_that_look_like_one_patient_are_warned_about(tmp_path, caplog):
    write_json(tmp_path, training=entries("patient001_ed", "patient001_es", "case_2", "case_3"))
    for seed in range(8):
        load_datalist(tmp_path, val_fraction=0.25, seed=seed)
    messages = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert 0 < len(messages) < 8
    assert all("1 of 1 held-out cases have names that begin as those of training cases" in text for text in messages)
    assert all("set patient_pattern, or list `validation` in dataset.json" in text for text in messages)


def test_patient_patterns_that_find_nothing_are_refused(tmp_path):
    write_json(tmp_path, training=entries("p1_a", "p1_b", "c"))
    assert "must have a patient that patient_pattern 'p[0-9]' finds; found no match in the name c" in refused(
        tmp_path, patient_pattern="p[0-9]"
    )
    assert "must have two patients or more in `training`" in refused(tmp_path, patient_pattern="^")
    with pytest.raises(ValueError, match=r"patient_pattern must be a regular expression; found '\('"):
        load_datalist(tmp_path, patient_pattern="(")


def test_other_sections_alone_hold_nothing_out(tmp_path):
    write_json(tmp_path, training=entries("a"), test=entries("t"))
    assert names(load_datalist(tmp_path, "test")) == ["t"]


def test_pretraining_may_hold_out_from_what_has_no_labels(tmp_path):
    write_json(tmp_path, training=entries("a"), unlabeled=entries("b", "c", "d"))
    options = {"keys": "image", "val_fraction": 0.3, "hold_out_from": ("training", "unlabeled")}
    training = load_datalist(tmp_path, ("training", "unlabeled"), **options)
    validation = load_datalist(tmp_path, "validation", **options)
    assert len(validation) == 1
    assert sorted(names(training) + names(validation)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("val_fraction", [-0.1, 1, 1.5])
def test_val_fraction_outside_its_range(tmp_path, val_fraction):
    with pytest.raises(ValueError, match=r"val_fraction must be in \[0, 1\); found"):
        load_datalist(tmp_path, val_fraction=val_fraction)


def test_missing_keys_name_every_entry(tmp_path):
    cases = [*entries("a"), {"image": "imagesTr/b.nii.gz"}, {"image": "c.nii.gz", "scribble": "s.nii.gz"}]
    write_json(tmp_path, training=cases)
    message = refused(tmp_path, val_fraction=0)
    assert message.startswith("2 problems in the data:")
    assert "dataset.json training[1]: must have `label`; found only `image`. Remedy: add the label" in message
    assert "dataset.json training[2]: must have `label`; found only `image` and `scribble`" in message
    assert len(load_datalist(tmp_path, keys="image", val_fraction=0)) == 3


def test_entries_without_image_are_refused(tmp_path):
    write_json(tmp_path, training=[*entries("a"), {"label": "b.nii.gz"}, {"image": ""}, 3])
    message = refused(tmp_path)
    assert message.startswith("3 problems in the data:")
    assert 'dataset.json training[1]: must have a path as "image"; found {"label": "b.nii.gz"}' in message


def test_broken_json_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"training": [')
    assert "dataset.json: must be JSON in UTF-8; found Expecting value: line 1 column 15" in refused(tmp_path)
    (tmp_path / "dataset.json").write_bytes(b'{"name": "\xff"}')
    assert "must be JSON in UTF-8; found 'utf-8' codec can't decode" in refused(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    assert "must be a JSON object; found a list" in refused(tmp_path)


def test_a_case_listed_twice_is_refused_in_a_section_and_merged_between_them(tmp_path):
    write_json(tmp_path, training=entries("a", "b"), validation=entries("b"), unlabeled=entries("a", "c", "c"))
    assert names(load_datalist(tmp_path, ("training", "validation"))) == ["a", "b"]
    assert "dataset.json unlabeled[2]: must be listed once; found " in refused(tmp_path, "unlabeled")


def test_validation_images_in_training_are_warned_of(tmp_path, caplog):
    write_json(tmp_path, training=entries("a", "b"), validation=entries("b"))
    load_datalist(tmp_path)
    assert "1 images are in training and in validation, such as " in caplog.text


def test_channel_files(tmp_path):
    channels = ["t1.nii.gz", "t2.nii.gz"]
    write_json(tmp_path, training=[{"image": channels, "label": "seg.nii.gz"}])
    case = load_datalist(tmp_path, val_fraction=0)[0]
    assert case["image"] == [str(tmp_path / name) for name in channels]
    assert case["case"] == "t1"


def test_names_are_unique_over_directories(tmp_path):
    for domain in ("scanner_a", "scanner_b"):
        write_json(tmp_path / domain, test=entries("c1", "c2"))
    write_json(tmp_path / "scanner_c", test=entries("c3"))
    directories = [tmp_path / "scanner_b", tmp_path / "scanner_a", str(tmp_path / "scanner_c")]
    cases = names(load_datalist(directories, "test"))
    prefixes = ["scanner_b", "scanner_b", "scanner_a", "scanner_a"]
    assert cases == [f"{p}_imagesTr_c{i}" for p, i in zip(prefixes, (1, 2, 1, 2), strict=True)] + ["c3"]
    message = refused([tmp_path / "scanner_c", tmp_path / "scanner_c"], "test")
    assert "c3.nii.gz: must be listed once; found 2 cases of one name" in message


def test_msd_folders(tmp_path, caplog):
    touch(tmp_path, *[f"imagesTr/c{i}.nii.gz" for i in range(5)], *[f"labelsTr/c{i}.nii.gz" for i in range(3)])
    touch(tmp_path, "scribblesTr/c1.nii.gz", "scribblesTr/c4.nii.gz", "imagesTs/t1.mha", "labelsTs/t1.nii.gz")
    touch(tmp_path, "imagesTr/._c0.nii.gz", "imagesTr/notes.txt")  # what macOS and people leave behind
    with caplog.at_level(logging.INFO):
        training = load_datalist(tmp_path, val_fraction=0)
    assert "holds training (3), test (1)" in caplog.text
    assert "2 of 5 images are left out, without `label`" in caplog.text
    assert names(training) == ["c0", "c1", "c2"]
    assert training[0]["label"] == str(tmp_path / "labelsTr/c0.nii.gz")
    assert names(load_datalist(tmp_path, keys=("image", "scribble"), val_fraction=0)) == ["c1", "c4"]
    assert names(load_datalist(tmp_path, keys=("image", "label", "scribble"), val_fraction=0)) == ["c1"]
    assert names(load_datalist(tmp_path, keys="image", val_fraction=0)) == [f"c{i}" for i in range(5)]
    test_case = {
        "case": "t1",
        "image": str(tmp_path / "imagesTs/t1.mha"),
        "label": str(tmp_path / "labelsTs/t1.nii.gz"),
    }
    assert load_datalist(tmp_path, "test") == [test_case]


def test_msd_folders_without_labels_are_refused_by_key(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz")
    assert "imagesTr/a.nii.gz: must have `label`; found only `image`" in refused(tmp_path, val_fraction=0)


def test_labels_without_image_are_refused(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "labelsTr/A2.nii.gz")
    assert "labelsTr/A2.nii.gz: must have its image in imagesTr; found none named A2" in refused(tmp_path)


def test_one_case_in_two_formats_is_refused(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "imagesTr/a.mha")
    message = refused(tmp_path, keys="image")
    assert "must be the only file of its case in its folder; found a.mha too" in message


def test_nnunet_names(tmp_path):
    one = touch(
        tmp_path / "one", *[f"imagesTr/c{i}_0000.nii.gz" for i in (1, 2)], *[f"labelsTr/c{i}.nii.gz" for i in (1, 2)]
    )
    assert names(load_datalist(one, val_fraction=0)) == ["c1", "c2"]
    two = touch(tmp_path / "two", *[f"imagesTs/c{i}_000{k}.nii.gz" for i in (1, 2) for k in (0, 1)])
    cases = load_datalist(two, "test", "image")
    assert cases[1]["image"] == [str(two / f"imagesTs/c2_000{k}.nii.gz") for k in (0, 1)]
    assert names(cases) == ["c1", "c2"]
    # Numbers that are no channels.
    series = touch(tmp_path / "series", *[f"imagesTs/img_000{k}.nii.gz" for k in range(3)])
    assert names(load_datalist(series, "test", "image")) == ["img_0000", "img_0001", "img_0002"]
    flare = touch(tmp_path / "flare", *[f"{d}Tr/F_000{k}.nii.gz" for k in (0, 1) for d in ("images", "labels")])
    assert names(load_datalist(flare, val_fraction=0)) == ["F_0000", "F_0001"]
    # nnU-Net 1 lists the case and stores the channel; nnU-Net 2 lists nothing.
    write_json(one, training=entries("c1", "c2"))
    assert load_datalist(one, val_fraction=0)[0]["image"] == str(one / "imagesTr/c1_0000.nii.gz")
    write_json(one, channel_names={"0": "CT"}, labels={"background": 0}, numTraining=2)
    assert names(load_datalist(one, val_fraction=0)) == ["c1", "c2"]


def test_dicom_folders_as_images(tmp_path):
    touch(tmp_path, "imagesTr/p1/000.dcm", "imagesTr/p2/000.dcm", "labelsTr/p1.nii.gz", "labelsTr/p2.nii.gz")
    cases = load_datalist(tmp_path, val_fraction=0)
    assert names(cases) == ["p1", "p2"]
    assert cases[0]["image"] == str(tmp_path / "imagesTr/p1")


def test_a_bare_folder_is_training_and_test(tmp_path, caplog):
    touch(tmp_path, "a.nii.gz", "b.mhd", "b.zraw", "sub/c.nrrd", "LICENSE", ".cache/x.nii.gz", ".d.nii.gz")
    (tmp_path / "dicom/patient/series").mkdir(parents=True)
    (tmp_path / "dicom/patient/series/IM0001").write_bytes(bytes(128) + b"DICM")  # no suffix, as from a PACS
    everything = ["a", "b", "series", "c"]
    assert names(load_datalist(tmp_path, "test", "image")) == everything
    assert sorted(
        names(load_datalist(tmp_path, "training", "image")) + names(load_datalist(tmp_path, "validation", "image"))
    ) == sorted(everything)
    assert names(load_datalist(tmp_path, ("training", "test"), "image", val_fraction=0)) == everything
    assert "named like" not in caplog.text
    assert "labels are found in no other folder; found .cache, .d.nii.gz, LICENSE, a.nii.gz, b.mhd, ..." in refused(
        tmp_path
    )


@pytest.mark.parametrize("name", ["ct_label.nii.gz", "masks/a.png", "a_seg.nrrd", "GT/a.nii"])
def test_label_maps_in_a_bare_folder_are_warned_of(tmp_path, caplog, name):
    touch(tmp_path, "ct.nii.gz", name)
    load_datalist(tmp_path, "test", "image")
    assert f"named like label maps: {name.split('.')[0]}. Move them away" in caplog.text


def test_no_data_at_all(tmp_path):
    message = refused(tmp_path, keys="image")
    assert "must have dataset.json with cases, or imagesTr or imagesTs, or volumes or DICOM series" in message
    assert "found an empty directory. Remedy: set dataset_dir" in message
    assert "must be a directory; found nothing" in refused(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "must be a directory; found a file" in refused(tmp_path / "file")
    assert "dataset_dir: must name a directory; found an empty list" in refused([])
