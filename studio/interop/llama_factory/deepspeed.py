"""A DeepSpeed file: how a run is divided between devices, and what else it may say."""

from __future__ import annotations

from typing import Any

from studio.errors import InputError
from studio.foreign import RUN, read_json_file
from studio.interop.draft import Draft
from studio.interop.rules import ONE_DEVICE

# What another value than auto would change in the result.
_MATTERS = ("optimizer", "scheduler", "gradient_clipping", "train_batch_size", "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps")  # fmt: skip


def read_deepspeed(draft: Draft) -> None:
    """Say what becomes of `deepspeed`: a file beside the config, or the mapping itself."""
    if not draft.has("deepspeed"):
        return
    value = draft.given.values["deepspeed"]
    settings = value if isinstance(value, dict) else _read(draft, str(value))
    own = [key for key in _MATTERS if settings.get(key, "auto") != "auto"]
    zero = settings.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    named = f". Its stage is training.parallel: zero{stage}" if str(stage) in ("1", "2", "3") else ""
    draft.say("deepspeed", "ignored", why=ONE_DEVICE + named)
    for key in own:
        why = "Only the config's own keys count here; it is auto in most such files"
        draft.say(f"deepspeed.{key}", "refused", why=why)


def _read(draft: Draft, name: str) -> dict[str, Any]:
    """The file, where it is beside the config; nothing where it cannot be seen."""
    folder = draft.given.folder
    places = [] if folder is None else [folder / name, *(above / name for above in list(folder.parents)[:3])]
    for place in places:
        if place.is_file():
            try:
                found = read_json_file(place, RUN)
            except (ValueError, InputError) as error:
                where = draft.given.place("deepspeed")
                raise InputError(f"{name} is not a DeepSpeed file: {error}", where=where, fix="Fix the file") from error
            return found if isinstance(found, dict) else {}
    return {}
