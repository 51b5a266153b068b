"""Overrides that nothing reads, or that say something else than was meant."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS, EXPR_KEY, ID_REF_KEY, ID_SEP_KEY, MACRO_KEY, MERGE_KEY

from .run_config import RunConfig, spoken
from .sections import Section

# Keys that MONAI understands in any component.
COMPONENT_KEYS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
NUMBERS = (int, float)


def check_overrides(config: RunConfig, tracking: object = None) -> Section:
    """Find misspelled keys, keys without effect, and values of another kind than the default.

    MONAI adds an unknown key to the configuration without a word; nothing reads it, and the run takes the default.

    Args:
        config: The run.
        tracking: Value of the option `--tracking`.
    """
    section = Section("keys")
    for key, value in config.overrides.items():
        if key in _tracking_keys(tracking):
            continue
        problem = _key_problem(config, key) or _value_problem(config.defaults.get(key), key, value)
        if problem:
            section.problems.append(problem)
        elif not config.is_reached(key):
            section.warnings.append(f"--{spoken(key)} has no effect: nothing that this run does reads it.")
    if tracking == "mlflow" and importlib.util.find_spec("mlflow") is None:
        section.problems.append(
            "--tracking mlflow needs the package mlflow, which is not installed. Run `pip install mlflow`, or leave "
            "the option out: TensorBoard files are written in any case."
        )
    known = len(config.overrides) - len(section.problems)
    names = " + ".join(path.name for path in config.files)
    section.lines.append(f"{names}; {known} of {len(config.overrides)} overrides understood")
    return section


def _tracking_keys(tracking: object) -> set[str]:
    """Keys that `--tracking` adds to the configuration."""
    return set(DEFAULT_EXP_MGMT_SETTINGS.get(str(tracking), {}).get("configs", {}))


def _key_problem(config: RunConfig, key: str) -> str | None:
    """Say why a key means nothing, or None."""
    if key in config.defaults:
        return None
    if key.startswith(MERGE_KEY):
        return (
            f"--{spoken(key)}: `{MERGE_KEY}` appends in configuration files only. Put it into a JSON file, and name "
            "that last in --config_file."
        )
    parent, _, name = key.rpartition(ID_SEP_KEY)
    siblings: Iterable[str]
    if not parent:
        if config.is_reached(key):
            return None  # another override refers to it
        siblings = [other for other in config.defaults.get() if not other.startswith("_")]
        where = "is no key of this configuration"
    elif parent not in config.parser:
        siblings = [spoken(other) for other in config.default_ids]
        where = f"has no effect: there is no {spoken(parent)}"
        name = spoken(key)
    else:
        content = config.parser.get(parent)
        if not isinstance(content, Mapping):
            return f"--{spoken(key)}: {spoken(parent)} has no parts that could be set by name; give it as a whole."
        accepted = _accepted(content)
        if name in COMPONENT_KEYS or accepted is None or name in accepted:
            return None
        siblings = [*accepted, *(config.defaults.get(parent) or ())]
        where = f"is neither in {spoken(parent)} nor an argument of its class"
        if not ConfigComponent.is_instantiable(content):
            if config.is_reached(key):
                return None
            where = f"is not in {spoken(parent)}"
    prefix = f"{spoken(parent)}#" if parent and name != spoken(key) else ""
    return f"--{spoken(key)} {where}.{_nearest(name, siblings, prefix)}"


def _accepted(content: Mapping[str, Any]) -> set[str] | None:
    """Names of the arguments of a component; None where it takes any."""
    if not ConfigComponent.is_instantiable(dict(content)):
        return set()
    target = content["_target_"]
    name = ConfigComponent(config={"_target_": target}).resolve_module_name() if isinstance(target, str) else target
    callable_ = locate(name) if isinstance(name, str) else name
    if not callable(callable_):
        return None
    parameters = inspect.signature(callable_).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


def _nearest(name: str, candidates: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(name, list(dict.fromkeys(candidates)), n=3, cutoff=0.6)
    if not near:
        last = name.rpartition("#")[2]
        near = [other for other in candidates if other.rpartition("#")[2] == last][:3]
    if not near:
        return " Look into the configuration for the keys that there are."
    return " Did you mean " + " or ".join(f"--{prefix}{other}" for other in near) + "?"


def _value_problem(default: Any, key: str, value: Any) -> str | None:
    """Say why a value cannot be meant, or None; what refers to something or is computed is not looked at."""
    if isinstance(default, str) or default is None:
        return None
    if isinstance(value, str) and value.startswith((ID_REF_KEY, EXPR_KEY, MACRO_KEY)):
        return None
    rule = None
    if isinstance(default, bool):
        if not isinstance(value, bool) and value not in (0, 1):
            rule = "must be True or False, spelled so (any other word counts as true)"
    elif isinstance(default, NUMBERS):
        if value is not None and not isinstance(value, NUMBERS):
            rule = f"must be a number, as the default {default!r}"
    elif isinstance(default, list) and default and all(isinstance(item, NUMBERS) for item in default):
        is_list = value is None or isinstance(value, (list, tuple))
        rule = None if is_list else f"must be a list of numbers, as the default {default!r}"
    return None if rule is None else f"--{spoken(key)} {rule}; found {value!r}."
