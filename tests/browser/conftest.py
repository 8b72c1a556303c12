"""Fixtures of the browser tests: Chromium, a web process with a home of its own, and runs written by hand.

`page` fails a test that left an error in the browser's console. `serve` starts a web process on any home;
`server` is one with an empty home.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, WebError, expect

from studio.config import RunConfig
from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, process_start, write_state
from studio.settings import Settings, read_settings
from tests.conftest import Measured
from tests.support.ports import free_port
from tests.support.prepared import link_model
from tests.support.processes import end_jobs

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
# Machines that run tests are busy: drawing four charts may take seconds there.
expect.set_options(timeout=30_000)


@dataclass
class Server:
    """A web process that can be killed and started again on the same port."""

    home: Path
    port: int
    more: dict[str, str] = field(default_factory=dict)  # of its environment
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def settings(self) -> Settings:
        return replace(read_settings(), home=self.home, port=self.port)

    def start(self) -> None:
        # Libraries are not imported ahead: a supervisor would take the runs that a test writes by hand.
        env = {"STUDIO_HOME": str(self.home), "STUDIO_PORT": str(self.port), "STUDIO_AHEAD": "0"}
        env |= {"NO_PROXY": "127.0.0.1"} | self.more
        log = (self.home.parent / f"server-{self.port}.log").open("ab")
        command = [sys.executable, "app.py"]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.home.parent / f"server-{self.port}.log").read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.url}api/jobs", timeout=10).close()
                return
            time.sleep(0.1)
        pytest.fail("the page did not come up")

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None


@dataclass
class FakeRun:
    """A job written by hand, whose process is a sleeping one."""

    job: JobFolder
    process: subprocess.Popen[bytes]
    events: EventWriter = field(init=False)
    step: int = 0
    total: int = 40

    def __post_init__(self) -> None:
        self.events = EventWriter(self.job.events_path)
        start = process_start(self.process.pid)
        state = JobState(status="running", pid=self.process.pid, process_start=start, started=time.time())
        write_state(self.job.state_path, state)

    def phase(self, name: str, done: float, total: float | None, unit: str = "", state: str = "progress") -> None:
        self.write("phase", phase=name, state=state, done=done, total=total, unit=unit, memory_gb=0.5)

    def write(self, kind: str, **fields: Any) -> None:
        """One event, with the seconds since the run began as a worker writes them."""
        self.events.write(kind, **fields, passed=round(time.time() - self.job.state().started, 3))

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            values = {"loss": 2.0 / self.step, "learning_rate": 1e-3, "grad_norm": 1.0 + 1 / self.step}
            values["tokens_per_second"] = 600.0
            if self.step % 5 == 0:
                values["eval_loss"] = 2.2 / self.step
            self.write(
                "metric", step=self.step, total_steps=self.total, epoch=2 * self.step / self.total,
                tokens=600 * self.step, elapsed=1.0 * self.step, eta=float(self.total - self.step), values=values,
                memory_gb=2.0,
            )  # fmt: skip
            self.phase("training", self.step, self.total, "steps")

    def log(self, text: str) -> None:
        with self.job.log_path.open("a") as file:
            file.write(f"{text}\n")

    def finish(self, status: Any = "completed", reason: str = "", fix: str = "") -> None:
        self.events.write("done", status=status, reason=reason, fix=fix)
        write_state(
            self.job.state_path,
            self.job.state().with_(status=status, reason=reason, fix=fix, finished=time.time(), exit_code=0),
        )
        self.end()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


Serve = Callable[..., Server]


@contextlib.contextmanager
def serving() -> Iterator[Serve]:
    """Start web processes, each on a home and a port of its own if none is named; all are ended afterwards.

    One that is left idle takes a twentieth of a core.
    """
    servers: list[Server] = []

    def start(home: Path, port: int | None = None, **more: str) -> Server:
        home.mkdir(parents=True, exist_ok=True)
        server = Server(home, port or free_port(), more)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a web process on a home; it is ended with the test, and so are jobs of a home that is the test's own."""
    homes: list[Path] = []
    with serving() as start:

        def noted(home: Path, port: int | None = None, **more: str) -> Server:
            homes.append(home)
            return start(home, port, **more)

        yield noted
    for home in homes:
        if home.is_relative_to(tmp_path):
            end_jobs(home)


@pytest.fixture(scope="session")
def shared_port() -> int:
    """The port of each module's server, one after the other: the browser keeps scripts by their addresses."""
    return free_port()


def sharing(fixture_name: str, config: pytest.Config) -> Literal["session", "module"]:
    """The few everyday tests have one web process, whose start takes longer than most of them."""
    return "session" if "not long" in config.option.markexpr else "module"


