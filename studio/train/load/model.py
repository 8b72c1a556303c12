"""From a checkpoint and a plan to the model that is trained: number format, quantisation, head, existing adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from studio.config import RunConfig
from studio.kernels.calls import Kernels
from studio.models.catalog.names import ModelRef
from studio.models.inspect.adapters import adapter_config
from studio.models.inspect.attention import attention_options
from studio.models.inspect.headers import read_config
from studio.models.plan.making import Plan
from studio.reach import link_or_copy
from studio.train.engine import loss as engine_loss
from studio.train.engine import unsloth
from studio.train.load.pretrained import load_adapter, load_whole
from studio.train.loop.saving import save_tokenizer
from studio.train.tuning import prepare
from studio.train.tuning.qlora import keep_layout, leave_file, quantization


@dataclass
class Loaded:
    """A model that is ready for a trainer.

    Attributes:
        model: with every frozen weight frozen; wrapped by PEFT only where an existing adapter goes on.
        peft_config: of a new adapter, else None.
        engine_loss: our loss is attached and agrees with the model's own.
    """

    model: Any
    peft_config: Any
    engine_loss: bool


def load_model(
    config: RunConfig, plan: Plan, folder: Path, tokenizer: PreTrainedTokenizerBase, example: Any = None,
    kernels: Kernels | None = None,
) -> Loaded:  # fmt: skip
    """Load the checkpoint in `folder` as the run wants it.

    Args:
        config: the run, with paths resolved.
        plan: number format.
        folder: a Hugging Face checkpoint.
        tokenizer: the model's; a scoring head must know how a sequence is padded.
        example: a row (`units.Encoded`) to check our loss on, for methods that learn from answers.
        kernels: the engine's compiled functions, where the run has them.

    Raises:
        InputError: a layer that was asked for does not exist, or the files lack weights.
    """
    if config.training.engine == "unsloth":
        return Loaded(unsloth.load(config, plan, folder), None, False)
    scorer = config.method.kind.result == "scorer"
    model = _load(config, plan, folder, scorer)
    if scorer:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    fast = False
    if example is not None:
        fast = engine_loss.attach(model, kernels) and engine_loss.agrees(model, example.input_ids, example.labels)
    tuning = config.tuning
    if tuning.adapter and tuning.goes_on:
        model.requires_grad_(False)
        tuned = load_adapter(model, Path(tuning.adapter), "tuning.adapter", is_trainable=True)
        return Loaded(tuned, None, fast)
    peft_config = prepare(model, tuning, "SEQ_CLS" if scorer else "CAUSAL_LM")
    return Loaded(model, peft_config, fast)


def merge_into(reference: ModelRef, adapter: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> ModelRef:
    """Merge an adapter into its base and write the result, which a new adapter then stands on.

    Merged in float32 and written in the base's own number format; a reward model keeps its head.

    Args:
        reference: the base model.
        adapter: PEFT folder of an adapter trained on that base.
        tokenizer: the base's; saved beside the merged weights.
        folder: receives the merged checkpoint.
    """
    scorer = (adapter_config(adapter) or {}).get("task_type") == "SEQ_CLS"
    kind: Any = AutoModelForSequenceClassification if scorer else AutoModelForCausalLM
    options: dict[str, Any] = {"num_labels": 1} if scorer else {}
    model = load_whole(kind, reference.path, "model.path", new_head=scorer, dtype=torch.float32, **options)
    kept = AutoConfig.from_pretrained(reference.path, local_files_only=True).dtype
    merged = load_adapter(model, adapter, "tuning.adapter").merge_and_unload(safe_merge=True)
    merged.to(kept or torch.float32).save_pretrained(folder)
    save_tokenizer(tokenizer, reference.path, folder, trust_remote_code=False)
    return replace(reference, path=folder)


def stretched_base(config: RunConfig, reference: ModelRef, folder: Path) -> ModelRef:
    """Write the base model with its positions stretched into `folder`, for whoever puts the adapter on it later.

    An adapter's folder does not say that its base was stretched. The weights are linked, not copied, where they can be.

    Args:
        config: the run whose `model` section stretches the positions.
        reference: the base model; its own folder is only read.
        folder: receives the checkpoint; created where it is missing.
    """
    folder.mkdir(exist_ok=True)
    for file in reference.path.iterdir():
        if file.is_file() and file.name != "config.json":
            link_or_copy(file, folder / file.name)
    _longer(config, reference.path).save_pretrained(folder)
    return replace(reference, path=folder)


def _load(config: RunConfig, plan: Plan, folder: Path, scorer: bool) -> PreTrainedModel:
    dtype = getattr(torch, plan.dtype)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": config.model.trust_remote_code}
    if config.model.rope_scaling != "none":
        options["config"] = _longer(config, folder)
    if config.tuning.kind.quantized:
        options["quantization_config"] = quantization(config.tuning, torch.bfloat16 if plan.autocast else dtype)
    kind: Any = AutoModelForCausalLM
    if scorer:
        kind = AutoModelForSequenceClassification
        if "config" in options:  # which must say it itself: the model's class takes no such argument then
            options["config"].num_labels = 1
        else:
            options["num_labels"] = 1
    options |= attention_options(read_config(folder), config.model.attention, plan.attention)
    model = load_whole(kind, folder, "model.path", new_head=scorer, **options)
    if config.tuning.kind.quantized:
        keep_layout(model)
        leave_file(model)
        return model
    return model.to("cuda") if torch.cuda.is_available() else model


def _longer(config: RunConfig, folder: Path) -> Any:
    """The model's config with its rotary positions stretched (transformers' rope parameters)."""
    loaded = AutoConfig.from_pretrained(folder, trust_remote_code=config.model.trust_remote_code, local_files_only=True)
    text = loaded.get_text_config()
    given = dict(getattr(text, "rope_parameters", None) or {})
    length, factor = int(text.max_position_embeddings), config.model.rope_factor
    changes: dict[str, Any] = {"rope_type": config.model.rope_scaling, "factor": factor}
    if config.model.rope_scaling in ("yarn", "llama3"):
        changes["original_max_position_embeddings"] = length
    if config.model.rope_scaling == "llama3":
        changes |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    # Models with a window in some layers (Gemma 3) have parameters for each kind of layer; a window stays near.
    far = "full_attention"
    text.rope_parameters = {**given, far: {**given[far], **changes}} if far in given else given | changes
    if config.model.rope_scaling != "dynamic":  # whose limit is that of the model: it stretches what is beyond
        text.max_position_embeddings = int(length * factor)
    return loaded
