"""What the rewards of ppo and grpo need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from studio.errors import InputError
from studio.models.inspect.adapters import adapter_config, require_adapter
from studio.models.inspect.headers import read_config, read_tensors
from studio.models.inspect.shape import ModelShape
from studio.patterns import PatternError, engine
from studio.train.checks.known import Known
from studio.train.checks.scorer import require_one_score
from studio.train.checks.tokens import largest_token
from studio.train.rewards.python import split_reference
from studio.train.rewards.schema import read_schema
from studio.train.runs import find_model


def check_rewards(known: Known) -> None:
    """Refuse a reward that lacks what it needs."""
    method = known.config.method
    if not method.kind.online:
        return
    if method.reward_weights is not None and not any(method.reward_weights):
        raise InputError("all weights are 0", where="method.reward_weights", fix="Set at least one of them above 0")
    for name in method.rewards:
        _NEEDS.get(name, _compared)(known)


def _compared(known: Known) -> None:
    lengths = known.lengths
    if lengths is not None and lengths.answered is not None and lengths.answered < lengths.count:
        raise InputError(
            f"{lengths.count - lengths.answered:,} of {lengths.count:,} rows have no expected answer",
            where="method.rewards",
            fix="Add an answer column, or choose json, regex, length, model or python",
        )


def _needs_schema(known: Known) -> None:
    if known.config.method.reward_schema is not None:
        read_schema(Path(known.config.method.reward_schema))


def _needs_pattern(known: Known) -> None:
    pattern = known.config.method.reward_pattern
    if not pattern:
        raise InputError(
            "the reward regex needs a pattern", where="method.reward_pattern", fix="Set one, such as ^\\d+$"
        )
    try:
        engine(pattern, across_lines=True)
    except PatternError as error:
        raise InputError(f"'{pattern:.100}': {error}", where="method.reward_pattern") from error


def _needs_length(known: Known) -> None:
    if known.config.method.reward_length is None:
        raise InputError(
            "the reward length needs a number", where="method.reward_length", fix="Set the number of tokens"
        )


def _needs_model(known: Known) -> None:
    where = "method.reward_model"
    if not known.config.method.reward_model:
        raise InputError(
            "no reward model is set", where=where, fix="Train one with method.name reward and give that run here"
        )
    folder = find_model(known.config.method.reward_model, known.settings, where)
    config = adapter_config(folder)
    if config is not None:
        if config.get("task_type") != "SEQ_CLS":
            raise InputError(
                "this run trained a generative model, not a reward model",
                where=where,
                fix="Give a run with method.name reward",
            )
        require_adapter(folder, known.shape, where)
        return
    raw, where = read_config(folder), f"{where}: {folder}"
    names = raw.get("architectures") or []
    if not any(str(name).endswith("ForSequenceClassification") for name in names):
        raise InputError(
            "this is a generative model, not a reward model", where=where, fix="Give a run with method.name reward"
        )
    tensors = read_tensors(folder)
    if not tensors:
        raise InputError(
            "this reward model has no .safetensors weights", where=where,
            fix="Save it again with safetensors; other formats can run code when loaded",
        )  # fmt: skip
    require_one_score(raw, tensors, where)
    rows, last = ModelShape.from_parts(raw, tensors, where=where).vocab, largest_token(known.folder)
    if last is not None and last >= rows:
        raise InputError(
            f"the reward model's token ids end at {rows - 1:,}, but this model's tokenizer has ids up to {last:,}",
            where=where,
            fix="Train a reward model from this model, or from one with the same tokenizer",
        )


def _needs_python(known: Known) -> None:
    method, where = known.config.method, "method.reward_python"
    if not method.reward_python:
        raise InputError("no Python reward is set", where=where, fix="Set it to FILE.py:FUNCTION")
    split_reference(method.reward_python)
    if not method.trust_reward_code:
        raise InputError(
            "the file's code would run with your permissions", where="method.trust_reward_code",
            fix="Read the file, then turn this on",
        )  # fmt: skip


_NEEDS: dict[str, Callable[[Known], None]] = {
    "json": _needs_schema, "regex": _needs_pattern, "length": _needs_length, "model": _needs_model,
    "python": _needs_python,
}  # fmt: skip
