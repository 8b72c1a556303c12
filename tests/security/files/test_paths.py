"""Every way to name a file, with every trick that is known, against the real application: none leads outside.

Beside the home lies a folder with a file that each reader would show if it could, with a text that must not appear in
any answer; after each try nothing outside has changed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient

from studio.config import RunConfig
from studio.data.quality.keep import Keep
from studio.errors import InputError
from studio.jobs import JobFolder
from studio.jobs.store.folder import create_job
from studio.models.catalog.hub import hub_folder
from studio.models.catalog.hubaccess import is_hub_id
from studio.settings import Settings
from tests.security.conftest import HERE, Handlers
from tests.support.everyday import everyday
from tests.ui.made_jobs import made_export, made_run

CANARY = "CANARY-4711"
UNEXPECTED = "An unexpected error"
# From the name of a file outside and the home to what is asked for.
Trick = Callable[[Path, Path], str]
UP = "../" * 12
TRICKS: dict[str, Trick] = {
    "absolute": lambda file, home: str(file),
    "double-slash": lambda file, home: f"/{file}",
    "dot-dot": lambda file, home: f"../{file.parent.name}/{file.name}",
    "many-dot-dot": lambda file, home: f"{UP}{file}",
    "through-the-home": lambda file, home: f"{home}/../{file.parent.name}/{file.name}",
    "through-a-folder-of-the-home": lambda file, home: f"{home}/uploads/../../{file.parent.name}/{file.name}",
    "through-the-demo": lambda file, home: f"demo/{UP}{file}",
    "doubled-dots": lambda file, home: f"....//....//{UP}{file}",
    "dot-dot-semicolon": lambda file, home: f"..;/..;/{file.parent.name}/{file.name}",
    "encoded": lambda file, home: quote(f"../{file.parent.name}/{file.name}", safe=""),
    "encoded-dots": lambda file, home: f"%2e%2e/{file.parent.name}/{file.name}",
    "encoded-twice": lambda file, home: quote(quote(f"../{file.parent.name}/{file.name}", safe=""), safe=""),
    "encoded-overlong": lambda file, home: f"%c0%ae%c0%ae%c0%af{file.parent.name}%c0%af{file.name}",
    "backslash": lambda file, home: f"..\\{file.parent.name}\\{file.name}",
    "encoded-backslash": lambda file, home: f"..%5c{file.parent.name}%5c{file.name}",
    "share-of-windows": lambda file, home: f"\\\\localhost\\c$\\{file.name}",
    "nul-at-the-end": lambda file, home: f"{file}\0.jsonl",
    "nul-inside": lambda file, home: f"{home}\0/../{file.parent.name}/{file.name}",
    "encoded-nul": lambda file, home: f"{file}%00.jsonl",
    "overlong-name": lambda file, home: f"{'a' * 5000}/{UP}{file}",
    "overlong-path": lambda file, home: f"{'a/../' * 2000}../{file.parent.name}/{file.name}",
    "link-to-a-file": lambda file, home: f"{home}/uploads/link.jsonl",
    "link-to-a-folder": lambda file, home: f"{home}/uploads/folder/{file.name}",
    "link-to-the-root": lambda file, home: f"{home}/uploads/root{file}",
    "link-that-ends-nowhere": lambda file, home: f"{home}/uploads/loop/{file.name}",
    "other-case": lambda file, home: str(file).upper(),
    "home-in-other-case": lambda file, home: f"{str(home).upper()}/../{file.parent.name}/{file.name}",
    "name-that-begins-as-the-home": lambda file, home: f"{home}-too/{file.name}",
    "wide-dots": lambda file, home: f"．．／{file.parent.name}／{file.name}",
    "trailing-blank": lambda file, home: f"{file} ",
    "line-break": lambda file, home: f"{home}\n/../{file.parent.name}/{file.name}",
    "home-of-a-user": lambda file, home: f"~root/../..{file}",
    "home-of-nobody": lambda file, home: f"~nobody-here/../..{file}",
    "proc-root": lambda file, home: f"/proc/self/root{file}",
    "proc-environ": lambda file, home: "/proc/self/environ",
    "file-address": lambda file, home: f"file://{file}",
}


@pytest.fixture(scope="module")
def secret(outside: Path, page_settings: Settings) -> Path:
    """The file outside, and links in the home that lead to it."""
    file = outside / "secret.jsonl"
    file.write_text(json.dumps({"prompt": CANARY, "completion": CANARY, CANARY: {"file_name": CANARY}}) + "\n")
    for name in ("secret.json", "secret.yaml", "dataset_info.json"):
        (outside / name).write_text(json.dumps({CANARY: {"file_name": "secret.jsonl"}}))
    (outside / "secret.py").write_text(f"def score(prompts, completions):\n    return '{CANARY}'\n")
    (outside / "config.json").write_text(json.dumps({"model_type": CANARY, "architectures": [CANARY]}))
    (outside / "model.safetensors").write_bytes(b"")
    twin = page_settings.home.with_name(f"{page_settings.home.name}-too")
    twin.mkdir()
    for path in outside.iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    uploads = page_settings.uploads
    uploads.mkdir(parents=True)
    (uploads / "link.jsonl").symlink_to(file)
    (uploads / "link.py").symlink_to(outside / "secret.py")
    (uploads / "link.json").symlink_to(outside / "dataset_info.json")
    (uploads / "folder").symlink_to(outside)
    (uploads / "root").symlink_to("/")
    (uploads / "loop").symlink_to(uploads / "loop")
    return file


@pytest.fixture(scope="module")
def job(page_settings: Settings, secret: Path) -> JobFolder:
    """A run with an export, whose folder has links that lead outside."""
    run = made_run(page_settings.jobs)
    export = made_export(page_settings.jobs, run)
    (export.exports / "secret.jsonl").symlink_to(secret)
    (export.exports / "folder").symlink_to(secret.parent)
    return export


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file with its size and time, for finding out whether anything was written."""
    found = {path: path.lstat() for path in folder.iterdir()}
    return {path.name: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def refused(answer: httpx.Response) -> None:
    """The answer tells nothing of the file, and is a sentence rather than a bug of ours."""
    assert CANARY not in answer.text
    assert "STUDIO_" not in answer.text.replace("STUDIO_ROOTS", "")  # of an environment
    assert UNEXPECTED not in answer.text and "Traceback" not in answer.text


DAILY = ("absolute", "dot-dot", "encoded", "nul-at-the-end", "link-to-a-file")


@pytest.fixture(params=everyday(TRICKS, *DAILY))
def trick(request: pytest.FixtureRequest, secret: Path, page_settings: Settings) -> Callable[[str], str]:
    """The trick for a file outside, by the ending of its name."""

    def make(ending: str) -> str:
        return TRICKS[request.param](secret.with_suffix(ending), page_settings.home).replace(
            "link.jsonl", f"link{ending}"
        )

    return make


@pytest.fixture(autouse=True)
def nothing_outside_changes(secret: Path, page_settings: Settings) -> object:
    """Whatever is tried, the folders around the home stay as they are."""
    before = state_of(secret.parent), {path.name for path in page_settings.home.parent.iterdir()}
    yield
    assert (state_of(secret.parent), {path.name for path in page_settings.home.parent.iterdir()}) == before


def test_there_are_enough_tricks() -> None:
    assert len(TRICKS) >= 20


def test_addresses(trick: Callable[[str], str], signed_in: TestClient, job: JobFolder) -> None:
    """Routes of ours and of gradio, with the trick as it is and encoded."""
    text = trick(".jsonl")
    raw = "".join(
        letter if letter.isprintable() and letter.isascii() else quote(letter, errors="replace") for letter in text
    )
    for part in {raw.replace("\\", "%5c").replace(" ", "%20"), quote(text, safe="", errors="replace")}:
        for address in (
            f"/gradio_api/file={part}", f"/file={part}", f"/gradio_api/file/{part}", f"/static/{part}",
            f"/assets/{part}", f"/svelte/{part}", f"/studio/{part}", f"/api/jobs/{part}", f"/api/jobs/{part}/log",
            f"/api/jobs/{part}/events", f"/api/jobs/{job.id}/files/{part}", f"/api/jobs/{job.id}/{part}",
            f"/api/data/{part}/profile", f"/api/data/page/{part}", f"/pwa_icon/{part}", f"/gradio_api/stream/{part}",
            f"/gradio_api/upload_progress/{part}", f"/{part}",
        ):  # fmt: skip
            answer = signed_in.get(f"{HERE}{address}")
            refused(answer)
            # The page itself answers only where the address was shortened to nothing else before it was sent.
            assert answer.status_code in (307, 400, 403, 404, 405, 422, 500) or answer.url.path in ("/", ""), address
            assert answer.status_code != 500 or answer.text == "Internal Server Error", address


def test_data_sources(trick: Callable[[str], str], handlers: Handlers) -> None:
    """The field for a path, the list of files of a run, its validation, and entries of a dataset_info.json."""
    demo = [{"path": "demo/train.jsonl"}]
    for text in (trick(".jsonl"), f"{trick('.json')}:{CANARY[:6]}", f"{trick('.json')}:other"):
        added = handlers.call("add_path", text, demo, "0.1")
        refused(added)
        assert added.status_code == 200 and added.json()["data"][3], "no sentence says why"
        source = [{"path": text, "format": "auto"}]
        refused(handlers.form("update", data__train=source, meta=""))
        refused(handlers.form("update", data__validation=text, meta=""))
        refused(handlers.form("count", data__train=source))
        started = handlers.form("start", data__train=source, meta="")
        refused(started)
        assert started.status_code == 500, "a run over it was started"


def test_a_file_that_is_not_there_tells_nothing_of_its_folder(
    handlers: Handlers, page_settings: Settings, secret: Path
) -> None:  # fmt: skip
    """The sentence about a missing file names those beside it, but to the page only where it may read."""
    model = page_settings.models / "made"
    model.mkdir(parents=True)
    for missing, told in ((secret.with_name("secrex.jsonl"), False), (page_settings.uploads / "linx.jsonl", True)):
        source = [{"path": str(missing), "format": "auto"}]
        for name, more in (("update", {"meta": ""}), ("start", {"meta": ""}), ("count", {})):
            answer = handlers.form(name, model__path=str(model), data__train=source, **more)
            refused(answer)
            assert ("link.jsonl" in answer.text) is told and "secret.json" not in answer.text, name
    model.rmdir()


def test_models_adapters_and_reward_files(trick: Callable[[str], str], handlers: Handlers) -> None:
    text = trick(".jsonl")
    # The folder outside; a link to a file stands for itself.
    folder = text if text.endswith("link.jsonl") else text.rpartition("/")[0] or text
    shown = handlers.call("show", folder, "main")
    refused(shown)
    assert shown.json()["data"][0]["state"] != "ready"
    tries = [
        {"model__path": folder}, {"tuning__adapter": folder}, {"tuning__adapter": trick(".jsonl")},
        {"method__name": "grpo", "method__rewards": "python", "method__reward_python": f"{trick('.py')}:score"},
        {"method__name": "grpo", "method__rewards": "json_schema", "method__reward_schema": trick(".json")},
        {"method__name": "ppo", "method__rewards": "model", "method__reward_model": folder},
    ]  # fmt: skip
    for options in tries:
        refused(handlers.form("update", **options, meta=""))
        refused(handlers.form("preview", **options, meta=""))
        refused(handlers.form("count", **options))
        started = handlers.form("start", **options, meta="")
        refused(started)
        assert started.status_code == 500, "a run with it was started"


def test_a_link_in_a_model_folder(handlers: Handlers, page_settings: Settings, secret: Path) -> None:
    """The folder may be read, a file in it leads out: neither its content nor what it holds is told."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        folder = page_settings.home / "models" / f"linked-{name}"
        folder.mkdir(parents=True)
        (folder / name).symlink_to(secret.parent / ("config.json" if name == "tokenizer.json" else name))
        shown = handlers.call("show", str(folder), "main")
        refused(shown)
        assert shown.json()["data"][0]["state"] != "ready"
        for call in ("update", "start"):
            answer = handlers.form(call, model__path=str(folder), meta="")
            refused(answer)
            assert "points outside" in answer.text
        refused(handlers.form("preview", model__path=str(folder), meta=""))
        refused(handlers.form("count", model__path=str(folder)))


def test_files_that_nobody_uploaded(trick: Callable[[str], str], handlers: Handlers) -> None:
    """A value of a component may name uploaded files only, also where it is not a file's component."""
    for ending, name, more in ((".jsonl", "take_upload", ([], "0.1")), (".yaml", "load_file", ())):
        file = {"path": trick(ending), "meta": {"_type": "gradio.FileData"}, "orig_name": f"x{ending}"}
        answer = handlers.call(name, file, *more)
        refused(answer)
        assert answer.status_code == 500
    answer = handlers.call("add_path", "demo/train.jsonl", [file], "0.1")
    refused(answer)
    assert answer.status_code == 500


def test_rows_jobs_and_keys(trick: Callable[[str], str], handlers: Handlers, job: JobFolder) -> None:
    """What names a job, rows to evaluate with, or a file to chat with is looked up, never opened."""
    text = trick(".jsonl")
    run = str(job.request.config["run"])
    for name, values in {
        "refresh": (text,), "submit": (run, text, "25"), "refresh_2": (text,),
        "refresh_3": (text,),
        "restart": (run, f"gguf/{text}", f"gguf/{job.id}/{text}"),
    }.items():  # fmt: skip
        refused(handlers.call(name, *values))
    for changes in ({"job-id": run, "export-rows": text}, {"export-source": text}):
        answer = handlers.fields("queue_export", changes)
        refused(answer)
        assert answer.status_code != 200
    for event in ({"job": job.id, "file": text}, {"job": text, "file": "demo-f16.gguf"}):
        refused(handlers.call("chat_with", run, event=event))
    assert len(list(job.path.parent.iterdir())) == 2, "a job was started"


def test_names_of_uploads(
    trick: Callable[[str], str], signed_in: TestClient, handlers: Handlers, page_settings: Settings
) -> None:
    """An uploaded file keeps the last part of its name at most, below the home."""
    name = trick(".jsonl").encode("utf-8", errors="replace").decode()
    row = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    answer = signed_in.post("/gradio_api/upload", files={"files": (name, row)})
    if answer.status_code != 200:
        return  # refused as a whole
    (sent,) = answer.json()
    below = Path(sent).resolve()
    assert below.is_relative_to(page_settings.temporary / "gradio") and below.read_text() == row
    file = {"path": sent, "meta": {"_type": "gradio.FileData"}, "orig_name": name}
    kept = handlers.call("take_upload", file, [], "0.1")
    if kept.status_code == 200 and kept.json()["data"][2] == "":
        path = Path(kept.json()["data"][0][-1]["path"])
        assert path.parent == page_settings.uploads and path.resolve() == path and path.read_text() == row
        path.unlink()


def test_names_of_results(trick: Callable[[str], str], page_settings: Settings, tmp_path: Path) -> None:
    """A run, a cleaned copy, a set on the Hub and a downloaded model get a name, not a place."""
    text = trick("")
    job = create_job(tmp_path / "jobs", "train", text, RunConfig().model_dump(mode="json"))
    assert job.path.parent == tmp_path / "jobs" and list(tmp_path.iterdir()) == [tmp_path / "jobs"]
    with pytest.raises(InputError, match="is not a name"):
        Keep.checked(text, "jsonl", (), False)
    assert not is_hub_id(text) and not is_hub_id(text, owner=False)
    assert hub_folder(page_settings, "org/name", text).parent == page_settings.models


def test_a_real_upload_is_taken(signed_in: TestClient, handlers: Handlers, page_settings: Settings) -> None:
    """The same way without a trick, so that the refusals above mean something; a name in an archive means nothing."""
    packed = page_settings.home / "named.jsonl.gz"
    with packed.open("wb") as raw, gzip.GzipFile(f"../../{CANARY}.jsonl", "wb", fileobj=raw) as file:
        file.write(b'{"prompt": "a", "completion": "b"}\n')
    (sent,) = signed_in.post("/gradio_api/upload", files={"files": (packed.name, packed.read_bytes())}).json()
    value = {"path": sent, "meta": {"_type": "gradio.FileData"}, "orig_name": packed.name}
    answer = handlers.call("take_upload", value, [], "0.1")
    assert answer.json()["data"][0][-1]["path"] == str(page_settings.uploads / packed.name)
    assert not list(page_settings.home.rglob(f"*{CANARY}*"))
    assert handlers.call("add_path", packed.name, [], "0.1").json()["data"][3] == ""


def test_what_a_browser_sent_is_not_read_by_its_path(signed_in: TestClient, handlers: Handlers) -> None:
    """Otherwise whoever signs in could send a file of code and name it as a reward."""
    code = f"def score(prompts, completions):\n    return '{CANARY}'\n"
    (sent,) = signed_in.post("/gradio_api/upload", files={"files": ("reward.py", code)}).json()
    assert Path(sent).read_text() == code
    options = {"method__name": "grpo", "method__rewards": "python", "method__reward_python": f"{sent}:score"}
    answer = handlers.form("update", **options, method__trust_reward_code=True, meta="")
    refused(answer)
    assert "may not read" in answer.text


def test_links_of_a_job_are_no_downloads(signed_in: TestClient, job: JobFolder) -> None:
    names = {file["name"] for file in signed_in.get(f"/api/jobs/{job.id}").json()["files"]}
    assert names >= {"export.json", "demo-f16.gguf"} and not names & {"secret.jsonl", "folder"}
    refused(signed_in.get(f"/api/jobs/{job.id}/files/secret.jsonl"))


def test_entries_of_a_dataset_info_lead_nowhere_else(
    handlers: Handlers, page_settings: Settings, secret: Path
) -> None:  # fmt: skip
    described = page_settings.uploads / "dataset_info.json"
    names = {
        "absolute": str(secret),
        "up": "../../outside/secret.jsonl",
        "link": "link.jsonl",
        "linked": "folder/secret.jsonl",
    }
    described.write_text(json.dumps({name: {"file_name": file} for name, file in names.items()}))
    for name in names:
        added = handlers.call("add_path", f"{described}:{name}", [], "0.1")
        refused(added)
        assert "may not read" in added.json()["data"][3]
    described.unlink()
