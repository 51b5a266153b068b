"""Where a bundle is, seen from the code that it uses."""

from __future__ import annotations

from pathlib import Path


def find_bundle_root(name: str) -> str:
    """Return the folder of a bundle, from any working directory.

    A released bundle carries this package inside of itself; in the repository the bundles lie beside it.

    Args:
        name: The bundle's name, such as `volume_fusion`.

    Returns:
        Absolute path of the folder that holds `configs/metadata.json`.

    Raises:
        FileNotFoundError: If no such bundle lies around or beside this package.
    """
    parent = Path(__file__).resolve().parents[1]
    for folder in (parent, parent / "bundles" / name):
        if (folder / "configs" / "metadata.json").is_file():
            return str(folder)
    raise FileNotFoundError(
        f"Bundle {name!r} has no configs/metadata.json in {parent} or {parent / 'bundles' / name}; "
        f"give its folder with --bundle_root."
    )
