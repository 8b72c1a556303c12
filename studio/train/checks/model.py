"""What the model cannot do: stretch its positions, and compute with this attention, engine or device."""

from __future__ import annotations

from typing import get_args

from studio.config import RunConfig
from studio.config.model import ModelConfig
from studio.errors import InputError
from studio.models.catalog.available import ATTENTION, ENGINE, NEEDS, lack
from studio.models.device.machine import device_info
from studio.models.inspect.attention import has_attention
from studio.train.checks.known import Known, used


def _rotary(known: Known) -> None:
    if known.config.model.rope_scaling == "none":
        return
    if known.shape.context is None or not (known.raw.get("rope_parameters") or known.raw.get("rope_theta")):
        raise InputError(
            "this model has no rotary position embeddings (RoPE) to scale",
            where="model.rope_scaling",
            fix="Set it to none",
        )
    if known.shape.family == "phi3":
        raise InputError(
            "phi3 has its own RoPE scaling (longrope)", where="model.rope_scaling",
            fix="Set it to none; Phi-3 models with 128k in their name are already scaled",
        )  # fmt: skip
    if not known.config.tuning.kind.adapter:
        return
    kept = (known.raw.get("rope_parameters") or known.raw.get("rope_scaling") or {}).get("rope_type", "default")
    if kept not in ("default", known.config.model.rope_scaling):
        raise InputError(
            f"this model already scales its RoPE ({kept})", where="model.rope_scaling", fix="Set it to none"
        )


def _eight_bit_dora(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.uses_dora and tuning.kind.weight_bits(tuning) == 8:
        raise InputError(
            "dora over 8-bit weights fails in the second step on a CPU (PEFT 0.21) and is untested on a GPU",
            where="tuning.dora",
            fix="Turn it off, or set tuning.bits to 4",
        )


def _attention(known: Known) -> None:
    word = known.config.model.attention
    lacking = lack(ATTENTION, word, device_info(known.settings, wanted=known.config.training.device))
    if lacking is not None:
        raise InputError(f"{word}: {lacking.what}", where=ATTENTION, fix=lacking.fix)
    if has_attention(known.raw, word) is False:
        having = [
            one for one in get_args(ModelConfig.model_fields["attention"].annotation) if has_attention(known.raw, one)
        ]
        raise InputError(
            f"transformers does not support {word} for the model type '{known.raw.get('model_type')}'", where=ATTENTION,
            fix=f"Set it to {', '.join(having[:-1])} or {having[-1]}",
        )  # fmt: skip
    need = NEEDS.get((ATTENTION, word))
    if need is not None and need.half and known.config.model.dtype == "float32":
        raise InputError(
            f"{word} computes in 16 bits only",
            where="model.dtype",
            fix="Set it to bfloat16, or model.attention to sdpa",
        )


def _offloading(known: Known) -> None:
    training = known.config.training
    if training.activation_offloading is not True or not training.activation_checkpointing:
        return
    if device_info(known.settings, wanted=training.device).lacks_gpu:
        raise InputError(
            "activation offloading saves a GPU's memory, and this run computes on a CPU",
            where="training.activation_offloading", fix="Set it to auto",
        )  # fmt: skip


def _engine(known: Known) -> None:
    config = known.config
    if config.training.engine != "unsloth":
        return
    if not used(config, "training", "engine"):
        raise InputError(
            f"the engine unsloth does not train {config.method.name} with {config.tuning.name}", where=ENGINE,
            fix="Set it to studio, or choose sft, dpo, orpo, kto or grpo with lora or qlora",
        )  # fmt: skip
    lacking = lack(ENGINE, "unsloth", device_info(known.settings, wanted=known.config.training.device))
    if lacking is not None:
        raise InputError(f"unsloth: {lacking.what}", where=ENGINE, fix=lacking.fix)
    for path, asked in unsloth_lacks(config):
        if asked:
            raise InputError(
                f"the engine unsloth does not take {path}", where=path,
                fix="Reset it, or set training.engine to studio",
            )  # fmt: skip


def unsloth_lacks(config: RunConfig) -> list[tuple[str, bool]]:
    """Options that Unsloth's calls have no place for, and whether the run sets them."""
    tuning, model = config.tuning, config.model
    return [
        ("tuning.init", tuning.reads("init") and tuning.init != "default"),
        ("tuning.dora", tuning.reads("dora") and tuning.dora),
        ("tuning.rank_pattern", bool(tuning.rank_pattern)),
        ("tuning.alpha_pattern", bool(tuning.alpha_pattern)),
        ("tuning.adapter", bool(tuning.adapter)),
        ("model.rope_scaling", model.rope_scaling != "none"),
        ("model.attention", model.attention != "auto"),
    ]


MODEL_CHECKS = (_rotary, _eight_bit_dora, _attention, _offloading, _engine)
