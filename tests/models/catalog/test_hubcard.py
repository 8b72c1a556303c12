"""What the Hub says of a model before it is downloaded, and in what time; against a local server that speaks for it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from studio.errors import InputError, StudioError
from studio.models.catalog.hubcard import SECONDS, find_models, hub_card
from tests.conftest import run_studio
from tests.models.checkpoints import write_checkpoint
from tests.support.servers.hubserver import COMMIT, Hub, serve_hub


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it may have been imported with it
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "tiny", shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    return folder


def test_size_license_and_parameters(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Hub({"org/tiny": tiny})
    server.told["org/tiny"] = {
        "cardData": {"license": "apache-2.0"}, "safetensors": {"parameters": {"BF16": 1234}, "total": 1234}
    }  # fmt: skip
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        card = hub_card("org/tiny")
    fetched = [file for file in tiny.iterdir() if file.name != "pytorch_model.bin"]
    assert card.bytes == sum(file.stat().st_size for file in fetched)
    assert (card.license, card.parameters, card.gated, card.refusal) == ("apache-2.0", 1234, "", "")
    assert server.sent_bytes == 0, "nothing is downloaded for it"


def test_a_license_stands_in_the_tags_of_models_without_a_card(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Hub({"org/tiny": tiny})
    server.told["org/tiny"] = {"tags": ["license:mit"]}
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert hub_card("org/tiny").license == "mit"


@pytest.mark.parametrize(("token", "locked"), [("", True), ("hf_secret", False)])
def test_a_gated_model_is_open_to_a_token(
    token: str, locked: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    server = Hub({"org/tiny": tiny}, gated=("org/tiny",))
    server.told["org/tiny"] = {"gated": "manual"}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        card = hub_card("org/tiny")
    assert bool(card.refusal) is card.as_dict()["locked"] is locked and "approve" in card.gated


def test_what_cannot_be_trained_is_said_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF")
    with serve_hub(Hub({"org/gguf": folder})) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(InputError, match="GGUF"):
            hub_card("org/gguf")
        with pytest.raises(InputError, match="spelling"):
            hub_card("org/absent")


def test_no_network_is_said_in_words_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    began = time.monotonic()
    with pytest.raises(StudioError) as caught:
        hub_card("org/tiny")
    assert time.monotonic() - began < SECONDS + 0.5
    assert "gaierror" not in caught.value.sentence
    assert "no network" in caught.value.sentence or "not answered" in caught.value.sentence


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(StudioError, match="answer"):
            hub_card("org/tiny", seconds=0.5)
        assert time.monotonic() - began < 1.5


def test_search(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub(Hub({"org/tiny-chat": tiny, "org/other": tiny})) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = find_models("tiny")
    assert [one["name"] for one in found] == ["org/tiny-chat"]
    assert found[0]["downloads"] == 7 and found[0]["gated"] is False


def cached(home: Path, model: Path, whole: bool = True) -> dict[str, str]:
    """Put a model into a cache of huggingface_hub's form, as other tools leave it; returns the environment for it."""
    repository = home / "hub" / "models--org--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(model.iterdir())):
        if not whole and file.name.endswith("00002-of-00002.safetensors"):
            continue
        blob = repository / "blobs" / f"{number:040}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(home / "hub")}


def test_a_model_of_the_cache_is_listed_and_taken_without_a_network(tiny: Path, tmp_path: Path) -> None:
    env = cached(tmp_path / "hf", tiny)
    home = tmp_path / "home"
    listed = json.loads(run_studio("models", "list", "--json", home=home, **env).stdout)["models"]
    assert [one["here"] for one in listed if one["name"] == "org/tiny"] == ["cached"]
    done = run_studio("models", "download", "org/tiny", "--json", home=home, **env)
    assert done.code == 0, done.stderr
    folder = Path(json.loads(done.stdout)["path"])
    for file in tiny.glob("*.safetensors"):
        assert (folder / file.name).read_bytes() == file.read_bytes()
        assert not (folder / file.name).is_symlink()
    assert not (folder / "pytorch_model.bin").exists()
    listed = json.loads(run_studio("models", "list", "--json", home=home, **env).stdout)["models"]
    assert [one["here"] for one in listed if one["name"] == "org/tiny"] == ["ready"]


def test_half_a_model_of_the_cache_is_not_taken(tiny: Path, tmp_path: Path) -> None:
    env = cached(tmp_path / "hf", tiny, whole=False)
    done = run_studio("models", "download", "org/tiny", home=tmp_path / "home", **env)
    assert done.code == 1 and "HF_HUB_OFFLINE" in done.stderr


@pytest.mark.long
def test_commands_against_a_hub(tiny: Path, tmp_path: Path) -> None:
    server = Hub({"org/tiny": tiny})
    server.told["org/tiny"] = {"cardData": {"license": "apache-2.0"}}
    home = tmp_path / "home"
    with serve_hub(server) as address:
        env = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        shown = run_studio("models", "show", "org/tiny", home=home, **env)
        assert shown.code == 0 and "apache-2.0" in shown.stdout
        found = run_studio("models", "search", "tiny", "--json", home=home, **env)
        assert [one["name"] for one in json.loads(found.stdout)["models"]] == ["org/tiny"]
        done = run_studio("models", "download", "org/tiny", home=home, **env)
        assert done.code == 0 and str(home) in done.stdout.replace("\n", "")
    wrong = run_studio("models", "show", "tiny", home=home)
    assert wrong.code == 2 and "org/name" in wrong.stderr
