"""Where a run is seen in its trackers: no address is better than a wrong one, and none holds a secret."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from studio.jobs.views.summary import JobSummary, tracked
from studio.train.loop.seen import place_of, public_address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://wandb.ai/ada/orders/runs/1a2b?apiKey=0123456789", "https://wandb.ai/ada/orders/runs/1a2b"),
        ("http://ada:secret@host:5000/ml/#/experiments/1/runs/2", "http://host:5000/ml/#/experiments/1/runs/2"),
        ("http://[::1]:5000/#/experiments/1", "http://[::1]:5000/#/experiments/1"),
        ("https://host/runs/hf_TopSecretToken", ""),
        ("javascript:alert(1)", ""), ("postgresql://ada:secret@host/db", ""), ("http://", ""), ("http://host:port", ""),
        ("databricks", ""), ("", ""),
    ],
)  # fmt: skip
def test_an_address_of_the_web_without_what_is_secret(
    address: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_TopSecretToken")
    assert public_address(address) == shown


def test_a_command_is_copied_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    folder = tmp_path / "my runs"
    tracker = TensorBoardCallback(SummaryWriter(log_dir=str(folder)))
    monkeypatch.setenv("PATH", "/nowhere")  # of a terminal in which the studio's environment is not active
    place = place_of("tensorboard", tracker)
    program, *arguments = shlex.split(place["command"])
    assert Path(program) == Path(sys.executable).parent / "tensorboard" and arguments == ["--logdir", str(folder)]
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert place_of("tensorboard", tracker) == {"title": "TensorBoard", "command": f"tensorboard --logdir '{folder}'"}
    tracker.on_train_end(None, None, None)
    assert place_of("tensorboard", tracker) == {}


@pytest.mark.parametrize(
    "told", [{"wandb": "text"}, {"wandb": {"title": 1, "url": "https://a"}}, {"wandb": {"url": 1}}]
)
def test_what_another_program_wrote_is_no_place(told: dict[str, object]) -> None:
    summary = JobSummary()
    summary.add({"kind": "result", "seq": 1, "time": 0.0, "name": "trackers", "values": told})
    assert tracked(summary) == []
