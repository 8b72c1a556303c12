"""transformers' TrainingArguments, which TRL and ms-swift pass on under the same names: section `training`.

What a tool takes where a key is left out differs from tool to tool, and is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from studio.interop.rules import ONE_DEVICE
from studio.interop.sheets import names
from studio.interop.sheets.sheet import Sheet, is_off

_LOADER = "how batches are loaded, which changes no batch"
_LOGGED = "what is logged; the studio records every step"
_KERNEL = "a faster kernel of the same computation; the studio picks its own"
_HUB = "the result is uploaded by an export, which asks before"
_RESUMED = "resume a run of the studio with studio resume"
_MEMORY = "when memory is cleaned up or where numbers lie; they are the same"
_TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")

IGNORED: dict[str, str] = {
    **dict.fromkeys(
        (
            "dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_num_workers",
            "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
            "remove_unused_columns", "dataset_num_proc", "data_seed", "pad_to_multiple_of", "label_names",
            "length_column_name", "eval_accumulation_steps", "batch_eval_metrics", "eval_do_concat_batches",
            "eval_use_gather_object", "include_for_metrics", "prediction_loss_only",
        ),
        _LOADER,
    ),
    **dict.fromkeys(
        (
            "logging_first_step", "logging_nan_inf_filter", "logging_steps", "logging_strategy", "log_level",
            "log_level_replica", "log_on_each_node", "disable_tqdm", "include_num_input_tokens_seen", "run_name",
            "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics",
            "logging_dir", "include_tokens_per_second",
        ),
        _LOGGED,
    ),
    **dict.fromkeys(
        (
            "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters",
            "ddp_static_graph", "ddp_timeout", "local_rank", "save_on_each_node", "accelerator_config",
            "parallelism_config", "average_tokens_across_devices", "ds3_gather_for_generation",
        ),
        ONE_DEVICE,
    ),
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config", "torch_compile", "torch_compile_backend", "torch_compile_mode",
         "enable_jit_checkpoint"), _KERNEL,
    ),
    **dict.fromkeys(
        ("push_to_hub", "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy",
         "hub_token", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"), _HUB,
    ),
    **dict.fromkeys(
        ("resume_from_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint"), _RESUMED
    ),
    **dict.fromkeys(
        ("torch_empty_cache_steps", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", "use_cache"),
        _MEMORY,
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict", "eval_on_start", "eval_delay"),
                    "a run trains, and validates from its start on where there are validation rows"),
    "output_dir": "a run has a folder of its own",
    "overwrite_output_dir": "a run has a folder of its own, and nothing is overwritten",
    "debug": "looks for errors in the training",
    "full_determinism": "the same seed gives the same run on the same machine",
    "per_device_eval_batch_size": "how many validation rows are computed at a time",
    "bf16_full_eval": "validation is computed like the training",
    "fp16_full_eval": "validation is computed like the training",
    "save_only_model": "a checkpoint always holds what is needed to resume",
    "save_safetensors": "weights are always saved as safetensors",
    "tf32": "a faster matrix product on NVIDIA GPUs, nearly the same numbers",
    "use_cpu": "the first free device is taken; training.device says another one",
    "no_cuda": "the first free device is taken; training.device says another one",
    "greater_is_better": "the metric itself says which way is better",
}  # fmt: skip
NEAR: dict[str, str] = {
    "deepspeed": ONE_DEVICE,
    "fsdp": ONE_DEVICE,
    "fsdp_config": ONE_DEVICE,
    "auto_find_batch_size": "the studio plans the micro-batch from the memory that is free",
    "dataloader_drop_last": "a last, smaller update is made",
    "group_by_length": "rows of similar length in an update are computed together anyway",
    "lr_scheduler_kwargs": "the schedule's usual values are taken",
}
REFUSED: dict[str, str] = {
    "optim_args": "the optimizer's own values are kept",
    "optim_target_modules": "an optimizer that the studio has not",
    "label_smoothing_factor": "the loss of single answers is not smoothed",
}
READ = frozenset({
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_ratio",
    "warmup_steps", "optim", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "seed",
    "num_train_epochs", "max_steps", "eval_strategy", "evaluation_strategy", "eval_steps", "save_strategy",
    "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "gradient_checkpointing",
    "activation_checkpointing", "activation_offloading", "report_to", "bf16", "fp16", "train_sampling_strategy",
    "neftune_noise_alpha",
    "num_processes",
})  # fmt: skip
KEYS = frozenset({*READ, *IGNORED, *NEAR, *REFUSED})


@dataclass(frozen=True)
class Defaults:
    """What a tool takes where a key is left out.

    Attributes:
        batch: rows at a time.
        rate: learning rate.
        schedule: name of the schedule.
        decay: weight decay.
        epochs: passes over the data.
        save_steps: steps between checkpoints; 0 where they are made once an epoch.
        shuffle: whether rows are shuffled.
        beta2: of AdamW.
        least_batch: rows of an update, to which it accumulates where the parts are not given; 0 for one part.
    """

    batch: int
    rate: float
    schedule: str = "linear"
    decay: float = 0.0
    epochs: float = 3.0
    save_steps: int = 500
    shuffle: bool = True
    beta2: float = 0.999
    least_batch: int = 0


def read_arguments(sheet: Sheet, usual: Defaults) -> None:
    """Read the keys of TrainingArguments; the validation rows have been read."""
    epochs, steps = sheet.number("num_train_epochs"), sheet.whole("max_steps")
    if epochs is None:
        sheet.default("num_train_epochs", "training.epochs", usual.epochs)
    else:
        sheet.mapped("num_train_epochs", "training.epochs", float(epochs))
    if steps is not None and steps > 0:
        sheet.mapped("max_steps", "training.max_steps", steps)
    else:
        sheet.ignored("max_steps", "no limit")
    read_batch(sheet, usual.batch, usual.least_batch)
    if (rate := sheet.number("learning_rate")) is None:
        sheet.default("learning_rate", "training.learning_rate", usual.rate)
    else:
        sheet.mapped("learning_rate", "training.learning_rate", float(rate))
    names.schedule(sheet, "lr_scheduler_type", usual.schedule)
    names.warmup(sheet, "warmup_ratio", "warmup_steps", 0.0)
    names.optimizer(sheet, "optim", "adamw_torch_fused")
    _numbers(sheet, usual)
    _validation(sheet)
    _checkpoints(sheet, usual)
    _rest(sheet, usual)


def processes(sheet: Sheet) -> int:
    """How many processes the command starts, each with a batch of its own."""
    command = sheet.given.command
    if command is None:
        return 1
    # As TRL is told, and ms-swift.
    told = str(sheet.raw("num_processes") or command.variables.get("NPROC_PER_NODE", ""))
    sheet.tell("num_processes", "mapped", "training.batch_size")
    return command.processes or (int(told) if told.isascii() and told.isdigit() and 0 < len(told) < 5 else 1) or 1


def read_batch(sheet: Sheet, usual: int, least: int = 0) -> None:
    """Read rows at a time and the number of parts of an update; several processes make the batch larger.

    Args:
        sheet: the config.
        usual: rows at a time where they are not given.
        least: rows of an update, to which the tool accumulates where the parts are not given; 0 for one part.
    """
    micro, parts, count = (
        sheet.whole("per_device_train_batch_size"), sheet.whole("gradient_accumulation_steps"), processes(sheet)
    )  # fmt: skip
    for key, value in (("per_device_train_batch_size", micro), ("gradient_accumulation_steps", parts)):
        if value is not None and value < 1:
            raise sheet.error(key, "a number from 1 is needed")
    times = f"times {count} processes" if count > 1 else ""
    if micro is None:
        micro = usual
        sheet.default("per_device_train_batch_size", "training.micro_batch_size", usual)
    else:
        sheet.mapped("per_device_train_batch_size", "training.micro_batch_size", micro)
    if parts is None and least:
        parts = max(1, math.ceil(least / (micro * count)))
        why = f"Not given: {sheet.tool} accumulates to {least} rows or more in an update"
        sheet.note("gradient_accumulation_steps", "mapped", "training.batch_size", why)
    sheet.set("training.batch_size", micro * (parts or 1) * count, sheet.prefix + "gradient_accumulation_steps")
    sheet.tell("gradient_accumulation_steps", "mapped", "training.batch_size",
               ", ".join(part for part in ("times per_device_train_batch_size", times) if part))  # fmt: skip


def _numbers(sheet: Sheet, usual: Defaults) -> None:
    if (decay := sheet.number("weight_decay")) is not None:
        sheet.mapped("weight_decay", "training.weight_decay", float(decay))
    else:
        sheet.default("weight_decay", "training.weight_decay", usual.decay)
    if (norm := sheet.number("max_grad_norm")) is not None:
        sheet.mapped("max_grad_norm", "training.max_grad_norm", float(norm))
    if (seed := sheet.whole("seed")) is not None:
        sheet.mapped("seed", "training.seed", seed)
    for key, value in (("adam_beta1", 0.9), ("adam_beta2", 0.999), ("adam_epsilon", 1e-8)):
        if (given := sheet.number(key)) is not None:
            same = given == value
            why = f"the usual {value:g}" if same else f"the optimizer keeps {value:g}"
            sheet.tell(key, "ignored" if same else "approximated", "", why)
    if usual.beta2 != 0.999 and not sheet.has("adam_beta2"):
        why = f"Not given: the default of {sheet.tool} is {usual.beta2:g}; the optimizer keeps 0.999"
        sheet.note("adam_beta2", "approximated", "", why)


def _validation(sheet: Sheet) -> None:
    keys = ("eval_strategy", "evaluation_strategy", "eval_steps")
    if not sheet.value("data.validation"):
        for key in keys:
            sheet.ignored(key, "there are no validation rows")
        return
    for key in keys[:2]:
        if sheet.has(key):
            sheet.tell(key, "mapped", "data.validation")
    names.interval(sheet, "eval_steps", "training.eval_steps")


def _checkpoints(sheet: Sheet, usual: Defaults) -> None:
    strategy = (sheet.text("save_strategy") or "").lower()
    if strategy in ("no", "false"):
        sheet.approximated("save_strategy", "training.keep_checkpoints", "none", "they are removed at the end")
    elif strategy == "epoch":
        sheet.mapped("save_strategy", "training.save_steps", "auto")
        sheet.ignored("save_steps", "checkpoints are made once an epoch")
    elif strategy == "best":
        sheet.mapped("save_strategy", "training.keep_best", True)
    elif strategy:
        sheet.tell("save_strategy", "mapped", "training.save_steps")
    if not sheet.told("save_steps"):
        names.interval(sheet, "save_steps", "training.save_steps")
    if sheet.raw("save_steps") is None and strategy in ("", "steps") and usual.save_steps:
        sheet.default("save_steps", "training.save_steps", usual.save_steps)
    limit = sheet.whole("save_total_limit")
    if limit and limit > 0:
        sheet.mapped("save_total_limit", "training.save_total_limit", limit)
    names.best_model(sheet)


def _offloading(sheet: Sheet) -> None:
    """Where activations are kept: TRL moves all of them, transformers what checkpointing keeps, as the studio."""
    key, path, saving = "activation_offloading", "training.activation_offloading", "training.activation_checkpointing"
    moved = sheet.flag(key)
    if moved:
        sheet.approximated(key, path, True, "the inputs of blocks are moved, the rest is recomputed")
        if sheet.value(saving) is False:
            sheet.set(saving, "auto")
    elif moved is False:
        sheet.mapped(key, path, False)
    for key in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        options = sheet.raw(key)
        if isinstance(options, dict) and options.get("offload") is True:
            sheet.mapped(key, path, True)


def _rest(sheet: Sheet, usual: Defaults) -> None:
    for key in ("gradient_checkpointing", "activation_checkpointing"):
        if (on := sheet.flag(key)) is not None:
            sheet.mapped(key, "training.activation_checkpointing", on)
    _offloading(sheet)
    if (words := sheet.words("report_to")) is not None:
        found = [word for word in words if word in _TRACKERS]
        odd = [word for word in words if word not in (*_TRACKERS, "none", "all")]
        why = f"{', '.join(odd)} is not among the studio's trackers" if odd else ""
        status = "approximated" if odd else "mapped"
        sheet.set("training.report_to", found)
        sheet.tell("report_to", status, "training.report_to", why)  # type: ignore[arg-type]
    order = sheet.text("train_sampling_strategy")
    if order is None:
        sheet.set("data.shuffle", usual.shuffle)
    else:
        sheet.mapped("train_sampling_strategy", "data.shuffle", order != "sequential")
    noise = sheet.number("neftune_noise_alpha")
    if noise is not None and sheet.offers("method.neftune_noise_alpha"):
        sheet.mapped("neftune_noise_alpha", "method.neftune_noise_alpha", float(noise))
    elif noise is not None:
        sheet.refused("neftune_noise_alpha", "noise on the embeddings is for sft only")


def read_dtype(sheet: Sheet, key: str) -> None:
    """Read the number format of the weights, and of the computation beside it.

    Args:
        sheet: the config.
        key: of the weights' format.
    """
    word = (sheet.text(key) or "").lower().removeprefix("torch.")
    off = sheet.has("bf16") and is_off(sheet.raw("bf16")) and is_off(sheet.raw("fp16"))
    if word in ("bfloat16", "bf16"):
        sheet.mapped(key, "model.dtype", "bfloat16")
    elif word in ("float32", "fp32") and off:
        sheet.mapped(key, "model.dtype", "float32")
    elif word in ("float16", "fp16", "half"):
        why = "16-bit floats with a loss scale are not supported; bfloat16 where the device is fast with it"
        sheet.approximated(key, "model.dtype", "auto", why)
    elif word and word != "auto":
        why = "computed in bfloat16 there; the studio chooses by the device" if word.startswith("float32") else (
            "the studio chooses by the device")  # fmt: skip
        sheet.approximated(key, "model.dtype", "auto", why)
    elif word:
        sheet.mapped(key, "model.dtype", "auto")
    elif off:
        sheet.mapped("bf16", "model.dtype", "float32")
    for other in ("bf16", "fp16"):
        if sheet.has(other) and not sheet.told(other):
            sheet.ignored(other, f"model.dtype is {sheet.value('model.dtype') or 'auto'}")
