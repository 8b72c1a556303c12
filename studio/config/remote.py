"""What a fine-tuning job at OpenAI, or at another service of the same API, is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator

from studio.config.jobs import AUTO, CHOOSE_ROWS, DEMO_TEST, HELD_OUT
from studio.errors import InputError
from studio.methods import RowKind
from studio.option import Options, option

PREFIX = "openai:"
RemoteMethod = Literal["supervised", "dpo", "reinforcement"]
# What each method learns from.
KINDS: dict[RemoteMethod, RowKind] = {"supervised": "answers", "dpo": "pairs", "reinforcement": "prompts"}
# Options that nobody types.
FILLED_IN = ("adopt", "key", "budget")


class OpenAIConfig(Options):
    """A fine-tuning job that runs at OpenAI: the rows are sent, and the tuned model stays there."""

    model: str = option(
        "openai:gpt-4o-mini-2024-07-18",
        "Model to fine-tune, as openai:NAME; 'studio openai models' lists those with a known price. A model that was "
        "tuned before (ft:…) can be tuned further.",
        title="Model at OpenAI", tier="basic", min_length=1,
    )  # fmt: skip
    data: str = option(
        "", "File of rows in any readable format, or already in OpenAI's. It is sent to the service.",
        title="Rows", tier="basic",
    )  # fmt: skip
    validation: str | None = option(
        None, "File of rows on which the loss is measured; it is sent, too. Empty for none, or for a share.",
        title="Validation rows", tier="basic",
    )  # fmt: skip
    validation_share: float = option(
        0.0, "Share of the rows held out for validation where there is no file; 0.1 to 0.2 is usual, 0 is none.",
        title="Validation share", tier="basic", ge=0, le=0.5,
    )  # fmt: skip
    method: RemoteMethod = option(
        "supervised",
        "supervised learns the answers, dpo which of two answers is better, reinforcement from a grader's score.",
        title="Method", tier="basic",
    )  # fmt: skip
    n_epochs: int | Literal["auto"] = option(
        "auto", "Passes over the rows; the price grows with them. auto leaves the choice to the service.",
        title="Epochs", unit="epochs", tier="basic",
    )  # fmt: skip
    batch_size: int | Literal["auto"] = option(
        "auto", "Examples in a step, up to 256. auto leaves the choice to the service.", title="Batch size",
        unit="examples",
    )  # fmt: skip
    learning_rate_multiplier: float | Literal["auto"] = option(
        "auto", "Factor on the service's own learning rate. auto leaves the choice to the service.",
        title="Learning rate multiplier",
    )  # fmt: skip
    beta: float | Literal["auto"] = option(
        "auto", "How strongly DPO keeps the model close to the reference model, above 0 and up to 2.", title="Beta",
        needs=("method", ("dpo",)),
    )  # fmt: skip
    grader: str | None = option(
        None, "Grader of the reinforcement method, as JSON in OpenAI's format.", title="Grader",
        needs=("method", ("reinforcement",)),
    )  # fmt: skip
    suffix: str | None = option(
        None, "Up to 64 characters that become part of the tuned model's name.", title="Suffix", tier="basic",
        max_length=64, min_length=1,
    )  # fmt: skip
    seed: int | None = option(
        None, "The same seed and rows should give the same model; empty lets the service choose.", title="Seed", ge=0,
        le=2**31 - 1,
    )  # fmt: skip
    base_url: str | None = option(
        None,
        "Address of the service. Empty: OPENAI_BASE_URL, or OpenAI's own. From the page only these two are possible, "
        "since the key is sent there.",
        title="Address",
    )  # fmt: skip
    adopt: str = option("", "Id of a job at the service that was started elsewhere.", title="Earlier job")
    key: str = option("", "What is sent, as a hash: nothing is started twice.", title="Key")
    budget: float | None = option(None, "Estimated price that was confirmed.", title="Confirmed price", unit="USD")

    @field_validator("n_epochs", "batch_size")
    @classmethod
    def _within(cls, value: int | str, info: ValidationInfo) -> int | str:
        most = 50 if info.field_name == "n_epochs" else 256
        if value != "auto" and not 1 <= int(value) <= most:
            raise ValueError(f"a number from 1 to {most}, or auto, is needed")
        return value

    @field_validator("learning_rate_multiplier", "beta")
    @classmethod
    def _above_zero(cls, value: float | str, info: ValidationInfo) -> float | str:
        if value != "auto" and (float(value) <= 0 or (info.field_name == "beta" and float(value) > 2)):
            raise ValueError("a number above 0, or auto, is needed" + (", at most 2" * (info.field_name == "beta")))
        return value

    @field_validator("grader")
    @classmethod
    def _a_mapping(cls, value: str | None) -> str | None:
        try:
            sound = value is None or isinstance(json.loads(value), dict)
        except ValueError:
            sound = False
        if not sound:
            raise ValueError('the grader is not a JSON object such as {"type": "string_check", …}')
        return value

    @property
    def name(self) -> str:
        """The model's name as the service knows it."""
        return self.model.strip().removeprefix(PREFIX)


def usual_elsewhere(job: Mapping[str, Any]) -> str:
    """Return the rows that say most of a model at a service, as `usual_rows` does of a run.

    Args:
        job: configuration of the job that tuned it, as job.yaml has it.
    """
    held = job.get("validation") or (HELD_OUT if job.get("validation_share") else "")
    demo = str(job.get("data") or "").startswith("demo/")
    return str(held) or (DEMO_TEST if demo else HELD_OUT)


def asked_elsewhere(asked: str, job: Mapping[str, Any], name: str) -> str:
    """Return the file of rows on which a model at a service is evaluated, as `asked_rows` does for a run.

    Args:
        asked: a file, AUTO or HELD_OUT.
        job, name: configuration of the job that tuned it, as job.yaml has it, and its name.

    Raises:
        InputError: the job's own rows are asked for, and it held out none.
    """
    if asked not in (AUTO, HELD_OUT):
        return asked
    rows = usual_elsewhere(job) if asked == AUTO else str(job.get("validation") or HELD_OUT)
    if rows == HELD_OUT and not job.get("validation_share"):
        raise InputError(f"'{name}' held out no rows", where="data", fix=CHOOSE_ROWS)
    return rows
