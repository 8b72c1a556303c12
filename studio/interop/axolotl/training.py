"""How long and how fast an Axolotl run trains: section `training`, and the limit of a row."""

from __future__ import annotations

from studio.interop.sheets import names
from studio.interop.sheets.arguments import processes
from studio.interop.sheets.sheet import Sheet, is_off

_TRACKERS = (("use_tensorboard", "tensorboard"), ("use_trackio", "trackio"), ("use_mlflow", "mlflow"))
# AdamW's own numbers, which the studio keeps.
_ADAM = (("adam_beta1", 0.9), ("adam_beta2", 0.999), ("adam_epsilon", 1e-8))


def read_training(sheet: Sheet) -> None:
    """Read batch, length, rate, schedule, checkpoints and trackers; the validation rows have been read."""
    _length(sheet)
    _batch(sheet)
    rate = sheet.number("learning_rate")
    if rate is None:
        sheet.default("learning_rate", "training.learning_rate", "auto", "none, it refuses the config")
    else:
        sheet.mapped("learning_rate", "training.learning_rate", rate)
    names.schedule(sheet, "lr_scheduler", "cosine")
    if (least := sheet.number("cosine_min_lr_ratio")) is not None:
        how = "it ends at a tenth of the rate" if least != 0.1 else ""
        tell = sheet.approximated if how else sheet.mapped
        tell("cosine_min_lr_ratio", "training.scheduler", "cosine_with_min_lr", how)
    if sheet.has("lr_scheduler_kwargs"):
        sheet.tell("lr_scheduler_kwargs", "approximated", "training.scheduler", "the schedule's usual values are taken")
    names.warmup(sheet, "warmup_ratio", "warmup_steps", 0.03)
    names.optimizer(sheet, "optimizer", "adamw_torch_fused")
    for key, usual in _ADAM:
        if (value := sheet.number(key)) is not None:
            same = value == usual
            why = f"the usual {usual:g}" if same else f"the optimizer keeps {usual:g}"
            sheet.tell(key, "ignored" if same else "approximated", "", why)
    _plain_numbers(sheet)
    _validation(sheet)
    _checkpoints(sheet)
    _trackers(sheet)
    _checkpointing(sheet)


def _checkpointing(sheet: Sheet) -> None:
    """What is recomputed, and where the rest is kept; `gradient_checkpointing: offload` is an older way to say both."""
    offloading, path = "activation_offloading", "training.activation_offloading"
    saving, how = sheet.word("gradient_checkpointing"), sheet.word(offloading)
    if saving is not None:
        sheet.mapped("gradient_checkpointing", "training.activation_checkpointing", not is_off(saving))
    if how is None and saving is not None and saving.startswith("offload"):
        offloading, how = "gradient_checkpointing", saving
    if how is None:
        return
    if is_off(how) or how == "hidden_states":
        sheet.mapped(offloading, path, not is_off(how))
    else:
        place = ", to memory and not to a disk" if how.endswith("disk") else ""
        sheet.approximated(offloading, path, True, f"the inputs of blocks are moved, the rest is recomputed{place}")


def _length(sheet: Sheet) -> None:
    length = sheet.whole("sequence_len")
    if length is None:
        sheet.default("sequence_len", "data.max_length", 512)
    elif length < 8:
        raise sheet.error("sequence_len", "a number of tokens from 8 is needed")
    else:
        sheet.mapped("sequence_len", "data.max_length", length)
    strategies = (("drop", "drop"), ("truncate", "cut"), ("raise", "error"))
    given = sheet.text("excess_length_strategy")
    if given is None:
        sheet.default("excess_length_strategy", "data.truncation", "drop")
    elif given in dict(strategies):
        sheet.mapped("excess_length_strategy", "data.truncation", dict(strategies)[given])
    else:
        raise sheet.error("excess_length_strategy", "drop, truncate or raise is needed")


