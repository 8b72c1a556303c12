"""Fixtures of all tests: a home of one's own, the real model, and one trained demo run a session."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from filelock import FileLock

import tests.support.cores  # noqa: F401
from studio.jobs import JobFolder, find_job
from studio.jobs.run import warm
from studio.jobs.run.starting import LIBRARIES
from studio.models.device.machine import device_info
from studio.processes import child_environment, for_libraries
from studio.settings import Settings, read_settings
from tests.support.groups import Groups, arrange
from tests.support.prepared import copy_model, link_model
from tests.support.shuffling import shuffle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Chromium's own traffic is off: a machine without a network would log it as errors.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

os.environ.pop("COLUMNS", None)  # xdist tells its workers a terminal's width; there is none
# Images of containers set it; each of the thousand processes of a session would compile all its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.update(for_libraries())  # as the studio's children


# How long an example takes says nothing on a machine where two workers share the cores.
hypothesis.settings.register_profile("studio", deadline=None)
hypothesis.settings.register_profile("everyday", deadline=None, max_examples=30)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shuffle SEED`: another order of the tests; 0 is the usual one."""
    parser.addoption("--shuffle", type=int, default=0, metavar="SEED", help="run modules and tests in another order")


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples of a property every day than in `make test-all`."""
    hypothesis.settings.load_profile("everyday" if "not long" in config.option.markexpr else "studio")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes longest first, or everything into an order by the seed."""
    if seed := config.getoption("--shuffle"):
        shuffle(items, seed)
    else:
        arrange(items)


def pytest_collection_finish() -> None:
    """Look at what was imported no more: garbage is sought in all objects, and for these that takes a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Give each worker whole groups of tests."""
    return Groups(config, log)


@dataclass(frozen=True)
class Finished:
    """What a command printed and returned."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout as the one JSON object that it must be."""
        return json.loads(self.stdout)


def run_studio(*arguments: str, home: Path, seconds: float = 1100, **env: str) -> Finished:
    """Run the command `studio` as a person would, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "studio", *arguments],
        capture_output=True, text=True, timeout=seconds, env={**os.environ, "STUDIO_HOME": str(home), **env},
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def call_studio(*arguments: str, home: Path, **env: str) -> Finished:
    """Run the command `studio` in this process: a process of its own imports for two seconds what is here already."""
    from studio.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in {"STUDIO_HOME": str(home), **env}.items():
            patch.setenv(name, value)
        code = main(list(arguments))
    return Finished(code, out.getvalue(), err.getvalue())


class Measured:
    """How fast this machine is: measured in the first home of the session that asks, known to all later ones.

    What two workers learn lies in one folder; a file appears there whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, home: Path) -> None:
        """Give a home what is known."""
        self._copy(self.folder, home)

    def measure(self, home: Path) -> None:
        """Give a home what is measured now if nothing is known yet, before a page's answer waits for it."""
        with FileLock(self.folder / "measuring"):
            device_info(replace(read_settings(), home=self.folder), measure=True)
        self.tell(home)

    def learn(self, home: Path) -> None:
        """Keep what was measured there."""
        self._copy(home, self.folder)

    def _copy(self, source: Path, target: Path) -> None:
        for file in source.glob("device*.json"):
            if not (target / file.name).exists():
                target.mkdir(parents=True, exist_ok=True)
                copy = shutil.copy(file, target / f".{file.name}.{os.getpid()}")
                Path(copy).replace(target / file.name)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What is known of this machine's speed; measuring takes five seconds of both cores."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "measured"
    folder.mkdir(exist_ok=True)
    return Measured(folder)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Measured, model_path: Path) -> Iterator[Path]:
    """A STUDIO_HOME, set in the environment, with nothing but the machine's speed and the prepared model."""
    path = tmp_path / "home"
    monkeypatch.setenv("STUDIO_HOME", str(path))
    measured.tell(path)
    link_model(model_path, path)
    yield path
    measured.learn(path)


@pytest.fixture
def settings(home: Path) -> Settings:
    """The settings of that home."""
    return read_settings()


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The STUDIO_HOME that the tests of one session share, with the prepared model and the trained demo.

    A supervisor may run there: a test that trains in its own process does so in a home of its own.
    """
    return tmp_path_factory.mktemp("session") / "home"


@pytest.fixture(scope="session", autouse=True)
def session_settings(session_home: Path) -> Iterator[Settings]:
    """The settings of the shared home, which is set in the environment before any other one.

    A module that sets its own puts back what was there before: nothing, where it came first.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(session_home))
        yield read_settings()


@pytest.fixture(scope="session")
def model_path(session_settings: Settings, session_home: Path) -> Path:
    """The embedded model in the shared home, a copy of the one that this machine has prepared."""
    return copy_model(session_home)


@pytest.fixture(scope="session")
def short_run(session_settings: Settings, session_home: Path, model_path: Path, measured: Measured) -> JobFolder:
    """Four steps of the demo on the real model: enough to show, evaluate, export and chat with; it learned little."""
    measured.measure(session_home)
    sets = ["training.max_steps=4", "training.batch_size=2", "data.validation=0"]
    asked = [word for one in sets for word in ("--set", one)]
    done = run_studio("train", "demo/sft", "--name", "short", *asked, "--json", home=session_home)
    assert done.code == 0, done.stderr
    return find_job(session_settings.jobs, done.json["id"], "train")


@pytest.fixture(scope="session")
def short_export(session_settings: Settings, session_home: Path, short_run: JobFolder) -> JobFolder:
    """The completed export of the short run to Q4_K_M."""
    done = run_studio("export", short_run.id, "--to", "gguf", "--type", "q4_k_m", "--json", home=session_home)
    assert done.code == 0, done.stderr
    return find_job(session_settings.jobs, done.json["id"], "export")


@pytest.fixture(scope="session")
def forked_steps(session_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[warm.Warm]:
    """Steps of exports that a test runs in its own process come from a warm process, as those of the studio's jobs do.

    Each would import torch and transformers anew otherwise, in six seconds.
    """
    folder = tmp_path_factory.mktemp("warm")
    with (folder / "log.txt").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        process = warm.Warm.launch([LIBRARIES["export"]], log, folder, child_environment())
        patch.setattr(warm, "here", process)
        yield process
        process.close()


@pytest.fixture(scope="session")
def clicked_runs() -> list[JobFolder]:
    """The demo's training that the browser test started by a click, once it is done; empty when that did not run."""
    return []


@pytest.fixture(scope="session")
def demo_result(session_home: Path, model_path: Path, clicked_runs: list[JobFolder]) -> dict[str, Any]:
    """What `studio demo --json` printed. The demo is trained once a session: by a click where that test has run."""
    asked: list[str] = []
    for run in clicked_runs[:1]:
        shutil.copytree(run.path, session_home / "jobs" / run.id)
        asked = ["--run", run.id]
    done = run_studio("demo", "--json", *asked, home=session_home)
    assert done.code == 0, done.stderr
    return done.json


@pytest.fixture(scope="session")
def trained_run(session_settings: Settings, demo_result: dict[str, Any]) -> JobFolder:
    """The demo's completed training job."""
    return find_job(session_settings.jobs, demo_result["run"], "train")


@pytest.fixture(scope="session")
def exported_job(session_settings: Settings, demo_result: dict[str, Any]) -> JobFolder:
    """The demo's completed export job."""
    return find_job(session_settings.jobs, demo_result["jobs"][2], "export")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium where it is, else Playwright's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()
