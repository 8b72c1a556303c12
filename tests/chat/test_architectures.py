"""Every architecture that transformers lists without sdpa is chatted with, evaluated and compared with an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from studio.chat.hf import HfBackend
from studio.config import RunConfig
from studio.errors import InputErrors
from studio.evaluate.answers import answer_all
from studio.evaluate.questions import Question
from studio.export.proof.reference import reference
from studio.models.inspect.attention import attention_options, has_attention
from studio.models.inspect.families import FAMILIES
from studio.models.inspect.headers import read_config
from studio.train import checks
from tests.models.tiny import ARCHITECTURES, save_tiny

VOCABULARY = 320
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024,
    "moe_intermediate_size": 32, "num_local_experts": 4, "n_routed_experts": 4, "num_experts": 4,
    "num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_OLD: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "n_ctx": 1024,
    "rotary_dim": 8, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_STATE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2}
# Decoders among the classes without sdpa, with sizes that make them tiny.
WITHOUT_SDPA: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "codegen": _OLD,
    "cpmant": {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_attention_heads": 4, "dim_head": 16, "dim_ff": 96,
        "num_hidden_layers": 2, "prompt_length": 4,
    },
    "deepseek_v4": _SIZES,
    "falcon_mamba": _STATE,
    "flint": _SIZES,
    "gemma2": _SIZES,
    "gpt_neo": {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 1024,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox_japanese": _SIZES,
    "gpt_oss": _SIZES,
    "gptj": _OLD,
    "granite_swa": _SIZES,
    "granitemoe_swa": _SIZES,
    "hy_v4": _SIZES,
    "inkling2_text": _SIZES,
    "mamba": _STATE,
    "mamba2": {**_STATE, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 16, "state_size": 16},
    "mimo_v2_flash": _SIZES,
    "mpt": {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 1024},
    "openai-gpt": _OLD,
    "rwkv": {**_STATE, "context_length": 1024},
    "vaultgemma": _SIZES,
    "xlstm": {**_STATE, "embedding_dim": 64, "num_blocks": 2, "num_heads": 4, "qk_dim_factor": 1.0},
    "xglm": {
        "vocab_size": VOCABULARY, "d_model": 64, "num_layers": 2, "attention_heads": 4, "ffn_dim": 96,
        "max_position_embeddings": 1024,
    },
}  # fmt: skip
# No decoder that can be trained here: encoders, halves of encoder-decoders and parts of models for pictures.
NO_DECODERS = {
    "big_bird", "bigbird_pegasus", "git", "got_ocr2", "megatron-bert", "mvp", "prophetnet", "reformer", "rembert",
    "roformer", "trocr", "xlm", "xlnet",
}  # fmt: skip
SLOW = {"hy_v4", "inkling2_text"}
FLAGS = {
    "sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn", "flex_attention": "_supports_flex_attn"
}  # fmt: skip
_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of bytes with a template."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 3)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = _TEMPLATE
    folder = tmp_path_factory.mktemp("bytes")
    wrapped.save_pretrained(folder)
    return folder


def made(folder: Path, model_type: str, tokenizer: Path) -> Path:
    """A random checkpoint with that tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **WITHOUT_SDPA[model_type]))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def test_the_list_is_transformers() -> None:
    classes = {config.model_type: kind for config, kind in MODEL_FOR_CAUSAL_LM_MAPPING.items()}
    lacking = {name for name, kind in classes.items() if not getattr(kind, "_supports_sdpa", False)}
    assert lacking == set(WITHOUT_SDPA) | NO_DECODERS


@pytest.mark.parametrize("model_type", sorted({kind for one in FAMILIES for kind in one.model_types} - {"qwen"}))
def test_what_a_class_has_is_told_without_loading_it(model_type: str) -> None:
    kind = next(kind for config, kind in MODEL_FOR_CAUSAL_LM_MAPPING.items() if config.model_type == model_type)
    told = {word: has_attention({"model_type": model_type, "architectures": [kind.__name__]}, word) for word in FLAGS}
    assert told == {word: bool(getattr(kind, flag)) for word, flag in FLAGS.items()}


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in sorted(WITHOUT_SDPA)],
)
def test_chat_evaluation_and_reference(model_type: str, tmp_path: Path, byte_tokenizer: Path, home: Path) -> None:
    folder = made(tmp_path / "model", model_type, byte_tokenizer)
    backend = HfBackend(folder, dtype="float32")
    ids = backend.prompt("base", [{"role": "user", "content": "Why is the sky blue? " * 30}])
    assert len(ids) > 512, "read in two parts where that can be"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    decoder, answer = backend.begin("base", ids), []
    while not decoder.prefill():
        pass
    for _ in range(3):  # each token is the plain model's, which reads the whole text at once
        with torch.inference_mode():
            expected = plain(input_ids=torch.tensor([[*ids, *answer]])).logits[0, -1]
        assert torch.allclose(torch.from_numpy(decoder.logits()), expected, atol=1e-4)
        answer.append(int(expected.argmax()))
        decoder.advance(answer[-1])

    tokenizer = AutoTokenizer.from_pretrained(folder)
    questions = [Question(row, "?", "!", [5 + row, *range(9, 12 + row)], [12]) for row in range(3)]
    answers = answer_all(plain, tokenizer, questions, 4, lambda done: None)
    alone = [answer_all(plain, tokenizer, [one], 4, lambda done: None)[0] for one in questions]
    assert answers == alone, "what is answered beside a row changes nothing"

    request = {"base": str(folder), "adapter": None, "tokenizer": str(folder), "rows_from": None, "limit": None}
    found = reference({**request, "folder": str(tmp_path)}, lambda done, total: None)
    assert found["positions"] > 100 and json.loads((tmp_path / "cases.json").read_text())["texts"]


def test_an_attention_that_the_class_lacks_is_refused_with_those_it_has(tmp_path: Path, settings) -> None:
    folder = save_tiny(tmp_path / "gemma", "gemma2")
    config = RunConfig.model_validate({"model": {"path": str(folder), "attention": "sdpa"}})
    with pytest.raises(InputErrors) as refused:
        checks.check_model(checks.Known.of(config, folder, settings))
    error = next(one for one in refused.value.errors if one.where == "model.attention")
    assert "auto" in error.fix and "eager" in error.fix and "sdpa" not in error.fix


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_what_is_chosen_can_be_loaded(model_type: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, model_type)
    raw = read_config(folder)
    assert attention_options(raw) == {}, "left to transformers"
    assert attention_options(raw, "auto", "sdpa") == (
        {"attn_implementation": "sdpa"} if has_attention(raw, "sdpa") else {}
    )
    AutoModelForCausalLM.from_pretrained(folder, **attention_options(raw, "auto", "sdpa"))
