"""Which files a data set has: `dataset.json`, the folders of the Medical Segmentation Decathlon, or a bare folder."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from monai.utils import ensure_tuple

from .problems import DatasetError, Problem, refusal
from .readers import case_name, image_suffix, is_dicom_folder

__all__ = ["load_datalist"]

logger = logging.getLogger(__name__)

PathLike: TypeAlias = str | os.PathLike[str]
Case: TypeAlias = dict[str, Any]

TRAINING, VALIDATION, TEST = "training", "validation", "test"
FOLDERS = {
    TRAINING: {"image": "imagesTr", "label": "labelsTr", "scribble": "scribblesTr"},
    TEST: {"image": "imagesTs", "label": "labelsTs"},
}
CHANNEL_SUFFIX = re.compile(r"(.+)_(\d{4})")  # nnU-Net: BRATS_001_0000.nii.gz, BRATS_001_0001.nii.gz, ...
NUMBERED = re.compile(r"(.*?\d+)[_.-]")  # patient001_frame01 and patient001_frame12 are likely of one patient
LABEL_LIKE = re.compile(r"(?:^|[_./-])(?:labels?|masks?|seg|segmentation|gt|scribbles?)(?:$|[_./-])", re.IGNORECASE)


def load_datalist(
    dataset_dir: PathLike | Sequence[PathLike],
    section: str | Sequence[str] = TRAINING,
    keys: str | Sequence[str] = ("image", "label"),
    val_fraction: float = 0.2,
    seed: int = 0,
    hold_out_from: str | Sequence[str] = TRAINING,
    patient_pattern: str = "",
) -> list[Case]:
    """List the cases of a data set for a MONAI `Dataset`; nothing is opened but `dataset.json`.

    A directory is read as the first of these that it has:

    1. `dataset.json` with sections (`training`, `validation`, `test`, any other such as `unlabeled`), each a list of
       `{"image": ..., "label": ..., "scribble": ...}`, or of plain images; paths relative to the directory or absolute.
       `image` may be a list of files, one for each channel.
    2. The folders `imagesTr labelsTr scribblesTr` (section `training`) and `imagesTs labelsTs` (`test`). Annotations
       are matched by name; nnU-Net's channel suffix `_0000` on images is understood. Images without the annotations
       asked for are left out and counted.
    3. Only when nothing but images is asked for: any folder of volumes and of DICOM series, at any depth. All
       of them are both `training` and `test`.

    Where there is no `validation`, a share of `hold_out_from` is held out, drawn by case, always the same for the same
    cases and `seed`. Asking for other sections alone holds nothing out. Where several files come from one patient, set
    `patient_pattern`, or list `validation` yourself; names that look so are warned about.

    Args:
        dataset_dir: Directory, or several in order, whose cases are concatenated.
        section: Section, or several, whose cases are concatenated; of several, one must be there. `("training",
            "unlabeled")` gives a pretraining every image but those held out.
        keys: What each case must have: `image`, `label`, `scribble`. Everything else in `dataset.json` is left out.
        val_fraction: Share of `hold_out_from` that is `validation` where none is listed, in [0, 1); 0 holds out none.
        seed: Seed of that draw.
        hold_out_from: Section, or several, from which that share is drawn; a pretraining, which reads no labels, may
            draw from everything it trains on.
        patient_pattern: Regular expression that finds the patient in the name of a case, as its first group or as a
            whole: `patient[0-9]+` for `patient001_frame01`. Cases of a patient are held out together, and
            `val_fraction` is a share of the patients. Empty, every case is a patient of its own.

    Returns:
        One dictionary a case: `keys` with absolute paths (a list of paths for an image in several channel files), and
        `case` with a name that no other case of the list has.

    Raises:
        DatasetError: If there is no data set, no such section, a case without one of `keys`, a case listed twice, or
            too few cases to hold any out, or a case whose patient `patient_pattern` does not find.
        ValueError: If `val_fraction` is not in [0, 1), or `patient_pattern` no regular expression.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1); found {val_fraction}. 0.2 holds out one case of five.")
    pattern = _patient_expression(patient_pattern)
    directories = [dataset_dir] if isinstance(dataset_dir, (str, os.PathLike)) else list(dataset_dir)
    if not directories:
        raise refusal("dataset_dir", "must name a directory", "an empty list", "give at least one directory")
    wanted, required = ensure_tuple(section), ensure_tuple(keys)
    cases: list[Case] = []
    for directory in directories:
        root = Path(os.path.abspath(Path(directory).expanduser()))  # noqa: PTH100 - resolve() would follow links
        try:
            sections = _find_sections(root, required)
        except OSError as error:
            raise refusal(root, "must be readable", str(error), "correct its rights, or the links in it") from error
        pool = [name for name in ensure_tuple(hold_out_from) if name in sections]
        # whoever asks for both sides, or for neither, has nothing held out
        one_side = (VALIDATION in wanted) != bool({*pool} & {*wanted})
        if val_fraction and pool and one_side and VALIDATION not in sections:
            _hold_out_validation(root, sections, pool, val_fraction, seed, pattern)
        cases += _select(root, sections, wanted, required)
    return _with_unique_names(cases)


