"""Tiny random checkpoints of the families that people train, each with the tokenizer that its models have.

The weights are such that the gates mean something. Every product keeps the size of what it multiplies, so all blocks
matter to the logits, and a wrong rope, mask or permutation moves KL far beyond the limits: `test_families` shows it.
A few tokens are much likelier than the others, as in a trained model: among 100,000 equals the two likeliest are so
near to each other that the rounding of q8_0 alone swaps a tenth of them. Experts are alike in most, since random
routers nearly tie now and then, and an expert more or less is no error then.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoConfig, AutoModelForCausalLM

from tests.install_tokenizers import folder_of

LIKELY, LIKELY_SPREAD, OTHER_SPREAD = 8, 6.0, 0.5  # tokens, and standard deviations of logits
_SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
_PLAIN = {name: value for name, value in _SIZES.items() if name not in ("num_key_value_heads", "head_dim")}
_GROUPED = {name: value for name, value in _SIZES.items() if name != "head_dim"}
_GEMMA = {**_SIZES, "query_pre_attn_scalar": 16, "tie_word_embeddings": True, "sliding_window": 64}
_EXPERTS: dict[str, Any] = {"moe_intermediate_size": 64, "num_experts_per_tok": 2}
_LATENT: dict[str, Any] = {
    **_PLAIN, **_EXPERTS, "num_key_value_heads": 4, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
    "v_head_dim": 32, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message.role == 'assistant' else message.role %}"
    "<start_of_turn>{{ role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_INST = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_PHI3 = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_PHI3_TOKENS = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
    "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip


@dataclass(frozen=True)
class FamilyCase:
    """One family to take through everything.

    Attributes:
        model_type: transformers' name.
        tokenizer: name in `tests.install_tokenizers`; "embedded" for the embedded model's.
        sizes: of its config.
        sentencepiece: the family's repositories hold tokenizer.model beside tokenizer.json.
        settings: changes of tokenizer_config.json, the template among them.
        tokens: added as special tokens, from the end of the vocabulary on.
    """

    model_type: str
    tokenizer: str
    sizes: dict[str, Any] = field(default_factory=dict)
    sentencepiece: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()


CASES: dict[str, FamilyCase] = {
    "Llama 3.2": FamilyCase("llama", "llama3_2", {**_SIZES, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }}),
    "Mistral": FamilyCase("mistral", "mistral_nemo", {**_SIZES, "sliding_window": None}),
    "Mixtral": FamilyCase(
        "mixtral", "llama2", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        sentencepiece=True, settings={"chat_template": _INST},
    ),
    "Qwen 2.5": FamilyCase("qwen2", "qwen2_5", {**_GROUPED, "tie_word_embeddings": True}),
    "Qwen 3": FamilyCase("qwen3", "qwen3", {**_SIZES, "tie_word_embeddings": True}),
    "Qwen 3 MoE": FamilyCase(
        "qwen3_moe", "qwen3", {**_SIZES, **_EXPERTS, "num_experts": 4, "norm_topk_prob": True}
    ),
    "Gemma 2": FamilyCase(
        "gemma2", "gemma2", _GEMMA, sentencepiece=True, settings={"chat_template": _GEMMA_TEMPLATE}
    ),
    "Gemma 3": FamilyCase("gemma3_text", "gemma3", _GEMMA, sentencepiece=True),
    "Phi-3": FamilyCase(
        "phi3", "llama2", _GROUPED, sentencepiece=True, tokens=_PHI3_TOKENS,
        settings={"chat_template": _PHI3, "eos_token": "<|end|>", "pad_token": "<|endoftext|>"},
    ),
    "Phi-4": FamilyCase("phi3", "gpt4", _GROUPED),
    "Yi": FamilyCase(
        "llama", "yi", _GROUPED, sentencepiece=True, tokens=("<|im_start|>", "<|im_end|>"),
        settings={"chat_template": _CHATML, "eos_token": "<|im_end|>"},
    ),
    "DeepSeek V2 Lite": FamilyCase("deepseek_v2", "deepseek_v3", {**_LATENT, "q_lora_rank": None}),
    "DeepSeek V3": FamilyCase(
        "deepseek_v3", "deepseek_v3", {**_LATENT, "q_lora_rank": 32, "n_group": 2, "topk_group": 1}
    ),
    "SmolLM2": FamilyCase("llama", "embedded", {**_GROUPED, "tie_word_embeddings": True}),
    "OLMo 2": FamilyCase("olmo2", "gpt4", _GROUPED),
    "Granite": FamilyCase("granite", "gpt2", {
        **_GROUPED, "embedding_multiplier": 2.0, "attention_multiplier": 0.25, "residual_multiplier": 0.8,
        "logits_scaling": 0.5,
    }),
    "GPT-NeoX": FamilyCase("gpt_neox", "gpt2", _PLAIN),
    "Falcon": FamilyCase("falcon", "gpt2", {
        name: value for name, value in _PLAIN.items() if name != "intermediate_size"
    }),
    "StarCoder 2": FamilyCase("starcoder2", "gpt2", _GROUPED),
}  # fmt: skip


def make(name: str, folder: Path, embedded: Callable[[], Path]) -> Path:
    """Write the checkpoint of a family: config, weights, and the tokenizer's files as its repositories have them."""
    case = CASES[name]
    folder.mkdir(parents=True)
    vocabulary = _tokenizer(case, folder, embedded)
    torch.manual_seed(0)
    ends = _ends(folder)
    config = AutoConfig.for_model(case.model_type, vocab_size=vocabulary, **{**case.sizes, **ends})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 3:  # experts (E, outputs, inputs)
                common = torch.randn(weight.shape[1:])
                own = torch.randn(weight.shape)
                weight.copy_((0.98 * common + 0.2 * own) / weight.shape[-1] ** 0.5)
            elif weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape) / weight.shape[-1] ** 0.5)
        head = model.get_output_embeddings().weight
        spread = torch.full((len(head), 1), OTHER_SPREAD)
        spread[torch.linspace(300, len(head) // 2, LIKELY).long()] = LIKELY_SPREAD
        head.copy_(torch.randn(head.shape) * spread / head.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def _tokenizer(case: FamilyCase, folder: Path, embedded: Callable[[], Path]) -> int:
    """Copy the tokenizer's files and add what the family's repositories add; returns the size of the vocabulary."""
    source = embedded() if case.tokenizer == "embedded" else folder_of(case.tokenizer)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        if (source / file).is_file():
            shutil.copyfile(source / file, folder / file)
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    known = {token: number for token, number in values["model"]["vocab"].items()}
    if case.sentencepiece:
        (folder / "tokenizer.model").write_bytes(sentencepiece_of(values))
    for number, token in enumerate(case.tokens, max(known.values()) + 1):
        entry = {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        entry["special"] = True
        number = known.get(token, number)
        if not any(one["content"] == token for one in values["added_tokens"]):
            values["added_tokens"].append({"id": number, **entry})
        settings.setdefault("added_tokens_decoder", {})[str(number)] = entry
    settings.update(case.settings)
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    largest = max([*known.values(), *(one["id"] for one in values["added_tokens"])])
    return (largest // 64 + 1) * 64


def sentencepiece_of(values: dict[str, Any]) -> bytes:
    """The tokenizer.model that a tokenizer.json was made from, which the packages leave out.

    A piece's score is minus the rank of the merge that makes it, which is how the merges were got out of the scores.
    """
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(values["model"]["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    control = {one["content"]: one["special"] for one in values["added_tokens"]}
    model = sentencepiece_model_pb2.ModelProto()
    piece = model.SentencePiece
    pieces = sorted(values["model"]["vocab"].items(), key=lambda one: one[1])
    for number, (text, place) in enumerate(pieces):
        assert number == place, "ids without holes"
        kind = piece.NORMAL
        if text == "\t" and "<0x09>" not in values["model"]["vocab"]:  # transformers' word for this byte of Gemma 2's
            text = "<0x09>"
        if text == values["model"].get("unk_token", "<unk>"):
            kind = piece.UNKNOWN
        elif len(text) == 6 and text.startswith("<0x"):
            kind = piece.BYTE
        elif text in control:
            kind = piece.CONTROL if control[text] else piece.USER_DEFINED
        lowest = len(ranks) + number
        model.pieces.add(piece=text, score=float(-ranks.get(text, lowest)) if kind == piece.NORMAL else 0.0, type=kind)
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(pieces)
    prefixed = '"prepend"' in json.dumps(values.get("normalizer")).lower()
    model.normalizer_spec.add_dummy_prefix = prefixed
    model.normalizer_spec.remove_extra_whitespaces = False
    return model.SerializeToString()


def _ends(folder: Path) -> dict[str, Any]:
    """Ids of the special tokens, for config.json."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": pad}
