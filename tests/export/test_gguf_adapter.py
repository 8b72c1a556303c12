"""The adapter as a GGUF answers beside the base model's GGUF as the trained model does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from studio.errors import StudioError
from studio.export import ggufadapter
from studio.export.job import export
from studio.export.steps import StepResult
from studio.jobs import JobFolder, read_events
from studio.settings import Settings
from tests.export.conftest import export_of, line_of


@pytest.fixture(scope="module")
def run(adapter: Path, make_run: Callable[[Path], JobFolder]) -> JobFolder:
    return make_run(adapter)


make = partial(export_of, to="gguf-lora")


@pytest.mark.long
def test_it_answers_as_trained(session_settings: Settings, run: JobFolder, rows_file: Path) -> None:
    context = make(session_settings, run, evaluate=str(rows_file))
    export(context)
    entry = line_of(context)
    assert (entry["type"], entry["verdict"], entry["notes"]) == ("gguf-lora", "as trained", [])
    assert entry["prompt_ids_equal"] and entry["end_of_turn_stops"] and entry["exact_match"]["total"] == 3
    assert [path.name for path in context.job.exports.glob("*.gguf")] == ["stand-in-lora-f16.gguf"]
    assert entry["bytes"] < 20_000_000, "the matrices alone"
    assert "--lora stand-in-lora-f16.gguf" in (context.job.exports / "README.md").read_text()
    events, _ = read_events(context.job.events_path, 0, 10_000_000)
    begun = {event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"}
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"], "checksums"} == begun


@pytest.mark.long
@pytest.mark.parametrize("factor", [0, 2])
def test_another_adapter_is_caught(
    factor: int, session_settings: Settings, run: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ggufadapter.convert

    def convert(source: Path, target: Path, *given: Any) -> StepResult:
        file = source / "adapter_model.safetensors"
        if file.is_file():
            held = {name: one * factor if "lora_B" in name else one for name, one in load_file(file).items()}
            save_file(held, file, metadata={"format": "pt"})
        return usual(source, target, *given)

    monkeypatch.setattr(ggufadapter, "convert", convert)
    context = make(session_settings, run)
    with pytest.raises(StudioError, match="differ"):
        export(context)
    assert line_of(context)["verdict"] == "differs" and "mean KL" in " ".join(line_of(context)["notes"])
