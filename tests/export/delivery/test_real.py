"""The real model on the local Hub: downloaded again it is equal to the last byte; killed in the middle, it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from studio.export.job import export
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.state import write_state
from studio.processes import child_environment, module_command
from studio.settings import Settings
from tests.export.delivery.conftest import context_of
from tests.support.servers.hubserver import Hub

MB = 1_000_000


@pytest.fixture(scope="module")
def run(adapter: Path, make_run: Callable[[Path], JobFolder]) -> JobFolder:
    return make_run(adapter)


def report_of(context: JobContext) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((context.job.report / "export.json").read_text())
    return found


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def downloaded(report: dict[str, Any], cache: Path) -> dict[str, str]:
    repo = report["delivered"]["where"]
    address = report["delivered"]["url"].removesuffix(f"/{repo}")
    found = hashes(Path(snapshot_download(repo, cache_dir=cache, endpoint=address)))
    del found[".gitattributes"]
    return found


@pytest.mark.long
@pytest.mark.parametrize("what", ["merged", "adapter", "gguf"])
def test_what_is_downloaded_is_what_was_made(
    what: str, session_settings: Settings, run: JobFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    own = {"merged": {"shard_gb": 0.1}, "adapter": {"base": "lab/base"}, "gguf": {"types": ["q8_0"]}}[what]
    context = context_of(session_settings, run, to="hub", what=what, repo=f"ada/{what}", **own)
    export(context)
    context.finish("completed")
    report = report_of(context)
    assert report["files"][0]["verdict"] in ("as trained", "as expected")
    folder = context.job.exports if what == "gguf" else context.job.exports / f"stand-in-{what}"
    assert downloaded(report, tmp_path / "cache") == hashes(folder)
    signed = {
        part["file"].rpartition("/")[2]: part["sha256"]
        for file in report["files"]
        for part in file.get("parts") or [file]
    }
    assert signed.items() <= hashes(folder).items()


@pytest.mark.long
def test_an_upload_that_was_killed_goes_on(
    session_settings: Settings, run: JobFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """270 MB in three files; the job is killed when one has arrived, and started again as it was."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.uploads.pause = 0.005
    asked = {"to": "hub", "what": "merged", "repo": "ada/killed", "shard_gb": 0.1}
    first = context_of(session_settings, run, **asked)
    with first.job.log_path.open("w") as log:
        process = subprocess.Popen(
            module_command("studio.export", str(first.job.path)), stdout=log, stderr=log, start_new_session=True,
            env=child_environment(STUDIO_HOME=str(session_settings.home)),
        )  # fmt: skip
    try:
        end = time.monotonic() + 900
        while not hub.uploads.objects and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(1)
    assert hub.uploads.objects and hub.uploads.commits == [], first.job.log_path.read_text()[-2000:]
    write_state(first.job.state_path, first.job.state().with_(status="failed"))  # as the supervisor does
    there, arrived = sum(len(data) for data in hub.uploads.objects.values()), hub.uploads.received
    hub.uploads.pause = 0.0
    again = context_of(session_settings, run, **asked)
    began = time.monotonic()
    export(again)
    seconds, report = time.monotonic() - began, report_of(again)
    told, total = report["delivered"], report["files"][0]["bytes"]
    print(f"{total / MB:.0f} MB, {there / MB:.0f} there when killed; then {told['sent'] / MB:.0f} in {seconds:.1f} s")
    assert report["taken_from"] == first.job.id and report["phases"][-1]["phase"] == "uploading"
    assert hub.uploads.received - arrived <= told["sent"] <= total - there + 10 * MB < total
    assert downloaded(report, tmp_path / "cache") == hashes(again.job.exports / "stand-in-merged")
