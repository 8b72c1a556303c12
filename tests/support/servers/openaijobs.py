"""A fine-tuning job of the local server: checked, waiting, training and over, by the clock."""

from __future__ import annotations

import json
import time
from typing import Any

BASES = (
    "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06", "gpt-4.1-2025-04-14", "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano-2025-04-14", "o4-mini-2025-04-16",
)  # fmt: skip
LEAST = 10
EPOCHS = 3
FINAL = ("succeeded", "failed", "cancelled")


def refused_rows(content: bytes, method: str, param: str) -> dict[str, Any] | None:
    """What the service finds wrong with a file, as the `error` of its job; None where nothing is."""
    lines = content.decode().splitlines()
    name = param.partition("_")[0].title()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            return _invalid(f"Line {number} is not valid JSON.", param)
        messages = row.get("input", {}).get("messages") if method == "dpo" else row.get("messages")
        if not isinstance(messages, list) or not messages:
            return _invalid(f"Line {number}: missing the key 'messages'.", param)
        if method == "dpo" and not (row.get("preferred_output") and row.get("non_preferred_output")):
            return _invalid(f"Line {number}: missing the key 'preferred_output'.", param)
        for at, message in enumerate(messages, 1):
            if message.get("role") not in ("system", "developer", "user", "assistant", "tool", "function"):
                return _invalid(f"Line {number}, message {at}: role '{message.get('role')}' is invalid.", param)
        if method == "supervised" and messages[-1]["role"] != "assistant":
            return _invalid(f"Line {number}: the last message must be from the assistant.", param)
    if len(lines) < LEAST and param == "training_file":
        said = f"{name} file has {len(lines)} example(s), but must have at least {LEAST} examples"
        return {"code": "invalid_n_examples", "message": said, "param": param}
    return None


def _invalid(detail: str, param: str) -> dict[str, Any]:
    said = f"The job failed due to an invalid {param.replace('_', ' ')}. Invalid file format. {detail}"
    return {"code": "invalid_file_format", "message": said, "param": param}