def _find_sections(root: Path, keys: tuple[str, ...]) -> dict[str, list[Case]]:
    """Return what a directory holds in whichever of the three forms it has: entries by section, none empty.

    An entry has its `case`, the `entry` to name it by in messages, and the paths of what it lists.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise refusal(root, "must be a directory", found, "set dataset_dir to the folder that holds the data")
    json_file = root / "dataset.json"
    sections = _read_json(json_file) if json_file.is_file() else {}
    if not sections:  # nnU-Net's dataset.json lists no cases
        sections = _list_msd_folders(root, keys)
    if not sections and keys == ("image",):
        sections = _list_bare_folder(root)
    if not sections:
        raise refusal(
            root,
            "must have dataset.json with cases, or imagesTr or imagesTs"
            + (", or volumes or DICOM series" if keys == ("image",) else "; labels are found in no other folder"),
            _listing(root),
            "set dataset_dir to the folder that holds the data, or write dataset.json",
        )
    logger.info("%s holds %s", root, _counts(sections))
    return sections


def _read_json(path: Path) -> dict[str, list[Case]]:
    """Read the sections of a Decathlon-style file that list cases."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise refusal(path, "must be JSON in UTF-8", str(error), "repair the file at this place") from error
    except RecursionError as error:
        raise refusal(path, "must be JSON in UTF-8", "lists in lists without end", "write it anew") from error
    if not isinstance(content, dict):
        raise refusal(path, "must be a JSON object", f"a {type(content).__name__}", 'write {"training": [...], ...}')
    sections: dict[str, list[Case]] = {}
    problems: list[Problem] = []
    for name, entries in content.items():
        if not isinstance(entries, list) or not any(_looks_like_case(name, entry) for entry in entries):
            continue  # what the data set is about, or an empty section, as MSD's `test` may be
        sections[name] = []
        for index, entry in enumerate(entries):
            place = f"{path} {name}[{index}]"
            fields = {"image": entry} if isinstance(entry, str) else entry
            if isinstance(fields, dict) and _is_path(fields.get("image"), several=True):
                sections[name].append(_json_case(path.parent, place, fields))
            else:
                remedy = 'write {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}'
                problems.append(Problem(place, 'must have a path as "image"', json.dumps(entry), remedy))
    if problems:
        raise DatasetError(problems)
    return sections


def _looks_like_case(section: str, entry: object) -> bool:
    """Tell a case of a section from an element of another JSON list."""
    if isinstance(entry, str):
        return section in (TRAINING, VALIDATION, TEST) or image_suffix(entry) is not None
    return isinstance(entry, dict) and "image" in entry


def _is_path(value: object, several: bool = False) -> bool:
    """Tell whether a JSON value is a path, or, where `several` may stand, a list of them."""
    if several and isinstance(value, list):
        return bool(value) and all(_is_path(v) for v in value)
    return isinstance(value, str) and bool(value) and "\0" not in value


