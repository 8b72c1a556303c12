"""The web process as it is started: light, quick, and with a sentence when it cannot start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import call_studio
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
MEMORY_BYTES = 250 * 1000**2
# Goal: up within 4 s on a quiet machine. Machines differ by more than three, so a test counts the CPU time in what
# importing gradio alone takes on this one in the same minute (measured: 1.5 to 1.7).
IN_GRADIO_IMPORTS = 2.0


def start(home: Path, port: int, **env: str) -> subprocess.Popen[str]:
    settings = {"STUDIO_HOME": str(home), "STUDIO_PORT": str(port), "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **settings, **env}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def cpu_seconds_of(code: str) -> float:
    """CPU seconds of a new interpreter that runs the code."""
    timed = f"import psutil; {code}; times = psutil.Process().cpu_times(); print(times.user + times.system)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_until_up(process: subprocess.Popen[str], port: int, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            get(port, "/api/jobs")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail("the page did not come up")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    process = start(tmp_path_factory.mktemp("page") / "home", port)
    try:
        wait_until_up(process, port)
        yield process, port
    finally:
        process.terminate()
        process.wait(15)


def test_starts_light(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    times = psutil.Process(process.pid).cpu_times()
    assert times.user + times.system < IN_GRADIO_IMPORTS * cpu_seconds_of("import gradio")
    status, page = get(port, "/")
    assert status == 200 and "Finetune Studio" in page
    assert psutil.Process(process.pid).memory_info().rss < MEMORY_BYTES
    mapped = {Path(entry.path).name for entry in psutil.Process(process.pid).memory_maps()}
    assert not any("torch" in name or "arrow" in name for name in mapped)


def test_imports_neither_torch_nor_what_needs_it() -> None:
    code = (
        "import sys, json; from studio.settings import read_settings; from studio.ui.server.app import create_app;"
        "create_app(read_settings()); print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "trl", "peft", "openai"} & set(json.loads(done.stdout))


def test_nothing_leaves_the_host(server: tuple[subprocess.Popen[str], int]) -> None:
    page = get(server[1], "/")[1]
    assert "fonts.googleapis" not in page and "cdn" not in page.lower()


def test_gate_covers_gradio_too(server: tuple[subprocess.Popen[str], int]) -> None:
    port = server[1]
    for path in ("/", "/config", "/gradio_api/info", "/api/jobs"):
        assert get(port, path, Host="evil.example")[0] == 400
        assert get(port, path, Origin="http://127.0.0.1:1")[0] == 403
    assert get(port, "/monitoring")[0] in (403, 404)
    assert get(port, "/openapi.json")[0] == 404


def test_files_of_the_machine_are_not_served(server: tuple[subprocess.Popen[str], int]) -> None:
    for path in ("/etc/passwd", str(ROOT / "app.py"), str(ROOT / "assets" / ".." / "app.py")):
        assert get(server[1], f"/gradio_api/file={path}")[0] in (403, 404)


def test_prints_one_line_with_the_address(tmp_path: Path) -> None:
    port = free_port()
    process = start(tmp_path, port)
    try:
        wait_until_up(process, port)
    finally:
        process.terminate()
    output = process.communicate(timeout=15)[0]
    assert output.splitlines() == [f"Finetune Studio: http://127.0.0.1:{port}/"]


def test_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call_studio("ui", "--port", str(port), home=tmp_path)
    assert done.code == 2
    assert f"port {port}" in done.stderr and "--port" in done.stderr and "Traceback" not in done.stderr


def test_open_address_without_password_is_a_sentence(tmp_path: Path) -> None:
    done = call_studio("ui", "--port", str(free_port()), home=tmp_path, STUDIO_HOST="0.0.0.0")
    assert done.code == 2
    assert "STUDIO_PASSWORD" in done.stderr and "Traceback" not in done.stderr


def test_no_event_has_two_handlers_that_wait_for_the_last_change(server: tuple[subprocess.Popen[str], int]) -> None:
    """gradio 6.31 repeats a deferred handler by sending its event to all handlers: two of them never come to rest."""
    waiting: dict[tuple[object, ...], list[str]] = {}
    for dependency in json.loads(get(server[1], "/config")[1])["dependencies"]:
        if dependency["trigger_mode"] == "always_last" and dependency["backend_fn"]:
            for target in dependency["targets"]:
                if target[0] is None:
                    continue  # the next step of another handler, which has no event
                waiting.setdefault(tuple(target), []).append(str(dependency["id"]))
    assert waiting
    assert {event: names for event, names in waiting.items() if len(names) > 1} == {}