@pytest.fixture(scope=sharing)
def server(
    shared_port: int, model_path: Path, tmp_path_factory: pytest.TempPathFactory, measured: Measured
) -> Iterator[Server]:
    """A web process whose home holds the prepared model; no job either, but for those of everyday tests before it."""
    home = tmp_path_factory.mktemp("browser") / "home"
    link_model(model_path, home)
    measured.measure(home)
    with serving() as start:
        yield start(home, shared_port)
    end_jobs(home)
    measured.learn(home)


@pytest.fixture
def leftovers() -> Iterator[list[Path]]:
    """Folders that are removed after the page is closed: a page that still polls would log their absence."""
    folders: list[Path] = []
    yield folders
    for folder in folders:
        end = time.monotonic() + 20
        while folder.exists():  # it may lie in another one that was left over
            try:
                shutil.rmtree(folder)
            except OSError:  # a supervisor wrote something into it meanwhile
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)


@pytest.fixture
def fake_run(server: Server, tmp_path: Path, leftovers: list[Path]) -> Iterator[Callable[..., FakeRun]]:
    """Make runs in the server's home; they are removed after the test."""
    runs: list[FakeRun] = []

    def make(name: str = "fake", kind: Any = "train", config: dict[str, Any] | None = None) -> FakeRun:
        # Made elsewhere and moved: a supervisor of this home must never see it queued and start it.
        made = create_job(tmp_path, kind, name, config or RunConfig().model_dump(mode="json"))
        write_json(made.environment_path, {"plan": {"total_bytes": 2_200_000_000, "parameters": 134_515_008}})
        process = subprocess.Popen(["sleep", "600"], start_new_session=True)
        run = FakeRun(made, process)
        server.settings.jobs.mkdir(exist_ok=True)
        target = server.settings.jobs / made.id
        while target.exists():  # a test before this one made a run of the same name in the same second
            target = target.with_name(f"{target.name}-again")
        run.job = JobFolder(made.path.rename(target))
        runs.append(run)
        leftovers.append(run.job.path)
        return run

    yield make
    for run in runs:
        # Ended by its own word: of a process that is just gone the server would write that, while we remove the folder.
        if run.job.state_path.exists() and not run.job.state().final:
            run.finish("stopped")
        run.end()


@pytest.fixture
def console() -> list[str]:
    """Errors of the browser's console; a test that causes some on purpose clears the list."""
    return []


@pytest.fixture
def settle(page: Page) -> Callable[[], None]:
    """Wait until gradio runs no event: no result is waited for, and for two seconds nothing was asked.

    Playwright's `networkidle` never comes on a busy machine, because the page asks for news every second. A request
    whose end Playwright did not tell counts as ended after 40 seconds.
    """
    last = time.monotonic()
    waiting: dict[Request, float] = {}

    def began(request: Request) -> None:
        nonlocal last
        if "/gradio_api/" in request.url:
            last = time.monotonic()
        if "/queue/data" in request.url or "/run/predict" in request.url:
            waiting[request] = time.monotonic()

    def ended(request: Request) -> None:
        nonlocal last
        if "/gradio_api/" in request.url:
            last = time.monotonic()
        waiting.pop(request, None)

    page.on("request", began)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)

    def wait() -> None:
        while time.monotonic() - last < 2 or any(time.monotonic() - at < 40 for at in waiting.values()):
            page.wait_for_timeout(200)

    return wait


def opened(browser: Browser) -> Iterator[BrowserContext]:
    """A context of 1440 × 900 by day, in which nothing moves: each frame is drawn by the processor."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """The context of all pages, which find the scripts in its cache: reading gradio's anew is half of opening a page.

    Modules that change a context for good, or look at it, say that `context` is their `own_context`.
    """
    yield from opened(browser)


@pytest.fixture
def own_context(browser: Browser) -> Iterator[BrowserContext]:
    """A context of a test's own."""
    yield from opened(browser)


@pytest.fixture
def page(
    tmp_path: Path, context: BrowserContext, console: list[str], leftovers: list[Path], serve: Serve
) -> Iterator[Page]:
    """A page without cookies or anything stored; an error in its console, or that of another tab, fails the test.

    It is closed before the web processes end and before the test's folder goes, which it would log.
    """

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            console.append(f"{message.text} {message.location.get('url', '')}".strip())

    def crash(error: WebError) -> None:
        console.append(str(error.error))

    context.set_storage_state({})
    context.on("console", note)
    context.on("weberror", crash)
    yield context.new_page()
    for tab in context.pages:
        tab.close()
    context.remove_listener("console", note)
    context.remove_listener("weberror", crash)
    assert console == []
