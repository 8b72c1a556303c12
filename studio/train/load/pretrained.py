"""Checkpoints and adapters, loaded whole: a weight that the files lack is an error and never a random number.

transformers and PEFT fill what they do not find with new random weights and say so in a table or a warning, which
nobody reads in a job.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from transformers import PreTrainedModel

from studio.errors import InputError
from studio.models.inspect.adapters import WEIGHTS, require_quick_adapter
from studio.models.inspect.headers import SAFE, read_header


def load_whole(kind: Any, folder: Path, where: str, *, new_head: bool = False, **options: Any) -> PreTrainedModel:
    """Load a checkpoint with the class `kind`, from this computer and from safetensors files only.

    Args:
        kind: an Auto class of transformers.
        folder: the checkpoint.
        where: the option that names it, for errors.
        new_head: weights outside the decoder may be new: the head of a language model that shall score.
        options: of `from_pretrained`.

    Raises:
        InputError: the files lack weights of the model.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the table
        model, report = kind.from_pretrained(folder, output_loading_info=True, **SAFE, **options)
    # Buffers that are missing are computed, and tied weights have a name only once.
    missing = sorted(set(report["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if new_head:
        missing = [name for name in missing if name.startswith(f"{model.base_model_prefix}.")]
    if missing:
        raise InputError(
            f"{len(missing)} of the model's weights are not in its files, first {missing[0]}, and would be randomly "
            f"initialized",
            where=f"{where}: {folder}",
            fix="Copy or download the model again; its config.json must be the one saved with the weights",
        )
    return model


def load_adapter(model: Any, folder: Path, where: str, *, is_trainable: bool = False) -> PeftModel:
    """Put an adapter on a model.

    Args:
        model: the base.
        folder: the adapter.
        where: the option that names it, for errors.
        is_trainable: the adapter is trained on.

    Raises:
        InputError: the adapter has matrices that the model has no place for, or lacks some, or a pattern that is not
            used.
    """
    require_quick_adapter(folder, model)
    tuned: PeftModel = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)
    stored = {_plain(tensor.name) for tensor in read_header(folder / WEIGHTS)}
    placed = {_plain(name) for name in get_peft_model_state_dict(tuned, save_embedding_layers=False)}
    lost = sorted((placed - stored) | {name for name in stored - placed if ".lora_" in name})
    if lost:
        raise InputError(
            f"{len(lost)} of the adapter's weights do not fit the model, first {lost[0]}", where=f"{where}: {folder}",
            fix="Use it with the base model that it was trained on",
        )  # fmt: skip
    return tuned


def _plain(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".default")
