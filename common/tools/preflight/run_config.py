"""The configuration of a run after its overrides, and what of it the run comes to."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver
from monai.bundle.utils import EXPR_KEY, ID_REF_KEY, ID_SEP_KEY
from monai.utils import ensure_tuple

__all__ = ["RunConfig", "spoken"]

# What `monai.bundle run` evaluates, in this order.
RUN_IDS = ("initialize", "run", "finalize")


class RunConfig:
    """Configuration files with overrides, as `python -m monai.bundle run` reads them.

    Args:
        config_file: File, or several, later ones over earlier ones.
        overrides: Values by configuration id; keys that neither exist nor have a parent are left out.

    Attributes:
        files: The files.
        defaults: What the files alone say; nothing in it is evaluated.
        parser: With the overrides.
        targets: Class or function of each component that the run comes to, by id.

    Raises:
        FileNotFoundError: If a file is not there; the message has the nearest names.
        ValueError: If a file is no JSON or YAML, or a reference is circular.
    """

    def __init__(self, config_file: str | Path | Sequence[str | Path], overrides: Mapping[str, Any]) -> None:
        self.files = [Path(name) for name in ensure_tuple(config_file)]
        for path in self.files:
            _refuse_missing(path)
        self.defaults, self.parser = (self._read() for _ in range(2))
        self.overrides = {ReferenceResolver.normalize_id(str(key)): value for key, value in overrides.items()}
        for key, value in self.overrides.items():
            parent = key.rpartition(ID_SEP_KEY)[0]
            if not parent or key in self.parser or isinstance(self.parser.get(parent), dict):
                self.parser[key] = value
        self.parser.parse()
        self._children: dict[str, list[str]] = defaultdict(list)
        for key in self.parser.ref_resolver.items:
            self._children[key.rpartition(ID_SEP_KEY)[0]].append(key)
        self.reached = self._reach()
        # noted now, as evaluation writes into the items
        self.targets = {key: target for key in self.reached if (target := self._locate(key)) is not None}

    def _read(self) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config([str(path) for path in self.files])
        metadata = self.files[0].parent / "metadata.json"
        if metadata.is_file():
            parser.read_meta(str(metadata))
        return parser

    @property
    def default_ids(self) -> list[str]:
        """Every id that the files alone have."""
        self.defaults.parse()
        return [key for key in self.defaults.ref_resolver.items if key and not key.startswith(ConfigParser.meta_key)]

    def _reach(self) -> frozenset[str]:
        """Return the ids that are evaluated when the configuration runs."""
        items = self.parser.ref_resolver.items
        found: set[str] = set()
        todo = [key for key in RUN_IDS if key in items]
        while todo:
            key = todo.pop()
            if key in found or key not in items:
                continue
            found.add(key)
            content = items[key].get_config()
            todo += self._children[key]
            todo += ReferenceResolver.match_refs_pattern(content) if isinstance(content, str) else ()
        return frozenset(found)

    def _locate(self, key: str) -> Any:
        item = self.parser.ref_resolver.items[key]
        if not isinstance(item, ConfigComponent):
            return None
        name = item.get_config()["_target_"]
        if isinstance(name, str) and name.startswith((ID_REF_KEY, EXPR_KEY)):
            return None
        module = item.resolve_module_name()
        return locate(module) if isinstance(module, str) else module

    def is_reached(self, key: str) -> bool:
        """Tell whether a value, or a part of it, is evaluated by the run.

        Args:
            key: Configuration id.
        """
        return key in self.reached or any(other.startswith(key + ID_SEP_KEY) for other in self.reached)

    def components(self, *kinds: Callable[..., Any]) -> Iterator[str]:
        """Yield the ids of components of these classes (or subclasses) or functions that are not disabled, sorted.

        Args:
            *kinds: Classes and functions.

        Raises:
            ValueError: If whether a component is disabled cannot be evaluated.
        """
        classes = tuple(kind for kind in kinds if isinstance(kind, type))
        for key in sorted(self.targets):
            target = self.targets[key]
            is_kind = target in kinds or (isinstance(target, type) and issubclass(target, classes))
            if is_kind and not self.value(f"{key}{ID_SEP_KEY}_disabled_", False):
                yield key

    def arguments(self, key: str, *left_out: str) -> dict[str, Any]:
        """Return the evaluated arguments of a component.

        Args:
            key: Id of the component.
            *left_out: Arguments that are not evaluated.
        """
        names = [child.rpartition(ID_SEP_KEY)[2] for child in self._children[key]]
        wanted = [name for name in names if not name.startswith("_") and name not in left_out]
        return {name: self.value(f"{key}{ID_SEP_KEY}{name}") for name in wanted}

    def value(self, key: str, default: Any = None) -> Any:
        """Return the evaluated content of an id, or `default` where there is none.

        Args:
            key: Configuration id.
            default: What to return where the configuration has no such id.

        Raises:
            ValueError: And others, if it cannot be evaluated.
        """
        key = ReferenceResolver.normalize_id(key)
        if key not in self.parser.ref_resolver.items:
            return default
        content = self.parser.get_parsed_content(key)
        return False if key.endswith("_disabled_") and str(content).lower() == "false" else content


def spoken(key: str) -> str:
    """Return an id as documents write it, `train#trainer#max_epochs`."""
    return key.replace(ID_SEP_KEY, "#")


def _refuse_missing(path: Path) -> None:
    if path.is_file():
        return
    folder = path.parent
    names = sorted(other.name for other in folder.glob("*.json")) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1) or names
    hint = f"did you mean {folder / near[0]}?" if near else f"there is no configuration in {folder}."
    raise FileNotFoundError(f"config_file must exist; found nothing at {path}: {hint}")
