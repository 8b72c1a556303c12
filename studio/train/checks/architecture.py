"""Whether the model is one that the studio trains: a decoder that writes, whose code transformers has."""

from __future__ import annotations

from studio.errors import InputError
from studio.models.inspect.families import FAMILIES
from studio.train.checks.known import Known
from studio.train.checks.scorer import require_one_score

WRITES = ("ForCausalLM", "LMHeadModel")
_SCORES = "ForSequenceClassification"
# Their causal classes see what comes after a token unless is_decoder is set: they were made to fill gaps.
_ENCODERS = frozenset({
    "bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert", "roberta",
    "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod",
})  # fmt: skip
_KNOWN_TYPES = frozenset(kind for family in FAMILIES for kind in family.model_types)


def _names(known: Known) -> list[str]:
    names = known.raw.get("architectures") or []
    return [str(name) for name in (names if isinstance(names, list) else [names])]


def _architecture(known: Known) -> None:
    names, kind = _names(known), known.raw.get("model_type")
    if known.raw.get("is_encoder_decoder"):
        raise InputError(
            "this is an encoder-decoder model; only decoder-only models can be trained", where="model.path",
            fix="Choose a causal language model, such as Llama, Qwen, Mistral, Gemma or SmolLM",
        )  # fmt: skip
    scorer = any(name.endswith(_SCORES) for name in names)
    if scorer and not known.scores:
        raise InputError(
            "this is a reward model: it scores text and cannot generate", where="model.path",
            fix="Choose the model it was trained from; reward models go in method.reward_model",
        )  # fmt: skip
    fills = kind in _ENCODERS and not known.raw.get("is_decoder")
    if fills or (names and not scorer and not any(name.endswith(WRITES) for name in names)):
        raise InputError(
            f"{names[0] if names else kind} is not a causal language model", where="model.path",
            fix="Choose one whose name ends in ForCausalLM",
        )  # fmt: skip
    if not names and kind not in _KNOWN_TYPES:
        raise InputError(
            "config.json has no architectures", where=f"model.path: {known.folder}",
            fix='Add its class, such as "architectures": ["LlamaForCausalLM"]',
        )  # fmt: skip


def _code(known: Known) -> None:
    """Whether there is code for the model: in transformers, or beside its weights and allowed."""
    kind, own = known.raw.get("model_type"), known.raw.get("auto_map")
    where = f"model.path: {known.folder}"
    if kind in _KNOWN_TYPES - {"qwen"}:
        return
    if not isinstance(kind, str) or not kind:
        raise InputError(
            "config.json has no model_type, so the model class is unknown", where=where,
            fix='Add it, such as "model_type": "llama", or copy the model again',
        )  # fmt: skip
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES  # without torch, but half a second

    if kind in CONFIG_MAPPING_NAMES:
        return
    if not isinstance(own, dict) or "AutoModelForCausalLM" not in own:
        raise InputError(
            f"the installed transformers does not support the model type '{kind}'", where=where,
            fix="Choose another model, or upgrade transformers (pip install -U transformers)",
        )  # fmt: skip
    if not known.config.model.trust_remote_code:
        raise InputError(
            f"models of the type '{kind}' run their own code", where="model.trust_remote_code",
            fix="Read the .py files in the model's folder, then turn this on",
        )  # fmt: skip


def _one_label(known: Known) -> None:
    if known.scores and any(name.endswith(_SCORES) for name in _names(known)):
        require_one_score(known.raw, list(known.tensors), f"model.path: {known.folder}")


def _heads(known: Known) -> None:
    text = known.raw.get("text_config")
    core = {**known.raw, **text} if isinstance(text, dict) else known.raw
    for name in ("num_attention_heads", "num_key_value_heads", "n_head"):
        value = core.get(name)
        if name in core and value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(
                f"config.json has {name} {value}", where=f"model.path: {known.folder}",
                fix="Copy or download the model again",
            )  # fmt: skip


ARCHITECTURE_CHECKS = (_architecture, _code, _one_label, _heads)