def _batch(sheet: Sheet) -> None:
    micro, parts, batch = (
        sheet.whole(key) for key in ("micro_batch_size", "gradient_accumulation_steps", "batch_size")
    )
    for key, value in (("micro_batch_size", micro), ("gradient_accumulation_steps", parts), ("batch_size", batch)):
        if value is not None and value < 1:
            raise sheet.error(key, "a number from 1 is needed")
    if batch is not None:
        sheet.mapped("batch_size", "training.batch_size", batch)
        micro = micro or max(1, batch // (parts or 1))
        if batch % micro:
            raise sheet.error("batch_size", f"it is no multiple of micro_batch_size {micro}")
        sheet.ignored("gradient_accumulation_steps", "it follows from batch_size and micro_batch_size")
    else:
        micro, parts = micro or 1, parts or 1
        count = processes(sheet)
        sheet.set("training.batch_size", micro * parts * count, "gradient_accumulation_steps")
        times = f"times micro_batch_size, times {count} processes" if count > 1 else "times micro_batch_size"
        sheet.tell("gradient_accumulation_steps", "mapped", "training.batch_size", times)
    sheet.mapped("micro_batch_size", "training.micro_batch_size", micro)
    if sheet.flag("sample_packing"):
        why = (
            "examples of a micro-batch are computed as one row, each by itself, as there; but an update has a fixed "
            "number of examples here, where Axolotl fills rows of sequence_len"
        )
        if sheet.raw("rl") is None and not sheet.flag("reward_model"):
            sheet.approximated("sample_packing", "training.padding_free", True, why)
        else:
            sheet.refused("sample_packing", "pairs and prompts are not packed; Axolotl refuses it, too")
    elif sheet.has("sample_packing"):
        sheet.ignored("sample_packing", "it is off")
    flat = sheet.raw("batch_flattening")
    if flat is not None and not is_off(flat) and sheet.reads("training.padding_free"):
        sheet.mapped("batch_flattening", "training.padding_free", True)


def _plain_numbers(sheet: Sheet) -> None:
    if (decay := sheet.number("weight_decay")) is not None:
        sheet.mapped("weight_decay", "training.weight_decay", decay)
    if (norm := sheet.number("max_grad_norm")) is not None:
        sheet.mapped("max_grad_norm", "training.max_grad_norm", norm)
    if (seed := sheet.whole("seed")) is not None:
        sheet.mapped("seed", "training.seed", seed)


def read_duration(sheet: Sheet) -> None:
    """Read epochs and steps, on which the shares of others depend."""
    epochs, steps = sheet.number("num_epochs"), sheet.whole("max_steps")
    if epochs is None:
        sheet.default("num_epochs", "training.epochs", 1.0)
    else:
        sheet.mapped("num_epochs", "training.epochs", epochs)
    if steps is not None and steps > 0:
        sheet.mapped("max_steps", "training.max_steps", steps)
    else:
        sheet.ignored("max_steps", "no limit")


def _validation(sheet: Sheet) -> None:
    keys = ("evals_per_epoch", "eval_steps", "eval_strategy", "evaluation_strategy")
    if not sheet.value("data.validation"):
        for key in keys:
            sheet.ignored(key, "there are no validation rows")
    else:
        names.interval(sheet, "eval_steps", "training.eval_steps")
        if sheet.has("evals_per_epoch"):
            why = "the studio chooses the steps itself, eight validations per run"
            sheet.approximated("evals_per_epoch", "training.eval_steps", "auto", why)
        for key in keys[2:]:
            if sheet.has(key):
                sheet.approximated(key, "training.eval_steps", sheet.value("training.eval_steps") or "auto",
                                   "validations are made after a number of steps")  # fmt: skip
    if (patience := sheet.whole("early_stopping_patience")) is not None:
        sheet.mapped("early_stopping_patience", "training.early_stopping", patience)
    names.best_model(sheet)


def _checkpoints(sheet: Sheet) -> None:
    names.interval(sheet, "save_steps", "training.save_steps")
    if (times := sheet.number("saves_per_epoch")) is not None:
        if times == 1:
            sheet.mapped("saves_per_epoch", "training.save_steps", "auto")
        else:
            sheet.approximated("saves_per_epoch", "training.save_steps", "auto", "once per epoch")
    strategy = sheet.word("save_strategy")
    if strategy in ("no", "false"):
        sheet.approximated("save_strategy", "training.keep_checkpoints", "none", "they are removed at the end")
    elif strategy == "best":
        sheet.mapped("save_strategy", "training.keep_best", True)
    elif strategy is not None:
        sheet.tell("save_strategy", "mapped", "training.save_steps")
    limit = sheet.whole("save_total_limit")
    if limit:
        sheet.mapped("save_total_limit", "training.save_total_limit", limit)
    else:
        sheet.default("save_total_limit", "training.save_total_limit", 4)


def _trackers(sheet: Sheet) -> None:
    found = []
    wanted = sheet.flag("use_wandb")
    project, mode = sheet.text("wandb_project"), sheet.text("wandb_mode")
    if (wanted or (wanted is None and project)) and mode not in ("disabled", "offline-disabled"):
        found.append("wandb")
    for key in ("use_wandb", "wandb_project", "wandb_mode"):
        if sheet.has(key) and "wandb" in found:
            sheet.tell(key, "mapped", "training.report_to", "runs go to the project that WANDB_PROJECT names")
        elif sheet.has(key):
            sheet.ignored(key, "Weights & Biases is off")
    for key, word in _TRACKERS:
        if (on := sheet.flag(key)) is not None:
            sheet.tell(key, "mapped", "training.report_to")
            found += [word] if on else []
    if found:
        sheet.set("training.report_to", found)
