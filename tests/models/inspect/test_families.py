"""Each family's layers, read from headers alone, are those that transformers loads and PEFT adapts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from studio.errors import InputError
from studio.models.catalog.quiet import quiet_libraries
from studio.models.inspect.families import FAMILIES, Family, family_of, rank_guide
from studio.models.inspect.headers import Tensor, read_config, read_tensors
from studio.models.inspect.shape import ModelShape
from tests.models.tiny import ARCHITECTURES, save_tiny

RANK = 2
# transformers 5 gives Mixtral's experts another place than the file has.
RENAMED = (("block_sparse_moe", "mlp"),)
# Adapted by PEFT under all-linear; the shape counts it within the first stack of experts, since an adapter on a
# router, which has one output an expert, must not limit the rank.
ROUTER = "mlp.gate.weight"


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    quiet_libraries()


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param)


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def adapted(folder: Path, targets: str | list[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the experts' parameters
        return get_peft_model(load(folder), LoraConfig(r=RANK, target_modules=targets, task_type="CAUSAL_LM"))


def adapted_names(model: Any) -> set[str]:
    """What has an adapter: a layer's name, or for a parameter of several experts the parameter's."""
    names = set()
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, ParamWrapper):
            names.add(f"{name.replace('.base_layer', '')}.{module.parameter_name}")
        elif isinstance(module, LoraLayer):
            names.add(name)
    return names


def ours(shape: ModelShape, targets: str | list[str]) -> set[str]:
    names = {linear.name for linear in shape.targets(targets)}
    for old, new in RENAMED:
        names = {name.replace(old, new) for name in names}
    return names


def size(shape: ModelShape, targets: str | list[str]) -> int:
    return sum(RANK * (linear.inputs + linear.outputs) for linear in shape.targets(targets))


def trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_every_family_has_a_tiny_model() -> None:
    named = {kind for family in FAMILIES for kind in family.model_types}
    assert {kind for kind in named if kind in CONFIG_MAPPING} == set(ARCHITECTURES)
    assert named - set(ARCHITECTURES) == {"qwen"}, "its code comes with the model"


def test_the_header_tells_what_is_loaded(checkpoint: Path) -> None:
    shape, model = ModelShape.from_folder(checkpoint), load(checkpoint)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (shape.hidden, shape.layers, shape.heads, shape.vocab) == (32, 2, 4, 128)
    layers = {
        name: module for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
    }  # fmt: skip
    layers.pop("lm_head", None)
    layers.pop("embed_out", None)
    assert {linear.name for linear in shape.linears} == set(layers)
    for linear in shape.linears:
        module = layers[linear.name]
        sides = (module.nx, module.nf) if hasattr(module, "nf") else (module.in_features, module.out_features)
        assert (linear.inputs, linear.outputs) == sides, linear.name


def test_all_linear_is_what_peft_means(checkpoint: Path) -> None:
    shape, model = ModelShape.from_folder(checkpoint), adapted(checkpoint, "all-linear")
    names = adapted_names(model)
    routers = {name for name in names if name.endswith(ROUTER)}
    assert bool(routers) == bool(shape.experts)
    assert ours(shape, "all-linear") == names - routers
    assert size(shape, "all-linear") == trainable(model)


def test_the_targets_exist_and_learn(checkpoint: Path) -> None:
    family = family_of(read_config(checkpoint))
    assert family is not None and checkpoint.name.startswith(family.model_types)
    shape, model = ModelShape.from_folder(checkpoint), adapted(checkpoint, list(family.targets))
    assert {linear.suffix for linear in shape.targets(list(family.targets))} == set(family.targets)
    assert adapted_names(model) == ours(shape, list(family.targets))
    assert trainable(model) == size(shape, list(family.targets))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.01)
    tokens = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(3):
        loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    after = {name: p for name, p in model.named_parameters() if p.requires_grad and "lora_B" in name}
    assert all(weight.abs().max() > 0 for weight in after.values()), "every B left its zero"


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3"])
def test_layers_that_peft_takes_for_experts_are_refused(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, kind)
    shape = ModelShape.from_folder(folder)
    assert any(linear.name.endswith("shared_experts.up_proj") for linear in shape.linears)
    with pytest.raises(InputError, match=r"'up_proj' would adapt all experts.*kv_b_proj"):
        shape.targets(["o_proj", "up_proj"])
    named = ["o_proj", "gate_proj", "up_proj", "down_proj"]
    assert {name.rpartition(".")[2] for name in adapted_names(adapted(folder, named))} == {
        "o_proj", "gate_up_proj", "down_proj",
    }, "what the refusal is for; when PEFT mends it, it can go"  # fmt: skip


def test_qwen_1_has_its_layers() -> None:
    # From the model's own code (Qwen/Qwen-1_8B, modeling_qwen.py): gate and up are w2 and w1, half as wide as the
    # config's intermediate_size.
    config = {
        "model_type": "qwen", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 128,
        "intermediate_size": 96, "seq_length": 64, "tie_word_embeddings": False,
    }  # fmt: skip
    shapes = {
        "transformer.wte": (128, 32), "transformer.h.0.ln_1": (32,), "transformer.h.0.attn.c_attn": (96, 32),
        "transformer.h.0.attn.c_proj": (32, 32), "transformer.h.0.mlp.w1": (48, 32),
        "transformer.h.0.mlp.w2": (48, 32), "transformer.h.0.mlp.c_proj": (32, 48), "lm_head": (128, 32),
    }  # fmt: skip
    shape = ModelShape.from_parts(config, [Tensor(f"{name}.weight", "BF16", sides) for name, sides in shapes.items()])
    family = family_of(config)
    assert family is not None and {linear.suffix for linear in shape.linears} == set(family.targets)
    assert (shape.intermediate, shape.context, shape.tied) == (48, 64, False)


def test_what_is_stored_but_not_loaded_is_not_counted(tmp_path: Path) -> None:
    # Old GPT-2 files keep causal masks; DeepSeek-V3 has a block after the last and scales of its 8-bit weights.
    gpt = save_tiny(tmp_path / "gpt2", "gpt2")
    more = [Tensor("h.0.attn.bias", "F32", (1, 1, 256, 256)), Tensor("h.0.attn.masked_bias", "F32", ())]
    assert with_more(gpt, more) == ModelShape.from_folder(gpt).parameters
    deepseek = save_tiny(tmp_path / "deepseek", "deepseek_v3")
    more = [
        Tensor("model.layers.2.eh_proj.weight", "BF16", (32, 64)),
        Tensor("model.layers.1.self_attn.o_proj.weight_scale_inv", "F32", (1, 1)),
    ]
    assert with_more(deepseek, more) == ModelShape.from_folder(deepseek).parameters
    old = [Tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (4,))]
    llama = save_tiny(tmp_path / "llama", "llama")
    assert with_more(llama, old) == ModelShape.from_folder(llama).parameters


def with_more(folder: Path, more: list[Tensor]) -> int:
    return ModelShape.from_parts(read_config(folder), read_tensors(folder) + more).parameters


def test_widths_that_a_config_does_not_say_in_one_word(tmp_path: Path) -> None:
    def shape(kind: str, **changes: Any) -> ModelShape:
        return ModelShape.from_folder(save_tiny(tmp_path / kind, kind, **changes))

    assert shape("falcon").kv_heads == 1, "multi-query"
    assert shape("falcon", new_decoder_architecture=True, num_kv_heads=2).kv_heads == 2
    assert shape("deepseek_v3").head_dim == 16, "with and without position"
    assert shape("mixtral").intermediate == 2 * 48, "of two experts"
    assert shape("deepseek_v2").intermediate == 3 * 24, "of two experts and a shared one"
    assert shape("qwen2_moe").intermediate == 2 * 24 + 40


def test_family_of() -> None:
    def name(config: dict[str, Any]) -> str | None:
        family: Family | None = family_of(config)
        return family.name if family else None

    assert name({"model_type": "llama"}) == "Llama"
    assert name({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}) == "Gemma"
    assert name({"model_type": "mamba"}) is None and name({}) is None
    kinds = [kind for family in FAMILIES for kind in family.model_types]
    assert len(kinds) == len(set(kinds)) and len({family.name for family in FAMILIES}) == len(FAMILIES)
    lite, large = ({"model_type": "deepseek_v2", "q_lora_rank": rank} for rank in (None, 1536))
    assert "q_proj" in family_of(lite).targets and "q_a_proj" not in family_of(lite).targets  # type: ignore[union-attr]
    assert "q_proj" not in family_of(large).targets  # type: ignore[union-attr]


def test_rank_guide() -> None:
    assert [row.rank for row in rank_guide()] == [8, 16, 32, 64, 128]
    assert all(row.use for row in rank_guide())
