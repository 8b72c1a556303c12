"""Models from the Hub, against a local server that speaks the Hub's endpoints; nothing leaves this machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from studio.errors import InputError, StoppedError, StudioError
from studio.models.catalog import hub
from studio.models.catalog.hubcard import hub_card
from studio.models.catalog.names import known_models, resolve_model
from studio.settings import Settings
from tests.models.checkpoints import write_checkpoint
from tests.support.servers.hubserver import Hub, serve_hub


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it may have been imported with it
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "3")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A whole checkpoint of 26 MB (the library writes 10 MB at a time) with things beside it that are not fetched."""
    folder = write_checkpoint(tmp_path / "tiny", shards=2, vocab=800_000)
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "model.gguf").write_bytes(b"GGUF")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def test_download_fetches_what_is_needed_with_progress(
    tiny: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, float | None]] = []
    server = Hub({"org/tiny": tiny}, pause=0.05)
    server.told["org/tiny"] = {"cardData": {"license": "other", "license_name": "lab-1.0", "tags": ["x"]}}
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = resolve_model("org/tiny", settings, on_progress=lambda *event: seen.append(event))
    assert found.source == "hub"
    assert found.path == settings.models / "hub--org--tiny"
    marked = json.loads((found.path / "studio.json").read_text())
    assert (marked["license"], marked["license_name"]) == ("other", "lab-1.0"), "for the cards of what is made of it"
    fetched = {file.name for file in found.path.iterdir() if file.is_file()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors.index.json"} <= fetched
    assert not {"pytorch_model.bin", "model.gguf"} & fetched
    for shard in tiny.glob("*.safetensors"):
        assert (found.path / shard.name).read_bytes() == shard.read_bytes()
    sizes = [done for _, done, _ in seen]
    total = seen[-1][2]
    assert sizes == sorted(sizes) and sizes[-1] == total
    assert any(0 < done < (total or 0) for done in sizes), "no progress between start and end"

    # The second time nothing is asked of the network: the server is gone.
    assert resolve_model("org/tiny", settings).path == found.path
    info = next(info for info in known_models(settings) if info.name == "org/tiny")
    assert info.ready and info.source == "hub" and info.parameters


def test_stop_ends_the_download_and_it_goes_on_where_it_was(
    tiny: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str, done: float, total: float | None) -> None:
        if done > 8_000_000:
            raise StoppedError("a stop was asked for")

    server = Hub({"org/tiny": tiny}, pause=0.1)
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(StoppedError):
            resolve_model("org/tiny", settings, on_progress=stop)
        waiting = [info for info in known_models(settings) if info.name == "org/tiny"]
        assert [info.ready for info in waiting] == [False]
        server.pause, server.sent_bytes = 0.0, 0
        found = resolve_model("org/tiny", settings)
    assert found.path.is_dir()
    whole = sum(file.stat().st_size for file in tiny.glob("*.safetensors"))
    assert server.sent_bytes < whole, "what was already there was fetched again"


def test_broken_connection_is_taken_up_again(tiny: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Hub({"org/tiny": tiny})
    server.break_after = 12_000_000
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = resolve_model("org/tiny", settings)
    for shard in tiny.glob("*.safetensors"):
        assert (found.path / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.parametrize(
    ("name", "revision", "kind", "words"),
    [
        ("org/absent", "main", InputError, ["org/absent", "spelling", "HF_TOKEN"]),
        ("org/gated", "main", InputError, ["gated", "HF_TOKEN", "huggingface.co/org/gated"]),
        ("org/tiny", "v9", InputError, ["v9", "model.revision"]),
        ("org/pickled", "main", InputError, ["pickled", ".safetensors"]),
        pytest.param("org/gguf", "main", InputError, ["GGUF", "original"], marks=pytest.mark.long),
        pytest.param("org/adapter", "main", InputError, ["adapter", "base model"], marks=pytest.mark.long),
    ],
)
def test_refusals_are_sentences(
    name: str,
    revision: str,
    kind: type[StudioError],
    words: list[str],
    tiny: Path,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repositories = {"org/tiny": tiny}
    for other, file in (("pickled", "pytorch_model.bin"), ("gguf", "m.gguf"), ("adapter", "adapter_config.json")):
        folder = tmp_path / other
        folder.mkdir()
        (folder / file).write_text("{}")
        repositories[f"org/{other}"] = folder
    server = Hub(repositories, gated=("org/gated",))
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(kind) as caught:
            resolve_model(name, settings, revision=revision)
    for word in words:
        assert word in caught.value.sentence
    assert server.sent_bytes == 0, "something was fetched before the refusal"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A whole checkpoint of which a copy costs nothing."""
    return write_checkpoint(tmp_path / "small", shards=1, vocab=1000)


ACCEPT = "https://huggingface.co/org/gated"
SETTINGS = "https://huggingface.co/settings/tokens"


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", ["not signed in", f"Accept its terms on {ACCEPT} ", "hf auth login", "HF_TOKEN", SETTINGS]),
        ("hf_stranger", ["the account of your token has no access", f"{ACCEPT} with that account", "fine-grained"]),
        pytest.param("hf_waiting", ["has not been approved yet", ACCEPT], marks=pytest.mark.long),
        pytest.param("hf_mistyped", ["does not know the token in HF_TOKEN", SETTINGS], marks=pytest.mark.long),
    ],
)
def test_who_has_no_access_is_told_why_and_where_to_get_it(
    token: str, words: list[str], small: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Hub({"org/gated": small}, gated=("org/gated",))
    server.told["org/gated"] = {"gated": "auto"}
    server.known, server.members = {"hf_stranger", "hf_waiting", "hf_member"}, {"hf_member"}
    server.waiting = {"hf_waiting"}
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError) as caught:
            resolve_model("org/gated", settings)
        for word in words:
            assert word in caught.value.sentence
        assert token == "" or token not in caught.value.sentence, "a token is shown"
        if token != "hf_mistyped":
            assert "org/gated is gated" in caught.value.sentence
            assert hub_card("org/gated").refusal == StudioError(caught.value.what, fix=caught.value.fix).sentence
        # The remedy helps: with the token of a member the same model is fetched.
        monkeypatch.setenv("HF_TOKEN", "hf_member")
        assert (
            hub_card("org/gated").refusal == ""
            and (resolve_model("org/gated", settings).path / "config.json").is_file()
        )


def test_a_wrong_token_is_refused_for_open_models_too(
    small: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Hub({"org/tiny": small})
    server.known = {"hf_other"}
    (tmp_path / "token").write_text("hf_mistyped")
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
        for name in ("org/tiny", "org/absent"):
            with pytest.raises(InputError, match=r"does not know the token that hf auth login has saved.*or remove it"):
                resolve_model(name, settings)
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
        assert (resolve_model("org/tiny", settings).path / "config.json").is_file()


def test_no_network_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # Bound and not listening: nobody answers there.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StudioError) as caught:
            resolve_model("org/tiny", settings)
    assert not isinstance(caught.value, InputError)
    assert "did not respond properly" in caught.value.sentence and "smollm2-135m-instruct" in caught.value.sentence


def test_offline_mode_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StudioError, match="HF_HUB_OFFLINE"):
        resolve_model("org/tiny", settings)


def test_without_fetching_an_absent_model_is_an_error(settings: Settings) -> None:
    with pytest.raises(InputError, match="not on this machine yet"):
        resolve_model("org/tiny", settings, fetch=False)


def test_ids_and_folders(settings: Settings) -> None:
    assert hub.is_hub_id("Qwen/Qwen3-0.6B")
    for text in ("gpt2", "/a/b", "a/b/c", "../b", "a/..", "org/na me", "org--x/y", "org/"):
        assert not hub.is_hub_id(text)
    main, other = (hub.hub_folder(settings, "a/b", revision) for revision in ("main", "../../x"))
    assert main.parent == other.parent == settings.models and main != other
