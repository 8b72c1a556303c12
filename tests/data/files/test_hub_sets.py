"""Sets of the Hub against a local server that speaks the Hub's API; the download itself runs in its own process."""

from __future__ import annotations

import datetime
import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig, DataSource
from studio.data.files.hubsets import HubSet, is_set_name, set_folder
from studio.data.prepare.pipeline import prepare_data
from studio.data.sources.locate import Located, absolute, fetch_sources, locate
from studio.data.worker.client import DataWorker
from studio.data.worker.operations import Operations
from studio.errors import InputError, StoppedError, StudioError
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import chat
from tests.support.servers.hubserver import COMMIT, Hub, serve_hub

CARD = """---
configs:
- config_name: sums
  data_files: [{split: train, path: sums.jsonl}]
- config_name: words
  data_files: [{split: train, path: words.jsonl}, {split: held, path: held.jsonl}]
---
"""


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "3")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def zipped(name: str, text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, text)
    return made.getvalue()


def write_repositories(folder: Path) -> dict[str, Path]:
    """Repositories as people make them: Parquet by split, a card with subsets, and those that are refused."""
    import pyarrow
    import pyarrow.parquet

    def repository(name: str, files: dict[str, str | bytes]) -> Path:
        for file, content in files.items():
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    found = {
        "subsets": repository(
            "subsets",
            {
                "README.md": CARD, "sums.jsonl": json.dumps(chat("1+1?", "2")) + "\n",
                "words.jsonl": '{"prompt": "sky", "completion": "blue"}\n',
                "held.jsonl": '{"prompt": "sun", "completion": "yellow, warm"}\n',
            },
        ),
        "script": repository("script", {"script.py": "raise SystemExit", "rows.jsonl": '{"text": "a"}\n'}),
        "pictures": repository("pictures", {"train/a.png": b"\x89PNG\r\n", "train/b.png": b"\x89PNG\r\n"}),
        "archive": repository("archive", {"train.zip": zipped("rows.jsonl", '{"text": "a"}\n')}),
        "empty": repository("empty", {"notes.bin": b"nothing"}),
        "broken": repository("broken", {"train.jsonl": '{"text": "a"}\n{"text": \n'}),
        "closed": repository("closed", {"train.jsonl": '{"text": "a"}\n'}),
        "elsewhere": repository(
            "elsewhere", {"README.md": f"---\nconfigs:\n- config_name: d\n  data_files: {folder}/secret.txt\n---\n"}
        ),
    }  # fmt: skip
    (folder / "secret.txt").write_text("not for you\n")
    for split, count in (("train", 700), ("test", 3)):
        rows = [{**chat(f"{split} {i}?", f"answer {i}"), "made": datetime.datetime(2026, 1, 1)} for i in range(count)]
        path = folder / "plain" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return {**found, "plain": folder / "plain"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = write_repositories(tmp_path / "repositories")
    repositories = {f"datasets/org/{name}": folder for name, folder in made.items()}
    server = Hub(repositories, gated=("datasets/org/closed",), moved={"datasets/old": "datasets/org/plain"})
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield server


def get(settings: Settings, path: str, report: Any = lambda *phase: None, **values: Any) -> Located:
    return locate(DataSource(path=path, **values), settings, confined=True, fetch=report)


def test_a_split_is_fetched_with_progress_and_read_mapped(hub: Hub, settings: Settings) -> None:
    phases: list[tuple[str, float, float | None]] = []
    found = get(settings, "org/plain", lambda *phase: phases.append(phase))
    size = (hub.repositories["datasets/org/plain"] / "data" / "train-00000-of-00001.parquet").stat().st_size
    assert phases[-1] == ("downloading org/plain", size, size)
    assert (found.count, found.commit) == (700, COMMIT)
    rows = list(found.rows(0))
    assert [number for number, _ in rows] == list(range(1, 701))
    assert rows[9][1]["messages"] == chat("train 9?", "answer 9")["messages"]
    assert rows[9][1]["made"] == "2026-01-01 00:00:00"
    assert next(found.rows(650)) == rows[650]
    assert list(found.rows(700)) == []
    assert not any("test-00000" in request for request in hub.requests), "another split was fetched too"
    left = [path.name for path in set_folder(HubSet("org/plain"), settings).rglob("*") if path.is_file()]
    assert not any(name.endswith(".parquet") for name in left), "the downloaded files are still there"

    # The second time nothing is asked of the network.
    hub.requests.clear()
    assert get(settings, "org/plain", None).count == 700 and not hub.requests


@pytest.mark.long
def test_subset_split_revision_and_an_old_name(hub: Hub, settings: Settings) -> None:
    held = get(settings, "org/subsets", subset="words", split="held")
    assert list(held.rows(0)) == [(1, {"prompt": "sun", "completion": "yellow, warm"})]
    assert [row["messages"][1]["content"] for _, row in get(settings, "org/subsets", subset="sums").rows(0)] == ["2"]
    assert get(settings, "old", revision=COMMIT, split="test").count == 3


REFUSED: list[tuple[str, dict[str, str], list[str]]] = [
    ("org/absent", {}, ["the Hub has no data set org/absent", "spelling", "HF_TOKEN"]),
    ("org/plain", {"revision": "v9"}, ["no revision 'v9'", "data.train.revision"]),
    ("org/plain", {"split": "tests"}, ["no split 'tests'", "Choose one of: train, test"]),
    ("org/plain", {"subset": "big"}, ["no subset 'big'", "Choose one of: default"]),
    ("org/subsets", {}, ["has several subsets", "Choose one of: sums, words"]),
    ("org/subsets", {"subset": "sum"}, ["no subset 'sum'", "Choose one of: sums, words"]),
    ("org/plain", {"folder": "data/none"}, ["has no data files in its folder 'data/none'"]),
    ("org/closed", {}, ["gated", "huggingface.co/datasets/org/closed", "HF_TOKEN"]),
    ("org/script", {}, ["script", "refs/convert/parquet"]),
    ("org/pictures", {}, ["unsupported format (imagefolder)", "Parquet"]),
    ("org/archive", {}, ["archive (train.zip)"]),
    ("org/empty", {}, ["has no data files", "JSON, CSV, Parquet"]),
    ("org/broken", {}, ["cannot be read as rows", "Choose another subset"]),
    ("org/elsewhere", {}, ["cannot be read as rows", "don't belong to org/elsewhere"]),
]
# All refusals in one process: each alone would load the libraries anew.
REFUSER = """
import json, sys
from studio.data.files.hubfetch import fetch_here
from studio.data.files.hubsets import HubSet
from studio.errors import InputError
from studio.settings import read_settings
for name, values in json.loads(sys.argv[1]):
    try:
        fetch_here(HubSet(name, **values), read_settings(), lambda *phase: None)
        print(json.dumps("fetched"))
    except InputError as error:
        print(json.dumps(error.sentence))
"""


def test_refusals_are_sentences(hub: Hub, settings: Settings) -> None:
    cases = json.dumps([(name, values) for name, values, _ in REFUSED])
    places = {name: str(settings.home / name) for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", REFUSER, cases], capture_output=True, text=True,
        env={**os.environ, **places, "STUDIO_HOME": str(settings.home), "USE_TORCH": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(REFUSED)
    for sentence, (name, _, words) in zip(said, REFUSED, strict=True):
        for word in words:
            assert word in sentence, name
    assert not any("rows.jsonl" in request for request in hub.requests), "something was fetched before the refusal"


def test_a_token_opens_a_gated_set_and_is_kept_nowhere(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_TopSecretToken")
    assert get(settings, "org/closed").count == 1
    assert hub.tokens == {"hf_TopSecretToken"}
    kept = [path for path in settings.home.rglob("*") if path.is_file() and b"TopSecretToken" in path.read_bytes()]
    assert kept == []


def test_no_network_and_offline_mode_say_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # Bound and not listening: nobody answers there.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StudioError, match="did not respond properly") as caught:
            get(settings, "org/plain")
    assert not isinstance(caught.value, InputError)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StudioError, match=r"not on this machine and HF_HUB_OFFLINE forbids.*Unset HF_HUB_OFFLINE"):
        get(settings, "org/plain")


def test_a_stop_ends_the_download_and_it_is_taken_up_again(hub: Hub, settings: Settings) -> None:
    def stop(name: str, done: float, total: float | None) -> None:
        if done > 8_000_000:
            raise StoppedError("a stop was asked for")

    folder = hub.repositories["datasets/org/closed"].parent / "large"
    folder.mkdir()
    for part, megabytes in ((0, 2), (1, 24)):
        rows = "".join(json.dumps({"text": "x" * 1_000_000}) + "\n" for _ in range(megabytes))
        (folder / f"train-{part:05}-of-00002.jsonl").write_text(rows)
    hub.repositories["datasets/org/large"] = folder
    hub.pause = 0.1
    with pytest.raises(StoppedError):
        get(settings, "org/large", stop)
    time.sleep(0.5)  # The server notices that nobody reads any more.
    hub.requests.clear()
    hub.pause = 0.0
    assert get(settings, "org/large").count == 26
    sent = [request.rpartition("/")[2] for request in hub.requests if request.startswith("GET /datasets")]
    assert sent == ["train-00001-of-00002.jsonl"], "a whole file was fetched again"


def test_a_file_wins_and_paths_are_no_sets(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("org/name", "imdb", "HuggingFaceH4/ultrachat_200k"):
        assert is_set_name(text)
    for text in ("rows.jsonl", "data/rows.parquet", "/org/name", "./org", "a/b/c", "../b", "~/x", "a b"):
        assert not is_set_name(text)
    with pytest.raises(InputError, match="no file 'org/name', and the Hub dataset org/name is not on this machine"):
        locate(DataSource(path="org/name"), settings)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").write_text('{"text": "mine"}\n')
    assert list(locate(DataSource(path="org/name"), settings).rows(0)) == [(1, {"text": "mine"})]
    assert absolute("org/name", settings) == str(tmp_path / "org" / "name")
    assert absolute("org/other", settings) == "org/other"
    with pytest.raises(InputError, match="'split' is for datasets given by their Hub id; a file has none"):
        locate(DataSource(path="org/name", split="test"), settings)


@pytest.mark.long
def test_a_run_trains_on_one_split_and_validates_on_another(hub: Hub, settings: Settings, tokenizer: Any) -> None:
    config = DataConfig(train=[DataSource(path="org/plain", rows=20)], validation="org/plain", validation_split="test")
    with pytest.raises(InputError, match="not on this machine yet"):
        prepare_data(config, MethodConfig(), tokenizer, settings)
    fetch_sources(config, settings, lambda *phase: None)
    done = prepare_data(config, MethodConfig(), tokenizer, settings)
    assert (len(done.train), len(done.validation)) == (20, 3)
    train, held = done.report.sources
    assert (train.rows, train.chosen, train.commit, held.part, held.rows) == (700, 20, COMMIT, "validation", 3)
    assert len(train.sha256) == 64 and train.bytes > 0


@pytest.mark.long
def test_the_page_fetches_and_looks(hub: Hub, settings: Settings, model_path: Path) -> None:
    data = {"train": [{"path": "org/plain"}], "validation": 0}
    ask = Operations(settings).run
    with pytest.raises(InputError, match="not on this machine yet"):
        ask("preview", {"data": data, "confined": True}, lambda *phase: None)
    worker = DataWorker(settings, confined=True)
    try:
        phases: list[str] = []
        made = worker.call("fetch", data=data, on_progress=lambda name, done, total: phases.append(name))
    finally:
        worker.close()
    assert made == {"sources": [{"path": "org/plain", "rows": 700, "commit": COMMIT}]}
    assert set(phases) == {"downloading org/plain"}
    operations = Operations(settings)
    seen = operations.run("preview", {"data": data, "row": 650, "model": str(model_path)}, lambda *phase: None)
    assert (seen["row"], seen["rows"], seen["format"]) == (650, 700, "messages")
    assert seen["raw"]["messages"][1]["content"] == "answer 649"
    inspected = operations.run(
        "inspect", {"path": "org/plain", "options": {"split": "train"}, "model": str(model_path)}, lambda *phase: None
    )
    assert (inspected["rows"], inspected["commit"]) == (700, COMMIT)


def test_the_light_side_loads_no_heavy_library() -> None:
    code = (
        "import sys, studio.data.sources.locate, studio.data.files.hubsets, studio.data.sources.datasetinfo\n"
        "print([name for name in ('datasets', 'pyarrow', 'huggingface_hub', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
