"""What the model cannot do."""

from __future__ import annotations

from importlib.util import find_spec

from studio.errors import InputError
from studio.train.checks.known import Known
from studio.train.methods import METHODS


def _architecture(known: Known) -> None:
    names = [str(name) for name in known.raw.get("architectures") or []]
    if known.raw.get("is_encoder_decoder"):
        raise InputError(
            "this is an encoder-decoder model, and the studio trains decoders only", where="model.path",
            fix="Choose a causal language model, such as Llama, Qwen, Mistral, Gemma or SmolLM",
        )  # fmt: skip
    scorer = any(name.endswith("ForSequenceClassification") for name in names)
    if scorer and METHODS[known.config.method.name].result != "scorer":
        raise InputError(
            "this is a reward model: it scores texts and cannot write", where="model.path",
            fix="Choose the model it was made from; name the reward model in method.reward_model",
        )  # fmt: skip
    other = ("ForMaskedLM", "ForConditionalGeneration", "Model")
    if any(name.endswith(other) and not name.endswith("LMHeadModel") for name in names) and not scorer:
        raise InputError(
            f"{names[0]} is no causal language model",
            where="model.path",
            fix="Choose one whose name ends in ForCausalLM",
        )


def _rotary(known: Known) -> None:
    if known.config.model.rope_scaling == "none":
        return
    if known.shape.context is None or not (known.raw.get("rope_parameters") or known.raw.get("rope_theta")):
        raise InputError(
            "this model has no rotary positions that could be stretched",
            where="model.rope_scaling",
            fix="Set it to none",
        )
    if known.config.tuning.name == "full":
        return
    kept = (known.raw.get("rope_parameters") or known.raw.get("rope_scaling") or {}).get("rope_type", "default")
    if kept not in ("default", known.config.model.rope_scaling):
        raise InputError(
            f"this model stretches its positions already ({kept})", where="model.rope_scaling", fix="Set it to none"
        )


def _quantised(known: Known) -> None:
    if known.config.tuning.name == "qlora" and find_spec("bitsandbytes") is None:
        raise InputError(
            "qlora needs the package bitsandbytes, which is not installed", where="tuning.name",
            fix="Install it (pip install bitsandbytes), or use lora",
        )  # fmt: skip
    if known.config.tuning.name == "qlora" and "quantization_config" in known.raw:
        kind = known.raw["quantization_config"].get("quant_method", "quantised")
        raise InputError(
            f"this checkpoint is quantised already ({kind})", where="model.path", fix="Choose the unquantised model"
        )


def _eight_bit_dora(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.name == "qlora" and tuning.dora and tuning.bits == "8":
        raise InputError(
            "dora over 8-bit weights fails in the second step on a CPU (PEFT 0.21), and is not tried on a GPU",
            where="tuning.dora",
            fix="Switch it off, or set tuning.bits to 4",
        )


MODEL_CHECKS = (_architecture, _rotary, _quantised, _eight_bit_dora)