def _json_case(root: Path, place: str, fields: dict[str, Any]) -> Case:
    """Return an entry of `dataset.json` with absolute paths."""
    case: Case = {"entry": place, "case": case_name(ensure_tuple(fields["image"])[0])}
    for key, value in fields.items():
        if key == "image" and isinstance(value, list):
            case[key] = [_absolute(root, v) for v in value]
        elif key not in case and _is_path(value):
            case[key] = _absolute(root, value)
    if isinstance(case["image"], str) and not Path(case["image"]).exists():
        case["image"] = _channel_files(Path(case["image"])) or case["image"]
    return case


def _absolute(root: Path, path: str) -> str:
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path's raises where there is no such user
    return os.path.abspath(root / expanded)  # noqa: PTH100 - resolve() would follow links


def _channel_files(path: Path) -> str | list[str] | None:
    """Return the files of a case that nnU-Net lists as `a.nii.gz` and stores as `a_0000.nii.gz`, ..."""
    stem, suffix = case_name(path), image_suffix(path) or ""
    # asked for one by one: a search of the folder for each case takes minutes for ten thousand
    numbered = (path.with_name(f"{stem}_{channel:04d}{suffix}") for channel in itertools.count())
    files = [str(file) for file in itertools.takewhile(Path.exists, numbered)]
    return files[0] if len(files) == 1 else files or None


def _list_msd_folders(root: Path, keys: tuple[str, ...]) -> dict[str, list[Case]]:
    """List `imagesTr labelsTr scribblesTr` and `imagesTs labelsTs`, without images that lack what `keys` asks for."""
    sections: dict[str, list[Case]] = {}
    for section, folders in FOLDERS.items():
        annotations = {
            key: {case_name(path): str(path) for path in _volumes_in(root / folder)}
            for key, folder in folders.items()
            if key in keys and key != "image"
        }
        annotated = set().union(*annotations.values())
        images = _images_by_case(_volumes_in(root / folders["image"]), annotated)
        if not images:
            continue
        _refuse_orphans(annotations, images, folders["image"])
        entries: list[Case] = [
            {"entry": paths[0], "case": case, "image": paths[0] if len(paths) == 1 else paths}
            | {key: files[case] for key, files in annotations.items() if case in files}
            for case, paths in images.items()
        ]
        complete = [entry for entry in entries if annotations.keys() <= entry.keys()]
        if complete and len(complete) < len(entries):
            missing = len(entries) - len(complete)
            logger.info(
                "%s: %d of %d images are left out, without %s", root, missing, len(entries), _and(annotations, "or")
            )
        sections[section] = complete or entries
    return sections


def _volumes_in(folder: Path) -> list[Path]:
    """Return the volumes and DICOM series folders that lie directly in a folder; none where there is no folder."""
    if not folder.is_dir():
        return []
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in visible if is_dicom_folder(path) or (path.is_file() and image_suffix(path))]


def _images_by_case(files: list[Path], annotated: set[str]) -> dict[str, list[str]]:
    """Group image files by case, taking a trailing `_0000` for nnU-Net's channel only where that explains all names.

    Args:
        files: Image files of one folder.
        annotated: Cases that have an annotation; where all of them are names of image files, there are no channels.
    """
    single: dict[str, list[str]] = defaultdict(list)
    channels: dict[str, list[str]] = defaultdict(list)
    numbers: dict[str, list[int]] = defaultdict(list)
    for file in files:
        name = case_name(file)
        single[name].append(str(file))
        if match := CHANNEL_SUFFIX.fullmatch(name):
            channels[match[1]].append(str(file))
            numbers[match[1]].append(int(match[2]))
    complete = len({len(group) for group in numbers.values()}) == 1 and all(
        group == list(range(len(group))) for group in numbers.values()
    )
    everyone = sum(map(len, channels.values())) == len(files)
    unannotated_series = len(channels) == 1 and len(files) > 1 and not annotated  # img_0000 ... img_0009: ten cases
    if everyone and complete and not unannotated_series and not (annotated and annotated <= single.keys()):
        return dict(channels)
    doubled = [
        Problem(paths[1], "must be the only file of its case in its folder", f"{Path(paths[0]).name} too", "remove one")
        for paths in single.values()
        if len(paths) > 1
    ]
    if doubled:
        raise DatasetError(doubled)
    return dict(single)


