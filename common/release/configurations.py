"""Checks of a bundle's configurations: every reference leads somewhere, every class exists, every property is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.utils import ID_REF_KEY
from monai.utils import BundleProperty, BundlePropertyConfig

from .bundle_folder import METADATA, read_json

PROPERTIES = {"train.json": TrainProperties, "inference.json": InferProperties}
# Which files lie over which, as the demo runs them.
PLAN = "docs/demo.json"


def check_references(bundle: Path) -> str:
    """Refuse a configuration that refers to an id or a class that does not exist.

    MONAI finds this out only when it comes to that point, and with a long message. Checked are every file that stands
    alone, and the combinations of the demo.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If a file is no JSON, or something does not exist; the message names the id.
    """
    problems: dict[str, None] = {}
    stacks = list(_stacks(bundle))
    for stack in stacks:
        parser = read_configs(bundle, stack)
        parser.parse()
        for name, item in parser.ref_resolver.items.items():
            config = item.get_config()
            references = ReferenceResolver.match_refs_pattern(config) if isinstance(config, str) else {}
            for reference in references:
                if reference not in parser.ref_resolver.items:
                    problems[f"{'+'.join(stack)}: {name} refers to @{reference}, which is not defined"] = None
            # a target that is a reference is known only when it runs
            if isinstance(item, ConfigComponent) and not str(config["_target_"]).startswith((ID_REF_KEY, "$")):
                target = item.resolve_module_name()
                if isinstance(target, str) and _locate(target) is None:
                    problems[f"{'+'.join(stack)}: {name} names {target}, which does not exist"] = None
    if problems:
        raise ValueError("; ".join(problems))
    return f"{len(stacks)} combinations"


def check_properties(bundle: Path) -> str:
    """Refuse training and inference that lack what MONAI requires, or name what is optional in another way.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If a property is absent or has another id.
    """
    problems = []
    for name, properties in PROPERTIES.items():
        parser = read_configs(bundle, [name])
        for label, entry in properties.items():
            own_id = entry[BundlePropertyConfig.ID]
            if entry[BundleProperty.REQUIRED]:
                if own_id not in parser:
                    problems.append(f"{name} lacks {own_id}: {entry[BundleProperty.DESC]}")
                continue
            where = entry.get(BundlePropertyConfig.REF_ID)
            reference = parser.get(where) if where and "::" in where else None
            if isinstance(reference, str) and reference.startswith(ID_REF_KEY):
                found = reference[1:].replace("#", "::")
                if found != own_id:
                    problems.append(f"{name}: {where} is @{found}, but MONAI looks for {label} in {own_id}")
    if problems:
        raise ValueError("; ".join(problems))
    return f"{sum(len(properties) for properties in PROPERTIES.values())} of MONAI's properties"


def read_configs(bundle: Path, names: Sequence[str]) -> ConfigParser:
    """Return a parser of configurations that lie over each other, with the metadata, wherever the bundle lies.

    Args:
        bundle: Folder of the bundle.
        names: Names of the files in `configs/`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no JSON object.
    """
    for name in names:
        read_json(bundle / "configs" / name)
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in names])
    parser.read_meta(str(bundle / METADATA))
    parser["bundle_root"] = str(bundle)
    return parser


def _stacks(bundle: Path) -> Iterator[list[str]]:
    """Files that stand alone, since they import what they need, and the combinations of the demo."""
    for path in sorted((bundle / "configs").glob("*.json")):
        if "imports" in read_json(path):
            yield [path.name]
    if (bundle / PLAN).is_file():
        for step in json.loads((bundle / PLAN).read_text())["steps"]:
            yield step["configs"]


def _locate(target: str) -> object | None:
    from pydoc import locate

    return locate(target)
