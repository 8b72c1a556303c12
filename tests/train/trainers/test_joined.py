"""Pretraining over joined documents, as a real process: every example full, and it learns."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.jobs import Summaries, read_events, submit, wait
from studio.settings import Settings
from tests.parity.made import write_rows

LIMIT, BATCH, STEPS = 32, 4, 3


@pytest.mark.long
@pytest.mark.parametrize("packing", [False, True])
def test_examples_are_full(session_settings: Settings, tiny: Path, tmp_path: Path, packing: bool) -> None:
    texts = [{"text": f"The number {n} comes after {n - 1}. " * (1 + n % 9)} for n in range(1, 60)]
    config = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(write_rows(tmp_path / "texts.jsonl", texts))}], "validation": 0.1,
                 "max_length": LIMIT},
        "method": {"name": "pretrain", "documents": "join"},
        "training": {"max_steps": STEPS, "batch_size": BATCH, "learning_rate": 1e-2, "padding_free": packing},
    }  # fmt: skip
    job = submit(session_settings, "train", f"joined-{packing}", config)
    assert wait(job, seconds=240).status == "completed", job.log_path.read_text()
    assert Summaries().of(job).tokens == STEPS * BATCH * LIMIT
    events = [event for event in read_events(job.events_path)[0] if event["kind"] == "metric"]
    losses = [event["values"]["loss"] for event in events if "loss" in event["values"]]
    assert len(losses) == STEPS and losses[-1] < losses[0]