def _refuse_orphans(annotations: dict[str, dict[str, str]], images: dict[str, list[str]], image_folder: str) -> None:
    """Refuse annotations without an image: the names do not match, and cases would be lost unseen."""
    problems = [
        Problem(path, f"must have its image in {image_folder}", f"none named {case}", "rename or remove one of them")
        for files in annotations.values()
        for case, path in files.items()
        if case not in images
    ]
    if problems:
        raise DatasetError(problems)


def _list_bare_folder(root: Path) -> dict[str, list[Case]]:
    """List every volume and every DICOM series in a folder and below it."""
    paths: list[Path] = []
    for name, subfolders, files in os.walk(root):
        folder = Path(name)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        volumes = [folder / f for f in sorted(files) if image_suffix(f) and not f.startswith(".")]
        paths += volumes
        if not volumes and is_dicom_folder(folder):
            paths.append(folder)
            subfolders.clear()
    names = [(path.parent / case_name(path)).relative_to(root).as_posix() for path in paths]
    suspects = [name for name in names if LABEL_LIKE.search(name)]
    if suspects:
        logger.warning(
            "%s: taken for images, but named like label maps: %s. Move them away, or list the images in dataset.json.",
            root,
            ", ".join(suspects[:5]) + (", ..." if len(suspects) > 5 else ""),
        )
    entries = [{"entry": str(path), "case": case_name(path), "image": str(path)} for path in paths]
    return {TRAINING: entries, TEST: entries} if entries else {}


def _hold_out_validation(
    root: Path,
    sections: dict[str, list[Case]],
    pool: list[str],
    val_fraction: float,
    seed: int,
    pattern: re.Pattern[str] | None,
) -> None:
    """Move a share of the patients of the sections in `pool` into a new section `validation`."""
    by_image = {str(entry["image"]): entry for name in reversed(pool) for entry in reversed(sections[name])}
    entries = sorted(by_image.values(), key=lambda entry: (entry["case"], entry["entry"]))
    patients: dict[str, list[Case]] = defaultdict(list)
    for entry in entries:
        patients[str(entry["image"]) if pattern is None else _patient_of(entry, pattern)].append(entry)
    if len(patients) < 2:
        raise refusal(
            root,
            f"must have two {'cases' if pattern is None else 'patients'} or more in {_and(pool)} to hold one out for "
            "validation",
            f"{len(patients)}",
            "list `validation` in dataset.json: other cases, or this one if there is no other",
        )
    num_validation = min(max(round(len(patients) * val_fraction), 1), len(patients) - 1)
    order = np.random.default_rng(seed).permutation(len(patients))
    groups = list(patients.values())
    held_out = {str(entry["image"]) for i in order[:num_validation] for entry in groups[i]}
    sections[VALIDATION] = [entry for entry in entries if str(entry["image"]) in held_out]
    for name in pool:
        sections[name] = [entry for entry in sections[name] if str(entry["image"]) not in held_out]
    logger.info(
        "%s has no validation section: %d of %d cases of %s are held out (seed %d): %s",
        root,
        len(sections[VALIDATION]),
        len(entries),
        _and(pool),
        seed,
        ", ".join(e["case"] for e in sections[VALIDATION][:10]) + (", ..." if len(sections[VALIDATION]) > 10 else ""),
    )
    if pattern is None:
        _warn_of_split_patients(root, sections[VALIDATION], [entry for name in pool for entry in sections[name]])


def _patient_expression(patient_pattern: str) -> re.Pattern[str] | None:
    """Compile the pattern; None where it is empty."""
    try:
        return re.compile(patient_pattern) if patient_pattern else None
    except re.error as error:
        raise ValueError(
            f"patient_pattern must be a regular expression; found {patient_pattern!r} ({error}). "
            "'patient[0-9]+' finds the patient of patient001_frame01."
        ) from error


