"""Keys of the environment stay there: a whole run with canary keys, and every place where one could turn up."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from studio.config.load import dump_run
from studio.config.presets import load_named
from studio.jobs import find_job
from studio.settings import read_settings
from tests.conftest import run_studio
from tests.parity.fixtures import tiny
from tests.parity.made import demo_rows, write_rows
from tests.security.routes import walk
from tests.support.ports import free_port
from tests.ui.server.test_app import start

__all__ = ["tiny"]

CANARIES = {
    "HF_TOKEN": "hf_CanaryCanaryCanaryCanaryCanary01",
    "HUGGING_FACE_HUB_TOKEN": "hf_CanaryCanaryCanaryCanaryCanary02",
    "WANDB_API_KEY": "canary0wandb0canary0wandb0canary0wandb03",
    "OPENAI_API_KEY": "sk-canary-openai-canary-openai-canary04",
    "STUDIO_PASSWORD": "canary password of the page 05",
}


def found_in(data: bytes) -> list[str]:
    return [name for name, value in CANARIES.items() if value.encode() in data]


class Watch(threading.Thread):
    """Looks at the command lines of all processes, and at the environments of ours, until it is told to stop."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self.home, self.over = str(home).encode(), threading.Event()
        self.leaks: set[str] = set()
        self.seen: set[str] = set()
        self.with_password: set[str] = set()

    def run(self) -> None:
        while not self.over.wait(0.2):
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    command = (folder / "cmdline").read_bytes()
                    self.leaks.update(found_in(command))
                    environment = (folder / "environ").read_bytes()
                    if b"STUDIO_HOME=" + self.home not in environment:
                        continue
                    words = [(folder / "comm").read_text().strip(), *command.decode().split("\0")]
                    kind = next((word for word in words if word.startswith("studio")), "page")
                    self.seen.add(kind)
                    if CANARIES["STUDIO_PASSWORD"].encode() in environment:
                        self.with_password.add(kind)


@contextmanager
def page_of(home: Path) -> Iterator[urllib.request.OpenerDirector]:
    """A web process with the keys in its environment, and a browser that has signed in."""
    from studio.ui.server.entrance import KEY_HEADER

    port = free_port()
    process = start(home, port, **CANARIES)
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({})
    )
    browser.addheaders = [("host", f"127.0.0.1:{port}")]
    form = urllib.parse.urlencode({"password": CANARIES["STUDIO_PASSWORD"]}).encode()
    browser.home = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    try:
        for attempt in range(600):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                with browser.open(f"http://127.0.0.1:{port}/sign-in", form, timeout=20) as answer:
                    browser.addheaders.append((KEY_HEADER, json.load(answer)["key"]))
                break
            assert process.poll() is None and attempt < 599
            time.sleep(0.1)
        yield browser
    finally:
        process.terminate()
        process.communicate(timeout=20)


def addresses(job: str, files: list[str]) -> list[str]:
    """Every GET route of ours for a job, and what gradio tells of the page."""
    from studio.ui.server.app import create_app

    own = {address for method, address in walk(create_app(read_settings())) if method == "GET"}
    named = {address.replace("/api/jobs/x", f"/api/jobs/{job}") for address in own if "/api/" in address}
    named -= {address for address in named if "gradio_api" in address}
    assert len(named) >= 7, named
    downloads = {f"/api/jobs/{job}/files/{name}" for name in files}
    return sorted(named | downloads | {"/", "/config", "/gradio_api/info", "/theme.css"})


@pytest.mark.long
def test_a_whole_run_keeps_its_keys_to_itself(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train and evaluate by the real processes, with a page open: no file, command line, log or answer has a key."""
    home = tmp_path / "home"
    monkeypatch.setenv("STUDIO_HOME", str(home))
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    config = load_named("demo/sft", [
        f"model.path={tiny}", f"data.train=[{{path: {rows}}}]", "data.validation=0.25", "data.max_length=512",
        "training.max_steps=2", "training.batch_size=4",
    ])  # fmt: skip
    file = tmp_path / "run.yaml"
    file.write_text(dump_run(config))
    with page_of(home) as browser:
        watch = Watch(home)
        watch.start()
        keys = {name: value for name, value in CANARIES.items() if name != "STUDIO_PASSWORD"}
        trained = run_studio("train", str(file), "--name", "canary", "--json", home=home, **keys)
        assert trained.code == 0, trained.stderr
        judged = run_studio("evaluate", "canary", "--data", str(rows), "--limit", "2", "--json", home=home, **keys)
        assert judged.code == 0, judged.stderr
        settings = read_settings()
        for job in (find_job(settings.jobs, "canary", "train"), find_job(settings.jobs, judged.json["id"])):
            shown = json.load(browser.open(f"{browser.home}/api/jobs/{job.id}"))  # type: ignore[attr-defined]
            assert shown["state"]["status"] == "completed"
            for address in addresses(job.id, [one["name"] for one in shown["files"]]):
                assert found_in(get(browser, address)) == [], address
        watch.over.set()
        watch.join()
    assert watch.leaks == set()
    assert watch.seen >= {"page", "studio.jobs.run.warm", "studio.train", "studio.evaluate"}, watch.seen
    # Only the page's own process has ever had the password; its environment keeps what it was started with.
    assert watch.with_password <= {"page"}
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) > 15 and any(path.name == "log.txt" for path in files)
    assert {str(path): found_in(path.read_bytes()) for path in files if found_in(path.read_bytes())} == {}
    for done in (trained, judged):
        assert found_in((done.stdout + done.stderr).encode()) == []


def get(browser: Any, address: str) -> bytes:
    try:
        with browser.open(f"{browser.home}{address}", timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


def test_processes_of_the_page_do_not_get_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.settings import forget_password

    monkeypatch.setenv("STUDIO_PASSWORD", "secret of the page")
    monkeypatch.setenv("STUDIO_TOKEN", "secret of the page")
    forget_password()
    shown = subprocess.run([sys.executable, "-c", "import os; print(dict(os.environ))"], capture_output=True, text=True)
    assert "secret of the page" not in shown.stdout


class Echo(BaseHTTPRequestHandler):
    """A Hub that says in its errors which token it was shown."""

    status = 500

    def do_GET(self) -> None:
        said = f"bad credentials: {self.headers.get('Authorization')}"
        body = json.dumps({"error": said}).encode()
        self.send_response(self.status)
        for name, value in (
            ("X-Error-Message", said),
            ("Content-Type", "application/json"),
            ("Content-Length", len(body)),
        ):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        return


@pytest.mark.parametrize("status", [400, 401, 500])
def test_an_error_of_the_hub_that_quotes_the_token_is_not_repeated(tmp_path: Path, status: int) -> None:
    """Nor the name and password in the address of a mirror (HF_ENDPOINT)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Echo,), {"status": status}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://user:{CANARIES['OPENAI_API_KEY']}@127.0.0.1:{server.server_port}"
    env = {"STUDIO_HOME": str(tmp_path), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "studio.models.catalog.hub", "org/name", "main"], capture_output=True, timeout=120,
        env={**os.environ, **CANARIES, **env},
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    thread.join()
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert ("HF_TOKEN" if status == 401 else "org/name") in error["what"]
    assert found_in(done.stdout + done.stderr) == []
