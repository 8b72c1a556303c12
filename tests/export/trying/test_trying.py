"""A server is started with an export, asked, and gone afterwards, whatever ends first; what cannot be is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.cli.main import main
from studio.errors import InputError, StudioError
from studio.export.trying import running
from studio.export.trying.offers import offer, servers_for
from studio.export.trying.programs import PROGRAMS, command_of
from studio.export.trying.running import Trials, wait
from studio.jobs import JobFolder, Summaries
from studio.jobs.store.files import write_json
from studio.models.catalog.embedded import find_gguf
from studio.settings import Settings
from studio.ui.server.services import Services
from studio.ui.tabs.chat.ask import Sampling, make_ask
from studio.ui.tabs.chat.pane import Finished, Piece
from studio.ui.tabs.chat.targets import find_target, served_key, targets_of
from tests.support.processes import gone, interruptible
from tests.support.programs.llamaserver import llama_server
from tests.ui.made_jobs import made_export, made_merged, made_run

WAIT = 60
QUESTION, ANSWER = "Repeat after me: one two three.", "one two three"


@pytest.fixture
def program() -> Path:
    found = llama_server()
    if found is None:
        pytest.skip("llama-server is fetched for Linux on x86-64 alone")
    return found


@pytest.fixture
def export(settings: Settings) -> JobFolder:
    """An export whose first file is the embedded model as its package ships it."""
    job = made_export(settings.jobs, made_run(settings.jobs), ("q8_0",))
    (file,) = job.exports.glob("*.gguf")
    file.unlink()
    file.symlink_to(find_gguf())
    return job


def stand_in(folder: Path, body: str) -> Path:
    """A program that is started as llama-server is."""
    path = folder / "a server"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def trials_with(settings: Settings) -> Iterator[Callable[[Path], Trials]]:
    """A board of servers that are started by another program."""
    made: list[Trials] = []

    def make(program: Path) -> Trials:
        made.append(Trials(replace(settings, llama_server=program)))
        return made[-1]

    yield make
    for one in made:
        one.close_all()


def soon(what: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.long
def test_the_chat_tab_asks_llama_cpps_server(
    program: Path, export: JobFolder, settings: Settings, trials_with: Callable[[Path], Trials]
) -> None:
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    trials = trials_with(program)
    object.__setattr__(services, "trials", trials)
    run = JobFolder(settings.jobs / export.request.config["run"])
    trial = trials.start(export, "llama-server")
    assert trials.start(export, "llama-server") is trial and trial.state == "starting"
    assert served_key(export.id) not in [one.key for one in targets_of(services, run)]
    wait(trial)
    target = find_target(targets_of(services, run), served_key(export.id))
    assert target.label == "demo-q8_0.gguf · on llama.cpp's server"
    news: list[Any] = []
    ask = make_ask(None, settings, target, Sampling(0.0, 1.0, 24))  # type: ignore[arg-type]
    ask([{"role": "user", "content": QUESTION}], threading.Event(), news.append)
    pieces = [one.text for one in news if isinstance(one, Piece)]
    assert len(pieces) > 3 and ANSWER in "".join(pieces).lower()
    assert [one.reason for one in news if isinstance(one, Finished)] == ["stop"]
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
    request = urllib.request.Request(f"{trial.url}/chat/completions", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="401"):  # whoever else is on this machine has no key
        urllib.request.urlopen(request, timeout=WAIT)
    (server,) = psutil.Process(trial.process.pid).children()
    listening = {one.laddr for one in server.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", trial.port)}
    assert trial.key and trial.key not in " ".join(server.cmdline()) + repr(trial) + trial.log.read_text()
    trials.stop(export.id)
    assert trial.state == "stopped" and gone(server.pid)
    assert served_key(export.id) not in [one.key for one in targets_of(services, run)]


@pytest.mark.long
def test_studio_serve_answers_until_it_is_interrupted(program: Path, export: JobFolder, settings: Settings) -> None:
    environment = os.environ | {"STUDIO_HOME": str(settings.home), "STUDIO_LLAMA_SERVER": str(program)}
    command = [sys.executable, "-m", "studio", "serve", export.id, "--json"]
    serving = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=interruptible,
    )  # fmt: skip
    assert serving.stdout is not None and serving.stderr is not None
    try:
        told = json.loads(serving.stdout.readline())
        body = {"model": told["model"], "messages": [{"role": "user", "content": QUESTION}]}
        request = urllib.request.Request(
            f"{told['url']}/chat/completions", json.dumps(body | {"max_tokens": 24, "temperature": 0}).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            assert ANSWER in json.load(answer)["choices"][0]["message"]["content"].lower()
        children = psutil.Process(serving.pid).children(recursive=True)
        assert any("llama-server" in one.name() for one in children)
        serving.send_signal(signal.SIGINT)
        assert serving.wait(WAIT) == 130
        soon(lambda: all(gone(one.pid) for one in children))
        assert serving.stderr.read().splitlines()[-1] == "llama.cpp's server is stopped"
    finally:
        serving.kill()
        serving.wait()


def test_a_server_that_ends_is_said_with_its_last_lines(
    export: JobFolder, tmp_path: Path, trials_with: Callable[[Path], Trials]
) -> None:
    program = stand_in(tmp_path, 'echo "$@"; echo "no room for the model\033[2J" >&2; exit 7')
    trial = trials_with(program).start(export, "llama-server")
    with pytest.raises(StudioError, match=r"llama\.cpp's server ended with exit status 7: no room for the") as raised:
        wait(trial)
    assert trial.log == export.report / "serve-llama-server.log" and str(trial.log) in (raised.value.fix or "")
    first, last = trial.lines()
    assert last == "no room for the model\\x1b[2J", "a log moves no cursor"
    given = first.split(" --")
    assert f"model {export.exports / 'demo-q8_0.gguf'}" in given[0] and "host 127.0.0.1" in given
    assert "jinja" in given and f"port {trial.port}" in given and "ctx-size 4096" in given


HELPED = 'sleep 600 & echo $! > "$0.helper"; echo $$ > "$0.pid"; wait'


def started(program: Path, name: str) -> int:
    path = Path(f"{program}.{name}")
    soon(lambda: path.exists() and bool(path.read_text().strip()))
    return int(path.read_text())


def test_a_stop_ends_helpers_too_and_what_does_not_listen(
    export: JobFolder, settings: Settings, tmp_path: Path, trials_with: Callable[[Path], Trials]
) -> None:
    program = stand_in(tmp_path, HELPED)
    trials = trials_with(program)
    trial = trials.start(export, "llama-server")
    server, helper = started(program, "pid"), started(program, "helper")
    assert trial.state == "starting" and os.getpgid(server) == os.getpgid(helper) == trial.process.pid
    trials.stop(export.id)
    assert trial.state == "stopped" and gone(server) and gone(helper)
    again = trials.start(export, "llama-server")
    assert again is not trial and again.state == "starting"


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_server_ends_with_the_studio(
    number: signal.Signals, export: JobFolder, settings: Settings, tmp_path: Path
) -> None:
    program = stand_in(tmp_path, HELPED)
    environment = os.environ | {"STUDIO_HOME": str(settings.home), "STUDIO_LLAMA_SERVER": str(program)}
    studio = subprocess.Popen([sys.executable, "-m", "studio", "serve", export.id], env=environment)
    try:
        server, helper = started(program, "pid"), started(program, "helper")
        studio.send_signal(number)
    finally:
        studio.send_signal(number)
        studio.wait(WAIT)
    soon(lambda: gone(server) and gone(helper))


def test_a_server_that_is_never_ready_is_ended(
    export: JobFolder, tmp_path: Path, trials_with: Callable[[Path], Trials], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trials_with(stand_in(tmp_path, "echo waiting; exec sleep 600")).start(export, "llama-server")
    soon(lambda: trial.lines() == ["waiting"])
    monkeypatch.setattr(running, "READY_SECONDS", 1.0)
    with pytest.raises(StudioError, match="was not ready after 1 seconds: waiting"):
        wait(trial)
    soon(lambda: trial.process.poll() is not None)


def test_no_more_than_a_few_servers_hold_memory(
    settings: Settings, tmp_path: Path, trials_with: Callable[[Path], Trials]
) -> None:
    run = made_run(settings.jobs)
    trials = trials_with(stand_in(tmp_path, "exec sleep 600"))
    jobs = [made_export(settings.jobs, run, ("q8_0",)) for _ in range(running.MOST + 1)]
    for job in jobs[:-1]:
        trials.start(job, "llama-server")
    with pytest.raises(InputError, match="2 servers are running already"):
        trials.start(jobs[-1], "llama-server")
    trials.stop(jobs[0].id)
    assert trials.start(jobs[-1], "llama-server").state == "starting"


def changed(job: JobFolder, **of_file: Any) -> JobFolder:
    report = json.loads((job.report / "export.json").read_text())
    report["files"] = [report["files"][0] | of_file]
    write_json(job.report / "export.json", report)
    return job


def test_what_cannot_be_served_is_said(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(settings.jobs)
    with_server = replace(settings, llama_server=Path("/bin/sh"), vllm_python=Path(sys.executable))
    merged, file = made_merged(settings.jobs, run), made_export(settings.jobs, run, ("q8_0",))
    write_json(merged.exports / "demo-merged" / "config.json", {"max_position_embeddings": 1000})
    assert (servers_for(merged), servers_for(file)) == (["vllm"], ["llama-server"])
    found = offer(merged, "vllm", with_server)
    assert found.command == [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    assert found.path == merged.exports / "demo-merged" and (found.served.dtype, found.served.context) == (
        "bfloat16",
        1000,
    )
    with pytest.raises(InputError, match=r"vLLM cannot load what this export made \(q8_0\)"):
        offer(file, "vllm", with_server)
    with pytest.raises(InputError, match=r"demo-q8_0\.gguf differs from the trained model"):
        offer(changed(file, verdict="differs"), "llama-server", with_server)
    with pytest.raises(InputError, match="is no longer there"):
        offer(changed(file, verdict="as expected", file="../../job.yaml"), "llama-server", with_server)
    assert servers_for(changed(file, type="gguf-lora")) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="vLLM is not installed on this machine") as raised:
        command_of(PROGRAMS["vllm"], settings)
    assert "pip install vllm" in (raised.value.fix or "")
    with pytest.raises(InputError, match="STUDIO_LLAMA_SERVER names no program: /nowhere"):
        command_of(PROGRAMS["llama-server"], replace(settings, llama_server=Path("/nowhere")))
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert command_of(PROGRAMS["vllm"], settings) == [str(program), "serve"]


def test_an_adapter_is_served_beside_the_runs_base_model(settings: Settings, tmp_path: Path) -> None:
    run = made_run(settings.jobs)
    job = changed(made_merged(settings.jobs, run, to="adapter"), type="adapter")
    write_json(job.exports / "demo-merged" / "adapter_config.json", {"r": 16, "peft_type": "LORA"})
    with_server = replace(settings, vllm_python=Path(sys.executable))
    write_json(run.environment_path, {})
    with pytest.raises(InputError, match="the adapter's base model is not on this machine"):
        offer(job, "vllm", with_server)
    base = tmp_path / "base"
    base.mkdir()
    write_json(base / "config.json", {"max_position_embeddings": 2048, "dtype": "bfloat16"})
    write_json(run.environment_path, {"base_model": {"name": "x", "path": str(base)}})
    served = offer(job, "vllm", with_server).served
    assert (served.base, served.rank, served.context, served.dtype) == (str(base), 16, 2048, "bfloat16")
    write_json(job.exports / "demo-merged" / "adapter_config.json", {"r": 16, "use_dora": True})
    with pytest.raises(InputError, match="vLLM cannot serve an adapter with DoRA"):
        offer(job, "vllm", with_server)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--with", "sh"), "'sh' is not a server"),
        (("--with", "vllm"), "vLLM cannot load what this export made (q8_0)"),
        (("--port", "70000"), "70000 is not a port"),
    ],
)
def test_a_wrong_wish_of_the_command_is_refused(
    arguments: tuple[str, str], words: str, export: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", export.id, *arguments, "--json"]) == 2
    assert words in json.loads(capsys.readouterr().out)["error"]["sentence"]
    assert not list(export.report.glob("*.log"))
