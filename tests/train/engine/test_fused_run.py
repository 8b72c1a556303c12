"""A training job with the engine's layers: what its log says, and the losses of one without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.kernels import building
from studio.settings import Settings
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, reported, write_rows

SECTIONS: dict[str, Any] = {"data": {"max_length": 256}, "tuning": {"name": "lora", "rank": 4}}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))


def losses(settings: Settings, folder: Path, rows: Path, **training: Any) -> list[float]:
    """The loss of each step."""
    context = job_for(settings, folder, rows, **SECTIONS, training=training)
    train(context)
    return reported(context)


@pytest.mark.parametrize(
    "padding_free", [pytest.param(False, marks=pytest.mark.long), True], ids=["padded", "padding-free"]
)
def test_a_job_says_what_is_fused_and_learns_the_same(
    settings: Settings, tiny: Path, rows: Path, padding_free: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = losses(settings, tiny, rows, kernels="off", padding_free=padding_free)
    assert "fused" not in capfd.readouterr().out and len(plain) == 6
    found = losses(settings, tiny, rows, kernels="auto", padding_free=padding_free)
    assert (
        "fused kernels: 8 groups of LoRA layers, 5 norms, 2 gates, rotary positions, attention, no padding, "
        "shared prefixes\n" in capfd.readouterr().out
    )
    assert found == pytest.approx(plain, rel=1e-5)


def test_without_a_compiler_the_log_says_so_and_the_rest_is_fused(
    settings: Settings, tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("studio.train.engine.fused.place", lambda: tmp_path / "nothing")
    building.load.cache_clear()
    plain = losses(settings, tiny, rows, kernels="off", max_steps=1)
    context = job_for(settings, tiny, rows, **SECTIONS, training={"kernels": "auto", "max_steps": 1})
    train(context)
    assert "fused kernels: 8 groups of LoRA layers (a C++ compiler is needed" in capfd.readouterr().out
    assert context.job.environment()["plan"]["unpadded"] is False, "planned anew for what there is"
    assert reported(context) == pytest.approx(plain, rel=1e-5)
