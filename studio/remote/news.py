"""What the service says of a job, as the job's own events: messages, numbers of steps, checkpoints.

Each event carries the id of what it was made of, so whoever goes on after a kill knows what is written already.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from studio.jobs.run.worker import JobContext
from studio.jobs.store.events import read_events
from studio.jobs.store.folder import JobFolder
from studio.remote.client import Patience, is_missing
from studio.remote.record import update_record

if TYPE_CHECKING:
    import openai

# What the service calls a number, and what the studio does.
NAMES = {
    "train_loss": "loss", "train_mean_token_accuracy": "mean_token_accuracy",
    "full_valid_loss": "eval_loss", "full_valid_mean_token_accuracy": "eval_mean_token_accuracy",
    "valid_loss": "eval_loss_of_batch", "valid_mean_token_accuracy": "eval_mean_token_accuracy_of_batch",
    "train_mean_reward": "reward", "valid_mean_reward": "eval_reward", "full_valid_mean_reward": "eval_reward",
}  # fmt: skip
LEVELS = {"warn": "warning", "error": "error"}
_PAGE = 100


class News:
    """Fetches what is new of one job, and writes it.

    Args:
        context: of the job.
        client: of the service.
        id: of the job there.
        patience: with outages.
    """

    def __init__(self, context: JobContext, client: openai.OpenAI, id: str, patience: Patience) -> None:
        self._context, self._client, self._id, self._patience = context, client, id, patience
        self._known = known_ids(context.job)
        self.step = 0
        self.total: int | None = None

    def fetch(self, estimated_finish: int | None = None) -> None:
        """Write what the service has said since the last time, the oldest first.

        Args:
            estimated_finish: Unix seconds, as the service says; None where it does not.
        """
        jobs = self._client.fine_tuning.jobs

        def look() -> list[Any]:
            new: list[Any] = []
            for one in jobs.list_events(self._id, limit=_PAGE):  # newest first, further pages as they are needed
                if one.id in self._known:
                    break
                new.append(one)
            return new

        for event in reversed(self._patience.ask("read the job's events", look)):
            self._write(event, estimated_finish)
            self._known.add(event.id)

    def fetch_checkpoints(self) -> None:
        """Note the models on the way in the job's record."""
        jobs = self._client.fine_tuning.jobs

        def look() -> list[Any]:
            try:
                return list(jobs.checkpoints.list(self._id, limit=_PAGE))
            except Exception as error:
                if is_missing(error):  # a service that keeps none
                    return []
                raise

        found = self._patience.ask("read the job's checkpoints", look)
        values = [
            {"step": one.step_number, "model": one.fine_tuned_model_checkpoint, "id": one.id,
             "metrics": one.metrics.model_dump(exclude_none=True) if one.metrics else {}}
            for one in sorted(found, key=lambda one: one.step_number)
        ]  # fmt: skip
        update_record(self._context.job, checkpoints=values)

    def _write(self, event: Any, estimated_finish: int | None) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        step = data.get("step")
        if event.type == "metrics" or isinstance(step, int):
            values = {ours: data[name] for name, ours in NAMES.items() if isinstance(data.get(name), int | float)}
            if isinstance(step, int) and step > 0 and values:
                total = data.get("total_steps")
                self.step, self.total = step, total if isinstance(total, int) else self.total
                eta = None if estimated_finish is None else max(0.0, estimated_finish - time.time())
                more = {"total_steps": self.total} | ({} if eta is None else {"eta": round(eta, 1)})
                self._context.metric(step, values, remote=event.id, **more)
                return
        text = str(event.message or "")
        self._context.log(text)
        if level := LEVELS.get(event.level):
            self._context.event("notice", level=level, text=text, fix="", remote=event.id)
        else:
            self._context.event("remote", text=text, remote=event.id)


def known_ids(job: JobFolder) -> set[str]:
    """Ids of what the service has said and the job's events have."""
    found: set[str] = set()
    offset = 0
    while True:
        events, following = read_events(job.events_path, offset)
        found.update(str(event["remote"]) for event in events if event.get("remote"))
        if following == offset:
            return found
        offset = following
