"""A place where this project was never seen: another environment, a server of archives, a working directory."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

from common.release import package
from common.tools.runs import find_bundles

BUNDLES = {path.name: path for path in find_bundles()}


def read_plan(name: str) -> dict:
    """What the demo of a bundle runs: phantoms and steps."""
    return json.loads((BUNDLES[name] / "docs" / "demo.json").read_text())


class Elsewhere:
    """A working directory with a decoy `common`, and an interpreter that has all packages but not this project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.downloads = self.folder / "downloads"
        (self.folder / "common").mkdir(parents=True)
        for name in ("__init__", "networks", "bundle"):
            decoy = self.folder / "common" / f"{name}.py"
            decoy.write_text('raise RuntimeError("the decoy in the working directory was imported")\n')
        # A new environment takes a second where pip stays out. Python reads the lines of its .pth file as further
        # folders of packages, but not the .pth files in these, and such a one is what installs this project.
        environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        self.python = environment / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = environment / "lib" / version / "site-packages"
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run Python with these arguments and return what it says; a failure fails the test."""
        done = self.attempt(*command, cwd=cwd)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def attempt(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments, whatever comes of it."""
        hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        environment |= {"OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
        return subprocess.run(
            [str(self.python), *command],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def download(self, name: str, url: str, folder: Path | None = None) -> Path:
        """Fetch a bundle as a user does, and return its folder."""
        target = folder or self.downloads
        target.mkdir(parents=True, exist_ok=True)
        self.run("-m", "monai.bundle", "download", "--name", name, "--url", url, "--bundle_dir", str(target))
        return target / name


@pytest.fixture
def elsewhere(tmp_path) -> Elsewhere:
    place = Elsewhere(tmp_path)
    answer = place.run("-c", "import importlib.util; print(importlib.util.find_spec('common').origin)")
    assert answer.strip() == str(place.folder / "common" / "__init__.py")
    return place


@contextlib.contextmanager
def serve(folder: Path):
    """Serve a folder on this machine; gives the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Does not log requests."""

    def log_message(self, *args) -> None:
        """Say nothing."""


def release(bundle: str, folder: Path, version: str | None = None, bundles_dir: Path | None = None) -> Path:
    """Package a bundle, as it is or as another version, and return the archive."""
    if version is not None:
        copy = copy_bundle(bundle, folder / f"source_{version}")
        metadata = copy / "configs" / "metadata.json"
        content = json.loads(metadata.read_text())
        metadata.write_text(
            json.dumps(
                {**content, "version": version, "changelog": {version: "made for a test", **content["changelog"]}}
            )
        )
        bundles_dir = copy.parent
    package(bundle=bundle, output_dir=str(folder), bundles_dir=None if bundles_dir is None else str(bundles_dir))
    (archive,) = folder.glob(f"{bundle}_v{version or '*'}.zip")
    return archive


def copy_bundle(bundle: str, folder: Path) -> Path:
    """Copy a bundle's configurations, pages and licence."""
    source, target = BUNDLES[bundle], folder / bundle
    for part in ("configs", "docs"):
        shutil.copytree(source / part, target / part)
    shutil.copy(source / "LICENSE", target)
    return target
