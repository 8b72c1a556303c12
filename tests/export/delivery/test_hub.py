"""A repository of the Hub gets what was proven, in one commit; what the Hub would refuse is refused before the making.

The real huggingface_hub, in the export's own processes, against the local Hub.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from studio.config.jobs import ExportConfig
from studio.errors import InputError, StoppedError, StudioError
from studio.export.adapter import AdapterExport
from studio.export.delivery.delivery import files_in
from studio.export.delivery.hub import HubDelivery, signatures
from studio.export.delivery.refusals import require_repository
from studio.export.delivery.wishes import settled
from studio.export.files import sha256
from studio.export.job import export
from studio.export.source import open_source, source_of
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.processes import child_environment, module_command
from studio.settings import Settings
from tests.export.delivery.conftest import BASE_ID, TOKEN, contents, context_of
from tests.support.servers.hubserver import Hub

REPO = "ada/tuned"
MB = 1_000_000


class Ready:
    """A delivery to the Hub, and an export whose files stand ready for it."""

    def __init__(self, settings: Settings, run: JobFolder, files: dict[str, bytes], **config: Any) -> None:
        asked = {"to": "hub", "what": "adapter", "repo": REPO, "base": BASE_ID} | config
        self.context: JobContext = context_of(settings, run, **asked)
        self.config = ExportConfig.model_validate(self.context.config)
        inner = self.config.model_copy(update={"to": self.config.made})
        self.making = AdapterExport(self.context, inner, open_source(settings, run.id), None)
        self.delivery = HubDelivery(self.context, self.config)
        folder = self.context.job.exports / "made"
        folder.mkdir(parents=True)
        parts = []
        for name, data in files.items():
            (folder / name).write_bytes(data)
            parts.append({"file": f"made/{name}", "sha256": sha256(folder / name, lambda done: None)})
        self.files, self.making.report["files"] = files_in(folder), [{"parts": parts}]

    def put(self) -> dict[str, Any]:
        self.delivery.prepare(self.making.report, 0)
        return self.delivery.deliver(self.files, self.making)


def phases(context: JobContext) -> list[dict[str, Any]]:
    events, _ = read_events(context.job.events_path, 0, 10_000_000)
    return [event for event in events if event["kind"] == "phase"]


def written(context: JobContext) -> bytes:
    """All that the job has written so far."""
    return b"".join(path.read_bytes() for path in context.job.path.rglob("*") if path.is_file())


SMALL = {"README.md": b"# card\n", "adapter_model.safetensors": bytes(3 * MB), "curves.png": b"png"}


def test_files_arrive_in_one_commit(session_settings: Settings, tiny_run: JobFolder, hub: Hub) -> None:
    ready = Ready(session_settings, tiny_run, SMALL)
    told = ready.put()
    assert contents(hub.repositories[REPO]) == SMALL | {
        ".gitattributes": contents(hub.repositories[REPO])[".gitattributes"]
    }
    assert hub.told[REPO]["private"] and len(hub.uploads.commits) == 1
    assert told == {
        "to": "hub", "where": REPO, "url": f"{told['url'].removesuffix(f'/{REPO}')}/{REPO}", "commit": f"{1:040x}",
        "private": True, "files": 3, "bytes": 3 * MB + 10, "sent": 3 * MB + 10, "replaced": [], "removed": [],
    }  # fmt: skip
    assert ready.making.report["license"] == {"license": "apache-2.0"} and ready.making.report["place"] == REPO
    last = phases(ready.context)[-1]
    assert (last["phase"], last["done"], last["total"], last["unit"]) == (
        "uploading",
        3 * MB + 10,
        3 * MB + 10,
        "bytes",
    )
    assert hub.tokens == {TOKEN} and hub.uploads.with_token == [], "the storage of large files needs no token"
    assert TOKEN.encode() not in written(ready.context)


def test_a_public_repository_is_asked_for(session_settings: Settings, tiny_run: JobFolder, hub: Hub) -> None:
    told = Ready(session_settings, tiny_run, {"README.md": b"x"}, repo="lab/open", private=False).put()
    assert not told["private"] and not hub.told["lab/open"]["private"]


def test_progress_is_in_bytes(session_settings: Settings, tiny_run: JobFolder, hub: Hub) -> None:
    hub.uploads.pause = 0.02
    ready = Ready(session_settings, tiny_run, {"adapter_model.safetensors": bytes(8 * MB)})
    ready.put()
    done = [event["done"] for event in phases(ready.context) if event["phase"] == "uploading"]
    assert done == sorted(done) and len([one for one in done if 0 < one < 8 * MB]) >= 3, done


def test_large_files_may_go_in_parts(session_settings: Settings, tiny_run: JobFolder, hub: Hub) -> None:
    hub.uploads.part_bytes = MB
    data = bytes(range(256)) * 10_000
    Ready(session_settings, tiny_run, {"adapter_model.safetensors": data}).put()
    assert (hub.repositories[REPO] / "adapter_model.safetensors").read_bytes() == data
    assert len([one for one in hub.requests if one.startswith("PUT")]) == 3


def test_a_killed_upload_goes_on_where_it_was(session_settings: Settings, tiny_run: JobFolder, hub: Hub) -> None:
    """The process is killed when the small two of four files have arrived: they are not sent again."""
    hub.uploads.pause = 0.02
    files = {f"model-{size}.safetensors": bytes([size]) * (size * MB) for size in (1, 2, 14, 18)}
    ready = Ready(session_settings, tiny_run, files)
    ready.delivery.prepare(ready.making.report, 0)
    signed = signatures(ready.making.report, ready.context.job.exports)
    request = {
        "repo": REPO, "private": True, "remove": [], "message": "x",
        "files": [{"name": name, "path": str(path), "sha256": signed[path]} for name, path in ready.files.items()],
    }  # fmt: skip
    asked = ready.context.job.path / "asked.json"
    write_json(asked, {"request": request, "roots": None})
    command = module_command("studio.export.delivery.upload", str(asked), str(asked.with_suffix(".answer")))
    process = subprocess.Popen(command, env=child_environment(HF_HUB_DISABLE_XET="1"), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(hub.uploads.objects) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    while hub.uploads.reading and time.monotonic() < end:
        time.sleep(0.01)  # what was on the line is read
    there, arrived = sum(len(data) for data in hub.uploads.objects.values()), hub.uploads.received
    assert there == 3 * MB < arrived and hub.uploads.commits == []
    assert list(hub.repositories[REPO].glob("*.safetensors")) == [], "nothing is visible before all of it is there"
    hub.uploads.pause = 0.0
    told = ready.put()
    assert told["sent"] == hub.uploads.received - arrived == 32 * MB
    assert contents(hub.repositories[REPO]).items() >= files.items()


def test_a_stop_ends_it_at_once(session_settings: Settings, tiny_run: JobFolder, hub: Hub) -> None:
    hub.uploads.pause = 0.5
    ready = Ready(session_settings, tiny_run, {"adapter_model.safetensors": bytes(20 * MB)})
    ready.delivery.prepare(ready.making.report, 0)
    write_json(ready.context.job.stop_path, {})
    began = time.monotonic()
    with pytest.raises(StoppedError):
        ready.delivery.deliver(ready.files, ready.making)
    assert time.monotonic() - began < 10 and hub.uploads.commits == []


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("", REPO, "HF_TOKEN: there is no Hub token. Create a token with write access"),
        ("hf_unknown", REPO, "HF_TOKEN: the Hub does not accept the token"),
        ("hf_reads", REPO, "HF_TOKEN: the token of ada can only read"),
        (TOKEN, "grace/tuned", r"the token is one of ada, who is not a member of grace\. Give ada/tuned"),
        (TOKEN, "lab/locked", "repo: the token may not write to lab/locked"),
        (TOKEN, "lab/full", r"repo: lab/full holds 2 files already \(README\.md, model\.safetensors\)\. Give another"),
    ],
)  # fmt: skip
def test_the_hub_is_asked_before_anything_is_made(
    session_settings: Settings, tiny_run: JobFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    token: str, repo: str, words: str,
) -> None:  # fmt: skip
    for name in ("lab/locked", "lab/full"):
        hub.repositories[name] = tmp_path / name
        hub.repositories[name].mkdir(parents=True)
    (tmp_path / "lab/full" / "README.md").write_text("mine")
    (tmp_path / "lab/full" / "model.safetensors").write_text("mine")
    hub.uploads.locked.add("lab/locked")
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    context = context_of(session_settings, tiny_run, to="hub", what="adapter", repo=repo, base=BASE_ID)
    with pytest.raises(InputError, match=words) as caught:
        export(context)
    assert not context.job.exports.exists() and hub.uploads.commits == [] and set(hub.requests) <= {
        "GET /api/whoami-v2", f"GET /api/models/{repo}", f"GET /api/models/{repo}/auth-check/write",
        f"GET /api/models/{BASE_ID}",
    }  # fmt: skip
    assert token == "" or token not in caught.value.sentence
    assert (tmp_path / "lab/full" / "README.md").read_text() == "mine"


def test_overwriting_replaces_names_and_removes_what_would_be_loaded_first(
    session_settings: Settings, tiny_run: JobFolder, hub: Hub, tmp_path: Path
) -> None:
    hub.repositories[REPO] = folder = tmp_path / "held"
    (folder / "inner").mkdir(parents=True)
    for name in ("README.md", "model.safetensors", "notes.txt", "inner/other.safetensors", ".gitattributes"):
        (folder / name).write_text("old")
    told = Ready(session_settings, tiny_run, SMALL, overwrite=True).put()
    assert (told["replaced"], told["removed"]) == (["README.md"], ["model.safetensors"])
    assert set(contents(folder)) == {*SMALL, "notes.txt", "inner/other.safetensors", ".gitattributes"}
    assert (folder / "README.md").read_bytes() == SMALL["README.md"]


def test_a_second_upload_of_the_same_sends_no_large_file(
    session_settings: Settings, tiny_run: JobFolder, hub: Hub
) -> None:
    Ready(session_settings, tiny_run, SMALL).put()
    arrived = hub.uploads.received
    told = Ready(session_settings, tiny_run, SMALL, overwrite=True).put()
    assert hub.uploads.received == arrived and told["sent"] == 0 and len(hub.uploads.commits) == 1


def test_a_hub_that_fails_is_a_sentence_and_what_was_made_stays(
    session_settings: Settings, tiny_run: JobFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Ready(session_settings, tiny_run, SMALL)
    ready.delivery.prepare(ready.making.report, 0)
    hub.uploads.locked.add(REPO)
    with pytest.raises(InputError, match=f"repo: the token may not write to {REPO}") as caught:
        ready.delivery.deliver(ready.files, ready.making)
    assert TOKEN not in caught.value.sentence and TOKEN.encode() not in written(ready.context)
    assert all(path.is_file() for path in ready.files.values())
    secret = "canary-of-a-mirror"
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{secret}@127.0.0.1:9")
    with pytest.raises(
        StudioError, match=r"could not look up ada/tuned: http://127\.0\.0\.1:9 did not respond"
    ) as caught:
        ready.delivery.prepare(ready.making.report, 0)
    assert secret not in caught.value.sentence and secret.encode() not in written(ready.context)


def test_names_and_tokens_are_looked_at_before_a_job_is_made(
    session_settings: Settings, tiny_run: JobFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (
        "",
        "tuned",
        "a/b/c",
        "../x",
        "ada/tuned.git",
        "ada/-x",
        "ada/x.",
        "a b/c",
        "ada/x--y",
        "ada/" + "x" * 100,
    ):
        with pytest.raises(InputError, match="repo"):
            require_repository(name)
    assert require_repository("ada/Tuned_1.0-b") == "ada/Tuned_1.0-b"
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    wish = ExportConfig(run=tiny_run.id, to="hub", what="merged", repo=REPO)
    with pytest.raises(InputError, match="there is no Hub token"):
        settled(wish, source_of(tiny_run), session_settings)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert settled(wish, source_of(tiny_run), session_settings) == wish
    with pytest.raises(InputError, match=r"a folder on this machine .* which nobody else can load"):
        settled(wish.model_copy(update={"what": "adapter"}), source_of(tiny_run), session_settings)


@pytest.mark.long
def test_a_run_is_uploaded_and_downloaded_again(
    session_settings: Settings, tiny_run: JobFolder, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it with a tiny model: merged, proven, uploaded; the download has the same files."""
    context = context_of(session_settings, tiny_run, to="hub", what="merged", repo=REPO, dtype="float32")
    export(context)
    report = json.loads((context.job.report / "export.json").read_text())
    entry = report["files"][0]
    assert (report["to"], entry["type"], entry["verdict"]) == ("hub", "merged", "as trained")
    assert report["delivered"]["sent"] >= entry["bytes"] > MB / 10
    begun = {one["phase"] for one in phases(context) if one["state"] == "begin"}
    events, _ = read_events(context.job.events_path, 0, 10_000_000)
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"], "checksums"} == begun
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    address = report["delivered"]["url"].removesuffix(f"/{REPO}")
    found = contents(Path(snapshot_download(REPO, cache_dir=tmp_path / "cache", endpoint=address)))
    del found[".gitattributes"]
    assert found == contents(context.job.exports / "tiny-run-merged")
    card = found["README.md"].decode()
    assert f'from_pretrained("{REPO}")' in card and "this folder" not in card
    assert TOKEN.encode() not in written(context)


def test_what_differs_is_not_uploaded(
    session_settings: Settings, tiny_run: JobFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The making is replaced by its verdict."""

    def make(self: AdapterExport) -> None:
        self.phases.append({"phase": "merging", "seconds": 0.1, "peak_bytes": 1})
        self.report["files"] = [{"file": "made", "verdict": "differs", "notes": ["mean KL 3"], "differences": []}]

    monkeypatch.setattr(AdapterExport, "make", make)
    monkeypatch.setattr(AdapterExport, "readme", lambda self: "")
    context = context_of(session_settings, tiny_run, to="hub", what="adapter", repo=REPO, base=BASE_ID, dtype="float16")
    with pytest.raises(StudioError, match=r"1 of 1 adapters differ .* made \(mean KL 3\)") as caught:
        export(context)
    assert "Nothing was put anywhere else" in caught.value.fix
    assert hub.uploads.commits == [] and REPO not in hub.repositories
