"""What cannot work together, said before anything is loaded: method, tuning, model, data.

Each check is a function of what is known then; it raises one InputError with the option to change. Options that are
wrong by themselves are refused by the schema (`studio.config`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.config.method import ONLINE
from studio.errors import InputError, InputErrors
from studio.models.adapters import adapter_config, require_adapter
from studio.models.plan import Lengths
from studio.models.shape import ModelShape
from studio.settings import Settings
from studio.train.methods import METHODS
from studio.train.runs import find_model

_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "ademamix_8bit")


@dataclass(frozen=True)
class Known:
    """What the checks look at.

    Attributes:
        config: the run.
        shape: of the model.
        raw: the model's config.json.
        lengths: counts of the tokenized data, None while it was not read.
        settings: for runs that are named.
    """

    config: RunConfig
    shape: ModelShape
    raw: dict[str, Any]
    settings: Settings
    lengths: Lengths | None = None


def check_model(known: Known) -> None:
    """Refuse what the model cannot do; the data need not have been read.

    Raises:
        InputErrors: all that is wrong.
    """
    adapter = (_targets, _experts, _patterns, _blocks, _whole, _ranks, _start, _quantised, _adapter)
    _raise(known, (_architecture, _rotary, *adapter))


def used(config: RunConfig, section: str, name: str) -> bool:
    """Whether the chosen method and tuning read an option."""
    spec = next(one for one in options_of(RunConfig) if one.path == f"{section}.{name}")
    return spec.applies(config.method.name, config.tuning.name)


def check_method(known: Known) -> None:
    """Refuse what the method cannot do with these options and this data.

    Raises:
        InputErrors: all that is wrong.
    """
    _raise(known, (_beta, _dpo, _kto, _groups, _rewards, _ppo, _optimizer, _context))


def _raise(known: Known, checks: Sequence[Callable[[Known], None]]) -> None:
    errors: list[InputError] = []
    for one in checks:
        try:
            one(known)
        except InputError as error:
            errors += getattr(error, "errors", [error])
    if errors:
        raise InputErrors(errors)


# ---- the model


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


# ---- the adapter


def _has_adapter(known: Known) -> bool:
    return known.config.tuning.name != "full"


def _targets(known: Known) -> None:
    if not _has_adapter(known):
        return
    wanted = known.config.tuning.target_modules
    for name in wanted if isinstance(wanted, list) else []:
        if name.rpartition(".")[2] in ("lm_head", "embed_tokens", "embed_out", "wte", "score"):
            tied = ", which shares its weights with the embedding here" if known.shape.tied else ""
            raise InputError(
                f"'{name}' cannot get an adapter: it is the model's head or embedding{tied}",
                where="tuning.target_modules",
                fix="Train it whole: name it in tuning.modules_to_save",
            )
    known.shape.targets(wanted)


def _experts(known: Known) -> None:
    tuning = known.config.tuning
    dora = tuning.name == "dora" or (tuning.name == "qlora" and tuning.dora)
    if dora and known.shape.experts and tuning.target_modules == "all-linear":
        raise InputError(
            "dora cannot be used on the experts of this model, which are one fused parameter",
            where="tuning.target_modules",
            fix="Name the attention layers (q_proj, k_proj, v_proj, o_proj), or set tuning.name to lora",
        )


def _patterns(known: Known) -> None:
    if not _has_adapter(known):
        return
    for option in ("rank_pattern", "alpha_pattern"):
        for name, value in dict(getattr(known.config.tuning, option) or {}).items():
            where = f"tuning.{option}"
            if not any(_fits(linear.name, name) for linear in known.shape.linears):
                fix = f"Use some of: {', '.join(sorted({linear.suffix for linear in known.shape.linears}))}"
                raise InputError(f"the model has no linear layer named '{name}'", where=where, fix=fix)
            if value < 1:
                raise InputError(f"{name} has {value}", where=where, fix="Give a number from 1")


def _fits(linear: str, name: str) -> bool:
    return re.fullmatch(rf"(.*\.)?({name})", linear) is not None


def _blocks(known: Known) -> None:
    blocks = known.config.tuning.layers_to_transform
    if _has_adapter(known) and isinstance(blocks, list) and max(blocks) >= known.shape.layers:
        raise InputError(
            f"there is no block {max(blocks)}; the model has {known.shape.layers}, from 0",
            where="tuning.layers_to_transform",
            fix=f"Use numbers from 0 to {known.shape.layers - 1}",
        )


def _whole(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.name not in ("lora", "dora") or not tuning.modules_to_save:
        return
    names = {"lm_head", "embed_tokens"} | {linear.suffix for linear in known.shape.linears}
    for name in tuning.modules_to_save:
        if name not in names:
            raise InputError(
                f"the model has no layer '{name}'", where="tuning.modules_to_save",
                fix="Use lm_head, embed_tokens or a linear layer's name",
            )  # fmt: skip
        if isinstance(tuning.target_modules, list) and name in tuning.target_modules:
            raise InputError(
                f"'{name}' gets an adapter and is to be trained whole", where="tuning.modules_to_save",
                fix="Take it out of one of the two lists",
            )  # fmt: skip


def _ranks(known: Known) -> None:
    if not _has_adapter(known):
        return
    tuning = known.config.tuning
    targets = known.shape.targets(tuning.target_modules)
    # A gate with one output (the shared expert's) gets an adapter of no use and no harm.
    smallest = min((side for one in targets if (side := min(one.inputs, one.outputs)) > 1), default=tuning.rank)
    if tuning.rank > smallest:
        raise InputError(
            f"rank {tuning.rank} is more than the smallest layer has, {smallest}, so it would save nothing",
            where="tuning.rank",
            fix=f"Use at most {smallest}",
        )


def _start(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.name not in ("lora", "dora") or tuning.init in ("default", "gaussian"):
        return
    others = [name for name in ("rslora", "rank_pattern", "alpha_pattern", "adapter") if getattr(tuning, name)]
    if tuning.name == "dora":
        raise InputError(
            f"{tuning.init} changes the base weights, and dora measures their length", where="tuning.init",
            fix="Set it to default, or tuning.name to lora",
        )  # fmt: skip
    if others:
        raise InputError(
            f"{tuning.init} cannot be turned back into a plain adapter together with {', '.join(others)}",
            where="tuning.init",
            fix=f"Set it to default, or leave {others[0]} out",
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


def _adapter(known: Known) -> None:
    tuning = known.config.tuning
    if not _has_adapter(known):
        return
    if not tuning.adapter:
        if tuning.name in ("lora", "dora") and tuning.merge_adapter:
            raise InputError(
                "there is no adapter to merge", where="tuning.merge_adapter", fix="Name one in tuning.adapter"
            )
        return
    folder = find_model(tuning.adapter, known.settings, "tuning.adapter")
    config = require_adapter(folder, known.shape, "tuning.adapter")
    scorer = METHODS[known.config.method.name].result == "scorer"
    if (config.get("task_type") == "SEQ_CLS") != scorer:
        what = "a reward model's" if not scorer else "a language model's"
        raise InputError(f"this adapter is {what}", where="tuning.adapter", fix="Name an adapter of the same kind")


# ---- the method


def _beta(known: Known) -> None:
    method = known.config.method
    if method.name in ("dpo", "orpo", "kto") and method.beta == 0:
        raise InputError("with 0 nothing is learned from the pairs", where="method.beta", fix="0.1 is usual; try auto")


def _dpo(known: Known) -> None:
    method = known.config.method
    if method.name != "dpo":
        return
    if "exo_pair" in method.dpo_loss and method.label_smoothing == 0:
        raise InputError("exo_pair needs some smoothing", where="method.label_smoothing", fix="Set it to 0.001")
    if method.dpo_loss == ["sft"]:
        raise InputError(
            "the sft loss alone learns nothing from the worse answers", where="method.dpo_loss",
            fix="Mix it in (sigmoid, sft), or set method.name to sft",
        )  # fmt: skip


def _kto(known: Known) -> None:
    if known.config.method.name != "kto":
        return
    training = known.config.training
    if known.config.method.kto_loss == "kto" and 1 in (training.batch_size, training.micro_batch_size):
        option = "training.batch_size" if training.batch_size == 1 else "training.micro_batch_size"
        raise InputError(
            "kto compares the answers of a batch with each other, so one at a time is not enough", where=option,
            fix="Use 2 or more, or method.kto_loss apo_zero_unpaired",
        )  # fmt: skip
    lengths = known.lengths
    if lengths is not None and lengths.good is not None and lengths.good in (0, lengths.count):
        kind = "good" if lengths.good else "bad"
        raise InputError(
            f"all {lengths.count:,} answers are rated {kind}, so there is nothing to tell apart", where="data.train",
            fix="Add rows with the other label",
        )  # fmt: skip


def _groups(known: Known) -> None:
    method, training = known.config.method, known.config.training
    if method.name != "grpo":
        return
    if training.batch_size % method.num_generations:
        low = training.batch_size // method.num_generations * method.num_generations
        nearest = low or method.num_generations
        raise InputError(
            f"a batch of {training.batch_size} answers does not hold whole groups of {method.num_generations}",
            where="training.batch_size",
            fix=f"Set it to {nearest} or {nearest + method.num_generations}, or change method.num_generations",
        )
    if method.grpo_algorithm == "rloo" and method.beta == 0:
        return
    lengths = known.lengths
    groups = training.batch_size // method.num_generations
    if lengths is not None and lengths.count < groups:
        raise InputError(
            f"a batch holds {groups} prompts and the data has {lengths.count}", where="training.batch_size",
            fix=f"Set it to {lengths.count * method.num_generations}, or give more rows",
        )  # fmt: skip


def _rewards(known: Known) -> None:
    method = known.config.method
    if method.name not in ONLINE:
        return
    if method.reward_weights is not None and not any(method.reward_weights):
        raise InputError("all weights are 0", where="method.reward_weights", fix="Give at least one other number")
    for name in method.rewards:
        _NEEDS.get(name, _compared)(known)


def _compared(known: Known) -> None:
    lengths = known.lengths
    if lengths is not None and lengths.answered is not None and lengths.answered < lengths.count:
        raise InputError(
            f"{lengths.count - lengths.answered:,} of {lengths.count:,} rows have no answer to compare with",
            where="method.rewards",
            fix="Add the key answer to each row, or choose json, regex, length, model or python",
        )


def _needs_schema(known: Known) -> None:
    from studio.train.schema import read_schema

    if known.config.method.reward_schema is not None:
        read_schema(Path(known.config.method.reward_schema))


def _needs_pattern(known: Known) -> None:
    pattern = known.config.method.reward_pattern
    if not pattern:
        raise InputError("the reward regex needs a pattern", where="method.reward_pattern", fix="Write one: ^\\d+$")
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"'{pattern}' is no regular expression: {error}", where="method.reward_pattern") from error


def _needs_length(known: Known) -> None:
    if known.config.method.reward_length is None:
        raise InputError("the reward length needs a number", where="method.reward_length", fix="Say how many tokens")


def _needs_model(known: Known) -> None:
    where = "method.reward_model"
    if not known.config.method.reward_model:
        raise InputError(
            "the reward model is not named", where=where, fix="Train one with method.name reward and name that run here"
        )
    folder = find_model(known.config.method.reward_model, known.settings, where)
    config = adapter_config(folder)
    if config is not None:
        if config.get("task_type") != "SEQ_CLS":
            raise InputError("this run's model writes and does not score", where=where, fix="Name a run of reward")
        require_adapter(folder, known.shape, where)
        return
    from studio.models.shape import read_config

    names = read_config(folder).get("architectures") or []
    if not any(str(name).endswith("ForSequenceClassification") for name in names):
        raise InputError("this model writes and does not score", where=where, fix="Name a run of method reward")


def _needs_python(known: Known) -> None:
    from studio.train.pythonreward import split_reference

    method, where = known.config.method, "method.reward_python"
    if not method.reward_python:
        raise InputError("the Python reward is not named", where=where, fix="Write FILE.py:FUNCTION")
    split_reference(method.reward_python)
    if not method.trust_reward_code:
        raise InputError(
            "the file's code would run with your rights", where="method.trust_reward_code",
            fix="Read the file, then switch this on",
        )  # fmt: skip


_NEEDS: dict[str, Callable[[Known], None]] = {
    "json": _needs_schema, "regex": _needs_pattern, "length": _needs_length, "model": _needs_model,
    "python": _needs_python,
}  # fmt: skip


def _ppo(known: Known) -> None:
    method = known.config.method
    if method.name == "ppo" and method.kl_target is not None and method.kl_coef == 0:
        raise InputError("a weight of 0 cannot be steered", where="method.kl_coef", fix="0.05 is usual")


def _optimizer(known: Known) -> None:
    training, tuning = known.config.training, known.config.tuning
    if training.optimizer in _EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise InputError(
            f"{training.optimizer} needs the package bitsandbytes", where="training.optimizer",
            fix="Install it (pip install bitsandbytes), or use adamw_torch_fused",
        )  # fmt: skip
    if tuning.name in ("lora", "qlora") and tuning.lora_plus_ratio and not training.optimizer.startswith("adamw"):
        raise InputError(
            f"LoRA+ is made for AdamW, not {training.optimizer}", where="tuning.lora_plus_ratio",
            fix="Leave it empty, or set training.optimizer to adamw_torch",
        )  # fmt: skip


def _context(known: Known) -> None:
    lengths, limit = known.lengths, known.shape.context
    if lengths is None or limit is None:
        return
    model = known.config.model
    longest = int(limit * model.rope_factor) if model.rope_scaling != "none" else limit
    written = known.config.method.max_completion_length if known.config.method.name in ONLINE else 0
    if lengths.max + written > longest:
        what = (
            f"the longest prompt has {lengths.max:,} tokens and answers up to {written:,}"
            if written
            else (f"the longest example has {lengths.max:,} tokens")
        )
        raise InputError(
            f"{what}; the model was made for {longest:,}",
            where="method.max_completion_length" if written else "data.max_length",
            fix="Set a lower limit, or stretch the model's context with model.rope_scaling",
        )
