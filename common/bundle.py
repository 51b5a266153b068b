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


def refuse_other_code(bundle_root: str | Path) -> str:
    """Make sure that this package is the one that a released bundle brings along.

    Python loads a package once per process. Two versions of one bundle bring packages of the same name, and the second
    would run with the code of the first without a word. Only the configuration of a released bundle calls this.

    Args:
        bundle_root: Folder of the bundle whose configuration is read.

    Returns:
        The absolute path of that folder.

    Raises:
        ImportError: If this package lies elsewhere.
    """
    package = Path(__file__).resolve().parent
    wanted = Path(bundle_root).resolve()
    if package.parent != wanted:
        raise ImportError(
            f"{wanted} needs the package {package.name} that lies in it, but the one of {package.parent} is loaded. "
            f"Use one version of a bundle per process."
        )
    return str(wanted)