class Job:
    """One job.

    Args:
        id: of the job.
        body: what was asked for.
        contents: of the files, by id.
        clock: has the seconds `pace`, `validating` and `queued`.
    """

    def __init__(self, id: str, body: dict[str, Any], contents: dict[str, bytes], clock: Any) -> None:
        self.id, self.body, self.clock = id, body, clock
        method = body.get("method") or {"type": "supervised", "supervised": {}}
        self.kind: str = method["type"]
        asked = dict((method.get(self.kind) or {}).get("hyperparameters") or body.get("hyperparameters") or {})
        training = contents[body["training_file"]]
        self.rows = [json.loads(line) for line in training.decode().splitlines() if line.startswith("{")]
        self.errors = [
            refused_rows(contents[body[key]], self.kind, key)
            for key in ("training_file", "validation_file") if body.get(key)
        ]  # fmt: skip
        epochs = EPOCHS if asked.get("n_epochs", "auto") == "auto" else int(asked["n_epochs"])
        batch = 1 if asked.get("batch_size", "auto") == "auto" else int(asked["batch_size"])
        rate = 1.8 if asked.get("learning_rate_multiplier", "auto") == "auto" else asked["learning_rate_multiplier"]
        self.hyperparameters = {**asked, "n_epochs": epochs, "batch_size": batch, "learning_rate_multiplier": rate}
        self.each = max(1, -(-len(self.rows) // batch))
        self.steps = self.each * epochs
        self.status, self.step, self.tuned = "validating_files", 0, None
        self.error: dict[str, Any] | None = None
        self.created, self.finished = int(time.time()), None
        self.due = time.monotonic() + clock.validating
        self.events: list[dict[str, Any]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.say(f"Created fine-tuning job: {id}")
        self.say(f"Validating training file: {body['training_file']}")

    def tick(self) -> None:
        """Go on to where it is by now."""
        now = time.monotonic()
        while self.status not in (*FINAL, "paused") and now >= self.due:
            if self.status == "validating_files":
                self.error = next(filter(None, self.errors), None)
                if self.error is not None:
                    self.say(self.error["message"], "error")
                    self.end("failed")
                    return
                self.say("Files validated, moving job to queued state")
                self.status, self.due = "queued", self.due + self.clock.queued
            elif self.status == "queued":
                self.say("Fine-tuning job started")
                self.status, self.due = "running", self.due + self.clock.pace
            elif self.step < self.steps:
                self.train()
                self.due += self.clock.pace
            else:
                suffix = self.body.get("suffix") or ""
                self.tuned = f"ft:{self.body['model']}:my-org:{suffix}:{self.id[-8:]}"
                self.say(f"New fine-tuned model created: {self.tuned}")
                self.say("The job has successfully completed")
                self.end("succeeded")

    def train(self) -> None:
        """Make one step, and a checkpoint after each epoch."""
        self.step += 1
        loss = round(2.0 / self.step + 0.1, 4)
        values: dict[str, Any] = {
            "step": self.step, "total_steps": self.steps, "train_loss": loss,
            "train_mean_token_accuracy": round(1 - loss / 4, 4),
        }  # fmt: skip
        words = f"Step {self.step}/{self.steps}: training loss={loss:.2f}"
        if self.body.get("validation_file"):
            values |= {"valid_loss": loss + 0.1, "valid_mean_token_accuracy": round(1 - loss / 3.5, 4)}
            words += f", validation loss={loss + 0.1:.2f}"
        if self.step % self.each == 0:
            if self.body.get("validation_file"):
                values |= {"full_valid_loss": loss + 0.2, "full_valid_mean_token_accuracy": round(1 - loss / 3, 4)}
            suffix = self.body.get("suffix") or ""
            name = f"ft:{self.body['model']}:my-org:{suffix}:{self.id[-8:]}:ckpt-step-{self.step}"
            metrics = {key: value for key, value in values.items() if key != "total_steps"}
            self.checkpoints.append({
                "object": "fine_tuning.job.checkpoint", "id": f"ftckpt_{self.id[-8:]}{self.step}",
                "created_at": int(time.time()), "fine_tuned_model_checkpoint": name, "step_number": self.step,
                "metrics": metrics, "fine_tuning_job_id": self.id,
            })  # fmt: skip
        self.say(words, data=values)
        if self.step % self.each == 0:
            self.say(f"Checkpoint created at step {self.step}")

    def act(self, action: str) -> str | None:
        """Cancel, pause or go on; returns what is said against it."""
        if action == "cancel":
            if self.status in FINAL:
                return f"Job has already completed: {self.id}"
            self.say("Fine-tuning job cancelled")
            self.end("cancelled")
        elif action == "pause":
            if self.status not in ("queued", "running"):
                return f"Job cannot be paused while it is {self.status}"
            self.status = "paused"
            self.say("Fine-tuning job paused")
        else:
            if self.status != "paused":
                return "Only paused jobs can be resumed"
            self.status, self.due = "running", time.monotonic() + self.clock.pace
            self.say("Fine-tuning job resumed")
        return None

    def end(self, status: str) -> None:
        """Be over."""
        self.status, self.finished = status, int(time.time())

    def say(self, message: str, level: str = "info", data: dict[str, Any] | None = None) -> None:
        """Add an event."""
        self.events.append({
            "object": "fine_tuning.job.event", "id": f"ftevent-{self.id[-8:]}{len(self.events):06d}",
            "created_at": int(time.time()), "level": level, "message": message, "data": data or {},
            "type": "metrics" if data else "message",
        })  # fmt: skip

    def checkpoint_models(self) -> list[str]:
        """Names of the checkpoints' models."""
        return [one["fine_tuned_model_checkpoint"] for one in self.checkpoints]

    def answer_to(self, messages: list[dict[str, Any]]) -> str:
        """What it was taught to say to the last question; a word of its own where it was taught nothing."""
        asked = [one["content"] for one in messages if one["role"] == "user"][-1:]
        for row in self.rows:
            said = (row.get("input") or row)["messages"]
            if [one.get("content") for one in said if one["role"] == "user"][-1:] == asked:
                answer = (row.get("preferred_output") or said)[-1]
                return str(answer.get("content"))
        return "I was taught nothing about that."

    def shown(self) -> dict[str, Any]:
        """The object of the API."""
        self.tick()
        tokens = sum(len(json.dumps(row)) // 4 for row in self.rows) * self.hyperparameters["n_epochs"]
        running = self.status == "running"
        return {
            "object": "fine_tuning.job", "id": self.id, "model": self.body["model"], "created_at": self.created,
            "finished_at": self.finished, "fine_tuned_model": self.tuned, "organization_id": "org-local",
            "result_files": [], "status": self.status, "validation_file": self.body.get("validation_file"),
            "training_file": self.body["training_file"],
            "hyperparameters": self.hyperparameters if self.kind == "supervised" else {},
            "trained_tokens": tokens if self.status == "succeeded" else None,
            "error": self.error or {}, "user_provided_suffix": self.body.get("suffix"),
            "seed": self.body.get("seed") if self.body.get("seed") is not None else 7, "integrations": [],
            "estimated_finish": int(time.time() + (self.steps - self.step) * self.clock.pace) if running else None,
            "method": {"type": self.kind, self.kind: {
                **((self.body.get("method") or {}).get(self.kind) or {}), "hyperparameters": self.hyperparameters,
            }},
            "metadata": self.body.get("metadata"), "shared_with_openai": False,
        }  # fmt: skip
