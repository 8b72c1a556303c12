"""An export with an importance matrix: for which types it is made, what it leaves behind, what is refused first."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from studio.chat.ask import job_target
from studio.config.jobs import MATRIX_HELPS, MATRIX_NEEDED, ExportConfig, GgufType
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.export.ggufs import GgufExport
from studio.export.job import export
from studio.export.proof.gates import TYPES
from studio.export.source import open_source
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings


@pytest.fixture(scope="module")
def run(adapter: Path, make_run: Callable[[Path], JobFolder]) -> JobFolder:
    return make_run(adapter)


def asked(settings: Settings, run: JobFolder, **config: Any) -> tuple[JobContext, JobFolder]:
    made = create_job(settings.jobs, "export", "weighted", {"run": run.id} | config)
    return JobContext(made, settings), made


def weighted(settings: Settings, run: JobFolder, types: list[str], imatrix: str) -> list[str]:
    context, _ = asked(settings, run, types=types, imatrix=imatrix)
    config = build(ExportConfig, context.config)
    return list(GgufExport(context, config, open_source(settings, run.id), None).weighted)


def test_the_option_says_for_which_types_it_is_made(session_settings: Settings, run: JobFolder) -> None:
    every = list(get_args(GgufType))
    assert set(weighted(session_settings, run, every, "auto")) == {*MATRIX_NEEDED, *MATRIX_HELPS}
    quantized = {kind for kind in every if not TYPES[kind].by_converter}
    assert set(weighted(session_settings, run, every, "on")) == quantized - {"q8_0"}
    assert weighted(session_settings, run, ["q4_k_m", "iq4_xs"], "off") == []


@pytest.mark.parametrize("kind", MATRIX_NEEDED)
def test_types_that_need_it_are_refused_without_it(kind: str) -> None:
    with pytest.raises(InputErrors, match=f"{kind} cannot be made without an importance matrix: choose auto"):
        build(ExportConfig, {"run": "x", "types": ["f16", kind], "imatrix": "off"})
    assert build(ExportConfig, {"run": "x", "to": "merged", "types": [kind], "imatrix": "off"}).to == "merged"


def test_rows_that_are_gone_are_said_before_anything_is_written(session_settings: Settings, run: JobFolder) -> None:
    lost = create_job(session_settings.jobs, "train", "lost rows", {"data": {"train": [{"path": "/gone.jsonl"}]}})
    lost.model.symlink_to(run.model)
    write_json(lost.environment_path, run.environment())
    write_state(lost.state_path, JobState(status="completed"))
    context, made = asked(session_settings, lost, types=["iq2_xs"])
    with pytest.raises(InputError, match=r"training rows.* no longer there.*gone\.jsonl"):
        export(context)
    assert not made.exports.exists()
    for types, imatrix, ready in (
        (["iq4_xs"], "on", False),
        (["iq4_xs", "iq1_s"], "auto", False),
        (["iq4_xs"], "auto", True),
    ):
        context, _ = asked(session_settings, lost, types=types, imatrix=imatrix)
        making = GgufExport(context, build(ExportConfig, context.config), open_source(session_settings, lost.id), None)
        with contextlib.nullcontext() if ready else pytest.raises(InputError, match="training rows"):
            making.prepare()
        assert (making.weighted == []) is ready, "what is only better with a matrix is made without"


@pytest.mark.long
def test_a_run_becomes_a_proven_file_with_its_matrix_beside_it(session_settings: Settings, run: JobFolder) -> None:
    context, made = asked(session_settings, run, types=["iq4_xs", "q8_0"])
    export(context)
    assert {path.name for path in made.exports.iterdir()} == {
        "Modelfile", "README.md", "stand-in-iq4_xs.gguf", "stand-in-q8_0.gguf", "stand-in.imatrix.gguf",
    }  # fmt: skip
    report = json.loads((made.report / "export.json").read_text())
    first, second = report["files"]
    assert (first["verdict"], first["imatrix"], second["imatrix"]) == ("as expected", True, False)
    told, content = report["imatrix"], (made.exports / "stand-in.imatrix.gguf").read_bytes()
    assert (told["bytes"], told["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (told["types"], told["sources"], told["entries"]) == (["iq4_xs"], ["demo/train.jsonl"], 210)
    readme = (made.exports / "README.md").read_text()
    assert told["sha256"] in readme and f"{told['rows']:,} training rows ({told['tokens']:,} tokens of" in readme
    events, _ = read_events(made.events_path, 0, 10_000_000)
    begun = [event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"]
    assert begun[begun.index("importance matrix") + 1] == "quantizing iq4_xs"
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"], "checksums"} == set(begun)
    steps = [event for event in events if event["kind"] == "phase" and event["phase"] == "importance matrix"]
    assert steps[-1]["done"] == steps[-1]["total"] == told["tokens"]
    with pytest.raises(InputError, match="it has 2 files"):
        job_target(made, session_settings)
