"""What early stopping, the best checkpoint and trackers need: validations, and packages."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec

from studio.errors import InputError
from studio.models.plan.making import steps_per_epoch
from studio.train.checks.known import Known
from studio.train.loop.best import watched


def _best(known: Known) -> None:
    training = known.config.training
    asked = {
        "early_stopping": bool(training.early_stopping),
        "load_best_model_at_end": training.load_best_model_at_end,
        "keep_best": training.keep_best is True,
        "metric_for_best_model": training.metric_for_best_model != "auto",
    }
    option = next((name for name, wanted in asked.items() if wanted), None)
    if option is None:
        return
    watched(known.config)
    where, lengths = f"training.{option}", known.lengths
    if known.config.data.validation in (0, None) or (lengths is not None and not lengths.validation_count):
        raise InputError(
            "without validation data there is no best checkpoint", where=where,
            fix="Set data.validation to 0.1, or reset this option",
        )  # fmt: skip
    if lengths is None or training.eval_steps == "auto":
        return
    per_epoch = steps_per_epoch(known.config, lengths.count, 1, training.batch_size)
    steps = training.max_steps or math.ceil(training.epochs * per_epoch)
    if training.eval_steps > steps:
        raise InputError(
            f"the run has {steps} steps, so a validation every {training.eval_steps} would never happen",
            where="training.eval_steps",
            fix=f"Set it to auto, or to at most {steps}",
        )


def _trackers(known: Known) -> None:
    for name in known.config.training.report_to:
        if find_spec(name) is None:
            raise InputError(
                f"the tracker {name} is not installed", where="training.report_to",
                fix=f"Install it ({sys.executable} -m pip install {name}), or remove it",
            )  # fmt: skip


WATCHING_CHECKS = (_best, _trackers)
