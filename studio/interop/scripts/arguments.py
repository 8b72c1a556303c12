"""The part of a script that says how is trained: what the trainer's config is given."""

from __future__ import annotations

from typing import Any

from studio.interop.report import by_part, rows_at_a_time
from studio.interop.scripts.source import Expression, source
from studio.interop.scripts.trainers import Trainer
from studio.interop.sheets.outgoing import Outgoing
from studio.models.plan.schedule import scheduler_arguments, warmup_steps


def arguments_of(out: Outgoing, trainer: Trainer, validates: bool) -> tuple[list[str], dict[str, str]]:
    """Lines in front of the arguments of a trainer's config, and these as they stand in the call.

    Args:
        out: told what became of the options.
        trainer: whose config it is.
        validates: whether there are validation rows.
    """
    training = out.config.training
    micro = rows_at_a_time(out.config, (4, 2, 1))
    rate, why = out.rate()
    out.tell("training.learning_rate", "approximated" if why else "mapped", "learning_rate", why)
    steps = training.max_steps
    found: dict[str, Any] = {
        "output_dir": "outputs", "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": training.batch_size // micro, "num_train_epochs": training.epochs,
    }  # fmt: skip
    if steps is not None:
        found["max_steps"] = steps
    lines, schedule = _schedule(out, rate)
    found |= schedule | {
        "optim": training.optimizer, "weight_decay": training.weight_decay, "max_grad_norm": training.max_grad_norm,
        "seed": training.seed, "logging_steps": 1,
    }  # fmt: skip
    if not out.config.data.shuffle and trainer.rows != "prompts":
        found["train_sampling_strategy"] = "sequential"
        out.tell("data.shuffle", "mapped", "train_sampling_strategy")
    if validates:
        found |= {
            "eval_strategy": "steps",
            "eval_steps": 0.125 if training.eval_steps == "auto" else training.eval_steps,
        }
        out.tell("training.eval_steps", "mapped", "eval_steps")
    by_epoch = training.save_steps == "auto"
    found |= {"save_strategy": "epoch"} if by_epoch else {"save_strategy": "steps", "save_steps": training.save_steps}
    found["save_total_limit"] = training.save_total_limit
    found["report_to"] = training.report_to or "none"
    found["gradient_checkpointing"] = training.activation_checkpointing is True
    for name in ("batch_size", "micro_batch_size", "epochs", "max_steps", "scheduler", "warmup", "optimizer",
                 "weight_decay", "max_grad_norm", "save_steps", "save_total_limit", "report_to",
                 "activation_checkpointing"):  # fmt: skip
        out.tell(f"training.{name}", "mapped", f"{trainer.name}Config")
    path = "training.activation_offloading"
    if training.activation_offloading != "auto" and trainer.offloads and not out.told(path):
        found["activation_offloading"] = training.activation_offloading
        why = "It moves all activations, recomputed or not" if training.activation_offloading else ""
        out.tell(path, "approximated" if why else "mapped", "activation_offloading", why)
    if why := by_part(out.config.method, training.batch_size, micro):
        out.tell("training.micro_batch_size", "approximated", "per_device_train_batch_size", why)
    found |= trainer.options(out)
    text = {name: source(value) for name, value in found.items()}
    exact = out.config.model.dtype == "float32"
    return lines, {**text, "bf16": "False" if exact else "bf16", "use_cpu": "not torch.cuda.is_available()"}


def _schedule(out: Outgoing, rate: float) -> tuple[list[str], dict[str, Any]]:
    """Lines in front of the arguments, and how the learning rate changes, as in the studio.

    TRL rounds a share of warmup up, so the steps are counted where they are not given.
    """
    training, method = out.config.training, out.config.method
    name, most = training.scheduler, training.max_steps
    found: dict[str, Any] = {"learning_rate": rate, "lr_scheduler_type": name}
    beside = scheduler_arguments(name, most or 0, rate)
    if beside:
        found["lr_scheduler_kwargs"] = beside
    if most is not None:
        return [], found | {"warmup_steps": warmup_steps(name, training.warmup, most)}
    if "num_decay_steps" in beside:
        beside["num_decay_steps"] = Expression("max(1, steps // 10)")
    rising = f"round({training.warmup} * steps)"
    if name == "polynomial":  # it divides by the number of the other steps
        rising = f"min({rising}, steps - 1)"
    found["warmup_steps"] = Expression(rising) if training.warmup else 0
    if not training.warmup and "num_decay_steps" not in beside:
        return [], found
    rows = "len(dataset)" if not method.kind.online else f"{method.kind.completions(method)} * len(dataset)"
    return [f"steps = math.ceil({training.epochs} * math.ceil({rows} / {training.batch_size}))"], found
