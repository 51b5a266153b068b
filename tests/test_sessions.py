"""The sessions of docs/ run as written, and print what the pages show."""

from __future__ import annotations

import importlib
import inspect
import shlex

import fire.parser
import pytest
from monai.bundle import ConfigWorkflow

from common.data.__main__ import check as check_data
from common.data.phantoms import write_fundus_phantoms, write_heart_phantoms, write_torso_phantoms
from common.data.preparation import prepare
from common.evaluation.commands import compare, score
from common.tools.preflight import check
from common.tools.preflight.overrides import check_overrides
from common.tools.preflight.run_config import RunConfig
from common.weights.__main__ import inspect as inspect_weights
from common.weights.__main__ import list_published
from tests.sessions import ELSEWHERE, REPOSITORY, comparable, run_session, steps

DOCS = REPOSITORY / "docs"
PAGES = ["data", "pretrain", "localize", "adapt", "scribbles", "score", "tracking", "mistakes"]
# Pages that go on with what another leaves.
SESSIONS = [["data"], ["pretrain", "score"], ["localize"], ["adapt"], ["scribbles"]]
COMMANDS = {
    ("common.data", "prepare"): prepare,
    ("common.data", "check"): check_data,
    ("common.data.phantoms", "torso"): write_torso_phantoms,
    ("common.data.phantoms", "heart"): write_heart_phantoms,
    ("common.data.phantoms", "fundus"): write_fundus_phantoms,
    ("common.evaluation", "score"): score,
    ("common.evaluation", "compare"): compare,
    ("common.weights", "list"): list_published,
    ("common.weights", "inspect"): inspect_weights,
    ("common.tools", "check"): check,
}
PROGRAMS = ("tensorboard", "mlflow")


def commands_of(page):
    return [command for step in steps(DOCS / f"{page}.md") for command in step.commands]


def options_of(words):
    """Values by name, as fire reads them."""
    names = [word.removeprefix("--") for word in words[::2]]
    return dict(zip(names, (fire.parser.DefaultParseValue(word) for word in words[1::2]), strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page):
    """Options of public data, too, which no test has: each exists, each is of a kind that it may be."""
    for command in commands_of(page):
        words = shlex.split(command)
        if words[0] in PROGRAMS:
            continue
        assert words[:2] == ["python", "-m"], command
        module, name, *rest = words[2:]
        if module == "monai.bundle":
            options = options_of(rest)
            files = options.pop("config_file")
            assert all((REPOSITORY / file).is_file() for file in files), command
            tracking = options.pop("tracking", None)
            section = check_overrides(RunConfig([REPOSITORY / file for file in files], options))
            assert not section.problems, command
            assert not section.warnings, command
            assert tracking in (None, "mlflow")
        else:
            importlib.import_module(f"{module}.__main__")
            options = options_of(rest)
            parameters = inspect.signature(COMMANDS[module, name]).parameters
            is_open = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
            assert is_open or set(options) <= set(parameters), command


def play(pages, folder):
    played = [step for page in pages for step in steps(DOCS / f"{page}.md")]
    commands = [command for step in played for command in step.commands if ELSEWHERE not in command]
    results = iter(zip(commands, run_session(commands, folder), strict=True))
    for step in played:
        printed = []
        for command in step.commands:
            if ELSEWHERE in command:
                continue
            ran, (status, text) = next(results)
            assert ran == command
            assert status == 0, f"{command}\n{text[-3000:]}"
            printed += comparable(text, folder)
        missing = [line for line in comparable("\n".join(step.shown), folder) if line not in printed]
        assert not missing, (step.commands, missing, printed[-40:])


def test_the_page_on_data_is_a_session(tmp_path):
    play(["data"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("pages", SESSIONS[1:], ids="-".join)
def test_the_page_is_a_session(pages, tmp_path):
    play(pages, tmp_path)


class TestTracking:
    CONFIGS = REPOSITORY / "bundles" / "maco" / "configs"

    def test_mlflow_gets_its_handlers(self, tmp_path):
        """As far as it can be tested without the package."""
        files = [str(self.CONFIGS / name) for name in ("train.json", "small.json")]
        output = f"$'{tmp_path}'"
        workflow = ConfigWorkflow(files, logging_file=False, tracking="mlflow", output_dir=output)
        for handlers in ("train#handlers", "validate#handlers"):
            assert workflow.parser[handlers][-1]["_target_"] == "MLFlowHandler"
        (saved,) = tmp_path.glob("config_*.json")
        workflow.parser.parse()
        assert workflow.parser.get_parsed_content("save_execute_config") == str(saved)
        assert workflow.parser.get_parsed_content("tracking_uri").endswith("mlruns.db")

    def test_without_the_package_check_says_so(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        config = RunConfig([self.CONFIGS / "train.json"], {"experiment_name": "hearts"})
        section = check_overrides(config, "mlflow")
        (step,) = [step for step in steps(DOCS / "tracking.md") if step.shown]
        assert section.problems == [line.strip() for line in step.shown]