def _patient_of(entry: Case, pattern: re.Pattern[str]) -> str:
    """Return the patient of a case."""
    match = pattern.search(entry["case"])
    if match is None:
        found = f"no match in the name {entry['case']}"
        remedy = "change the pattern, or list `validation` in dataset.json"
        raise refusal(
            entry["entry"], f"must have a patient that patient_pattern {pattern.pattern!r} finds", found, remedy
        )
    return str(match[1] if pattern.groups else match[0])


def _warn_of_split_patients(root: Path, held_out: Sequence[Case], trained_on: Sequence[Case]) -> None:
    """Say so where cases on both sides have names that begin with one number, as several scans of a patient have."""
    begins = {match[1]: entry["case"] for entry in trained_on if (match := NUMBERED.match(entry["case"]))}
    pairs = [
        (entry["case"], begins[match[1]])
        for entry in held_out
        if (match := NUMBERED.match(entry["case"])) and match[1] in begins
    ]
    if pairs:
        logger.warning(
            "%s: %d of %d held-out cases have names that begin as those of training cases, such as %s and %s. If these "
            "are of one patient, validation looks better than it is: set patient_pattern, or list `validation` in "
            "dataset.json.",
            root,
            len(pairs),
            len(held_out),
            *pairs[0],
        )


def _select(root: Path, sections: dict[str, list[Case]], wanted: tuple[str, ...], keys: tuple[str, ...]) -> list[Case]:
    """Return the entries of the sections asked for, each image once, refusing those without one of `keys`."""
    present = [name for name in wanted if name in sections]
    if not present:
        remedy = "name one of these as section"
        if VALIDATION in wanted:
            remedy += ", list `validation` in dataset.json, or set val_fraction above 0 to hold out training cases"
        raise refusal(root, f"must have a section {_and(wanted, 'or')}", _counts(sections), remedy)
    problems: list[Problem] = []
    selected: dict[str, Case] = {}
    for name in present:
        seen: set[str] = set()
        for entry in sections[name]:
            image = str(entry["image"])
            if image in seen:
                problems.append(Problem(entry["entry"], "must be listed once", f"{image} again", "remove one of them"))
            seen.add(image)
            missing = [key for key in keys if key not in entry]
            if missing:
                found = _and([key for key in entry if key not in ("entry", "case")])
                remedy = f"add the {missing[0]}, or leave {missing[0]!r} out of keys"
                problems.append(Problem(entry["entry"], f"must have {_and(missing)}", f"only {found}", remedy))
            selected.setdefault(image, entry)
    if problems:
        raise DatasetError(problems)
    leaked = {str(e["image"]) for e in sections.get(TRAINING, [])} & {
        str(e["image"]) for e in sections.get(VALIDATION, [])
    }
    if leaked and TRAINING in wanted:
        logger.warning(
            "%s: %d images are in training and in validation, such as %s; validation will look better than it is.",
            root,
            len(leaked),
            min(leaked),
        )
    return [{key: entry[key] for key in ("case", *keys)} for entry in selected.values()]


def _with_unique_names(cases: list[Case]) -> list[Case]:
    """Prefix the names of cases that share one with as many parent folders as it takes."""
    for depth in range(1, 64):
        counts = Counter(case["case"] for case in cases)
        shared = [case for case in cases if counts[case["case"]] > 1]
        if not shared:
            return cases
        for case in shared:
            parents = Path(ensure_tuple(case["image"])[0]).parent.parts
            if depth <= len(parents):
                case["case"] = f"{parents[-depth]}_{case['case']}".lstrip("/")
    paths = sorted(str(case["image"]) for case in shared)
    raise refusal(paths[0], "must be listed once", f"{len(shared)} cases of one name", "remove all but one of them")


def _and(names: Iterable[str], word: str = "and") -> str:
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} {word} {last}" if most else last


def _counts(sections: Mapping[str, list[Case]]) -> str:
    return ", ".join(f"{name} ({len(entries)})" for name, entries in sections.items())


def _listing(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "an empty directory"
