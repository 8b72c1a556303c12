"""TensorBoard, Trackio, W&B and MLflow, through the callbacks of transformers.

They are told what the job's events hold, at the same steps. Without a key or an address in the environment each
writes into the run's folder and asks no server. A tracker that fails is dropped with a notice: it ends no run. Once
all have begun, the job's result `trackers` says where each shows the run.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers.integrations import INTEGRATION_TO_CALLBACK

from studio.jobs.run.worker import JobContext
from studio.train.loop.seen import place_of, secrets

PROJECT = "finetune-studio"
WANDB_HOST = "api.wandb.ai"


class Trackers:
    """The chosen trackers as one callback of a trainer: what happens is passed on to each that still works."""

    def __init__(self, context: JobContext, working: dict[str, Any]) -> None:
        self._context, self._working = context, working

    def __getattr__(self, event: str) -> Callable[..., None]:
        if not event.startswith("on_"):
            raise AttributeError(event)
        return partial(self._pass_on, event)

    def on_train_begin(self, *args: Any, **more: Any) -> None:
        """Let each tracker begin, then say where the run is seen in them; a resumed run says it anew."""
        self._pass_on("on_train_begin", *args, **more)
        found = {name: place for name in self._working if (place := self._place(name))}
        for place in found.values():
            self._context.log(f"{place['title']}: {place.get('url') or place['command']}")
        if found:
            self._context.result("trackers", found)

    def _pass_on(self, event: str, *args: Any, **more: Any) -> None:
        for name, tracker in list(self._working.items()):
            try:
                getattr(tracker, event)(*args, **more)
            except Exception as error:  # of another's code and network
                del self._working[name]
                first = _without_keys(" ".join(str(error).split()))[:200]
                self._context.notice(
                    "warning", f"{name} gets no more data from this run ({type(error).__name__}: {first})",
                    "The run continues, and the studio's charts are complete; training.report_to selects the trackers",
                )  # fmt: skip

    def _place(self, name: str) -> dict[str, str]:
        try:
            return place_of(name, self._working[name])
        except Exception as error:  # of another's code: no address is better than a wrong one, and it ends no run
            self._context.log(f"{name} gave no link to the run ({type(error).__name__})")
            return {}


def _without_keys(text: str) -> str:
    """What a service said, which may quote the key that it was given."""
    for name, value in secrets().items():
        text = text.replace(value, f"[{name}]")
    return text


def attach(trainer: Any, context: JobContext, chosen: list[str]) -> None:
    """Let the chosen trackers watch a trainer; called once its own callbacks are there, which complete the numbers.

    Args:
        trainer: a transformers Trainer, not yet started.
        context: of the job; its report folder receives local logs, its name becomes the tracker's run name.
        chosen: names of transformers' integrations (`tensorboard`, `wandb`, …); empty for none.
    """
    if not chosen:
        return
    for name, value in local_places(context.job.report, dict(os.environ)).items():
        os.environ[name] = value
    trainer.args.run_name, trainer.args.project = context.job.request.name, PROJECT
    trainer.args.trackio_static_space_id = False  # nothing is published
    working: dict[str, Any] = {}
    trackers = Trackers(context, working)
    for name in chosen:
        working[name] = INTEGRATION_TO_CALLBACK[name]()
    trainer.add_callback(trackers)


def local_places(report: Path, environment: dict[str, str]) -> dict[str, str]:
    """Return the environment by which trackers write into a folder; what the person has set stays.

    Args:
        report: the job's folder of reports.
        environment: as it is.
    """
    wanted = {
        "TENSORBOARD_LOGGING_DIR": str(report / "tensorboard"),
        "TRACKIO_DIR": str(report / "trackio"),
        "WANDB_DIR": str(report),  # where it makes a folder wandb
        "WANDB_PROJECT": PROJECT,
        "WANDB_CONSOLE": "off",
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{report / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    if not environment.get("WANDB_API_KEY") and not _has_login(WANDB_HOST):
        wanted["WANDB_MODE"] = "offline"
    report.mkdir(exist_ok=True)
    return {name: value for name, value in wanted.items() if not environment.get(name)}


def _has_login(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
