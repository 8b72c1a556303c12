"""A run whose rows are streamed is the run that holds them: the same rows, losses and weights, also after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from studio.config import RunConfig
from studio.config.load import build
from studio.data.streaming.rows import StreamedRows
from studio.errors import InputError
from studio.jobs import read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import write_state
from studio.settings import Settings
from studio.train.ranks.launching import run_ranks
from studio.train.trainers.supervised import SupervisedTrainer
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, logged, make_trainer, reported, trained_weights, write_rows
from tests.ranks.made import apart, config, curve

# The same rows in the same updates: only the micro-batches, which go by an estimate of the longest row, may differ.
TOLERANCE = 1e-6
STEPS, HALF = 7, 4


def options(streaming: str, **more: Any) -> dict[str, Any]:
    return {"truncation": "cut", "max_length": 512, "streaming": streaming, **more}


def test_losses_and_weights_are_those_without_streaming(settings: Settings, tiny: Path, tmp_path: Path) -> None:
    """Two epochs, so that tokens are made in the first and read in the second; the last update has fewer rows."""
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 19))
    done: dict[str, JobContext] = {}
    for streaming in ("off", "on"):
        done[streaming] = job_for(settings, tiny, rows, data=options(streaming), training={"batch_size": 4})
        train(done[streaming])
    off, on = done["off"], done["on"]
    assert len(reported(on)) == 8
    for name in ("loss", "eval_loss", "grad_norm", "mean_token_accuracy"):
        assert reported(on, name) == pytest.approx(reported(off, name), rel=1e-5, abs=TOLERANCE), name
    ours, theirs = (load_file(one.job.model / "adapter_model.safetensors") for one in (on, off))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) <= TOLERANCE
    data = on.job.environment()["data"]
    assert data["sources"][0]["sha256"] == off.job.environment()["data"]["sources"][0]["sha256"]
    assert any("the rows are streamed: 19 of 19 rows" in one["text"] for one in data["findings"])


class Stop(TrainerCallback):
    """Stops as the studio's own callback does when a person asks for it."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step == HALF:
            control.should_save = control.should_training_stop = True
        return control


def test_a_stopped_run_goes_on_at_the_next_row(settings: Settings, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """The stop lies within the second epoch."""
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    seen: list[list[list[int]]] = []
    original = SupervisedTrainer.training_step

    def step(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        seen.append(sorted(row.tolist() for part in inputs.micro_batches for row in part["input_ids"]))
        return original(self, model, inputs, *args)

    monkeypatch.setattr(SupervisedTrainer, "training_step", step)

    def made(name: str, streaming: str, stops: bool = False) -> Any:
        raw = {
            "model": {"path": str(tiny), "dtype": "float32"},
            "data": {"train": [{"path": str(rows)}], "validation": 0, **options(streaming)},
            "training": {"max_steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "save_steps": 1000},
        }
        found = make_trainer(raw, tiny, tmp_path / name, settings, [Stop()] if stops else [])
        assert isinstance(found.setup.train, StreamedRows) == (streaming == "on")
        return found.trainer

    whole = made("whole", "off")
    whole.train()
    expected = seen[:]
    seen.clear()
    made("half", "on", stops=True).train()
    assert len(seen) == HALF
    resumed = made("half", "on")
    resumed.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "half")))
    assert seen == expected and len(seen) == STEPS
    assert logged(resumed) == pytest.approx(logged(whole), abs=TOLERANCE)
    weights = trained_weights(whole)
    assert all(
        torch.allclose(weight, weights[name], atol=TOLERANCE) for name, weight in trained_weights(resumed).items()
    )


def again(context: JobContext) -> JobContext:
    """The same job in its second attempt, which goes on from its last checkpoint."""
    write_state(context.job.state_path, replace(context.job.state(), status="starting", attempt=2))
    return JobContext(context.job, context.settings)


def test_a_file_that_changed_after_the_stop_is_refused(settings: Settings, tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    training = {"batch_size": 4, "save_steps": 1, "max_steps": 2}
    context = job_for(settings, tiny, rows, data=options("on", validation=0), training=training)
    train(context)
    write_rows(rows, demo_rows("train.jsonl", 13)[1:])
    with pytest.raises(InputError, match=r"rows\.jsonl.*changed"):
        train(again(context))


def test_rows_left_out_in_training_are_named_and_counted(
    settings: Settings, tiny: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("studio.data.streaming.preparing._LOOKED_CHARACTERS", 100)
    texts: list[dict[str, Any]] = [{"text": f"Number {n}."} for n in range(264)]
    texts[258]["text"] += "<|im_end|> and more"
    rows = write_rows(tmp_path / "rows.jsonl", texts)
    context = job_for(
        settings, tiny, rows, data=options("on", validation=0, shuffle=False), method={"name": "pretrain"},
        training={"batch_size": 132, "epochs": 1},
    )  # fmt: skip
    train(context)
    assert len(reported(context)) == 2
    events, _ = read_events(context.job.events_path)
    notices = [event["text"] for event in events if event["kind"] == "notice" and event["level"] == "warning"]
    assert any(one.startswith("a row is left out") and "rows.jsonl, row 259" in one for one in notices)
    assert "1 row could not be used, and the next ones took their place" in notices


@pytest.mark.long
@pytest.mark.parametrize("method", ["sft", "pretrain"])
def test_two_ranks_stream_as_one_process_does(
    tiny: Path, settings: Settings, tmp_path: Path, monkeypatch, method: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    values, jobs = config(tiny, tmp_path, method, epochs=1, batch_size=4), []
    values["data"] |= {"validation": 0.25, "truncation": "cut"}
    for ranks, streaming in ((1, "off"), (2, "on")):
        raw = {**values, "data": {**values["data"], "streaming": streaming}}
        raw["training"] = {**values["training"], "devices": ranks}
        job = create_job(settings.jobs, "train", f"ranks-{ranks}", build(RunConfig, raw).model_dump(mode="json"))
        jobs.append(job)
        context = JobContext(job, settings)
        if ranks == 1:
            train(context)
        else:
            run_ranks(context, ranks)
    for name in ("loss", "eval_loss"):
        assert curve(jobs[1], name) == pytest.approx(curve(jobs[0], name), rel=1e-5), name
    assert apart(jobs[1], jobs[0]) <= 1e-5
