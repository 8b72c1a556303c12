"""The streaming merge is PEFT's merge, to the last bit in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from studio.errors import InputError
from studio.export.gguf import merge, shards
from studio.export.gguf.checkpoint import weight_files
from studio.export.gguf.merge import merge_adapter
from studio.export.gguf.shards import Form
from tests.export.conftest import perturb

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora with patterns": {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {r"layers\.0.*k_proj": 3},
    },
    "dora": {"use_dora": True},
    "some layers": {"target_modules": ["q_proj", "v_proj"]},
    "with biases": {"bias": "lora_only"},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, with biases, in several shards."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True, tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny") / "base"
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="40KB")
    assert len(weight_files(folder)) > 1
    return folder


def make_adapter(base: Path, folder: Path, **options: Any) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options)
    wrapped = perturb(get_peft_model(model, config), 0.1)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad and (name.endswith(".bias") or "lora_embedding" in name):
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    return model.merge_and_unload(safe_merge=True).state_dict()


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


def no_report(done: float, total: float | None) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize("name", ADAPTERS)
def test_equal_to_peft_to_the_last_bit(name: str, tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "adapter", **ADAPTERS[name])
    answer = merge_adapter(tiny, adapter, tmp_path / "out", Form("float32"), no_report)
    assert answer["method"] == "streaming"
    ours, theirs = read(tmp_path / "out"), merged_by_peft(tiny, adapter)
    assert set(ours) == set(theirs)
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    before = read(tiny)
    assert any(not torch.equal(ours[key], before[key]) for key in ours), "the adapter must have changed something"


@pytest.mark.parametrize("options", [{"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa"}])
def test_what_is_not_covered_goes_through_peft(options: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "adapter", **options)
    answer = merge_adapter(tiny, adapter, tmp_path / "out", Form("float32"), no_report)
    assert answer["method"] == "peft"
    assert answer["reason"]
    ours, theirs = read(tmp_path / "out"), merged_by_peft(tiny, adapter)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("stored", [False, True], ids=["one tensor", "stored twice"])
@pytest.mark.parametrize("layers", [["q_proj", "lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]], ids=str)
def test_of_a_tensor_for_embedding_and_head_only_what_was_adapted_changes(
    layers: list[str], stored: bool, tiny: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    config = LlamaConfig.from_pretrained(tiny, tie_word_embeddings=True)
    model = LlamaForCausalLM(config)
    model.save_pretrained(base)
    if stored:
        tensors = load_file(base / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=layers)
    assert merge_adapter(base, adapter, tmp_path / "out", Form("float32"), no_report)["method"] == "peft"
    ids = torch.arange(20)[None]
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = loaded(ids).logits
    expected = PeftModel.from_pretrained(loaded, str(adapter)).eval()(ids).logits
    child = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    torch.testing.assert_close(child(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert not child.config.tie_word_embeddings and not torch.allclose(expected, plain, atol=1e-2)


def test_an_adapter_tensor_that_fits_nowhere_is_never_left_out(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    for half in ("A", "B"):
        key = f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight"
        tensors[key.replace("layers.0", "layers.9")] = tensors[key].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    delta = merge.read_delta(adapter, json.loads((adapter / "adapter_config.json").read_text()), {})
    with pytest.raises(merge.UncoveredError, match=r"layers\.9"):
        merge._stream(tiny, delta, tmp_path, Form("float32"), no_report)


def test_shards_are_bounded_and_indexed(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "adapter")
    merge_adapter(tiny, adapter, tmp_path / "out", Form("float32", 30_000), no_report)
    files = weight_files(tmp_path / "out")
    assert len(files) > 2
    assert all(file.stat().st_size < 40_000 or len(load_file(file)) == 1 for file in files)
    assert set(read(tmp_path / "out")) == set(read(tiny))
    assert not list((tmp_path / "out").glob("part-*"))
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_float16_keeps_vectors_and_what_it_cannot_hold() -> None:
    wide, form = torch.full((2, 2), 1e5), Form("float16")
    assert form.written(wide, torch.float32, 4).dtype == torch.float32
    assert form.written(wide / 10, torch.float32, 4).dtype == torch.float16
    assert form.written(torch.ones(4), torch.bfloat16, 2).dtype == torch.bfloat16
    assert form.written(torch.ones(4, dtype=torch.int64), torch.int64, 4).dtype == torch.int64


def test_a_uniform_checkpoint_keeps_only_what_the_base_stores_wider() -> None:
    form = Form("bfloat16", uniform=True)
    assert form.written(torch.ones(4), torch.float32, 4).dtype == torch.bfloat16
    assert form.written(torch.ones(4), torch.float32, 2).dtype == torch.float32  # such as a router's bias
    assert form.written(torch.ones(4), torch.bfloat16, 2).dtype == torch.bfloat16


def test_a_checkpoint_alone_is_divided_and_rounded(tiny: Path, tmp_path: Path) -> None:
    answer = merge_adapter(tiny, None, tmp_path / "out", Form("bfloat16", uniform=True), no_report)
    assert (answer["method"], answer["merged"]) == ("streaming", 0)
    ours, before = read(tmp_path / "out"), read(tiny)
    assert set(ours) == set(before)
    assert all(torch.equal(ours[key], before[key].bfloat16()) for key in ours)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_parts_of_a_file_are_read_one_after_the_other(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_PART_NUMBERS", 5000)
    parts, usual = shards.parts_of(weight_files(tiny))
    assert len(parts) > len(weight_files(tiny)) and usual == 4
    found = dict(shards.tensors_of(parts))
    assert all(torch.equal(found[name], tensor) for name, tensor in read(tiny).items())


def test_no_adapter_file_is_a_sentence(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        merge_adapter(tiny, adapter, tmp_path / "out", Form("float32"), no_report)


def test_a_damaged_adapter_is_a_sentence(tiny: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        merge_adapter(tiny, adapter, tmp_path / "out", Form("float32"), no_report)


def test_real_model_rounded_once(model_path: Path, adapter: Path, tmp_path: Path) -> None:
    """bfloat16 base, float16 out: each entry is the float32 sum, rounded once."""
    merge_adapter(model_path, adapter, tmp_path / "out", Form("float16"), no_report)
    ours, theirs = read(tmp_path / "out"), merged_by_peft(model_path, adapter)
    layers = [key for key in ours if "proj" in key]
    assert len(layers) == 210
    assert all(torch.equal(ours[key], theirs[key].half()) for key in layers)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == (adapter / "chat_template.jinja").read_text()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"
