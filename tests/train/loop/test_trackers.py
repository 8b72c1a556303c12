"""Trackers get the run's numbers at the right steps, in the run's folder, without a network; a broken one ends no run.

TensorBoard belongs to the test packages. The others are tried where they are installed, or where STUDIO_TRACKERS
names a folder into which they were (pip install --target).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import studio
from studio.cli.main import app
from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputErrors
from studio.jobs import JobFolder, Summaries, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.views.summary import tracked as tracked_places
from studio.settings import Settings
from studio.train.loop.trackers import Trackers, local_places
from studio.train.worker import train
from tests.parity.made import job_for, write_rows

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": f"The number is {n}."}]}
    for n in range(12)
]
EXTRA = os.environ.get("STUDIO_TRACKERS", "")
KEYS = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm",
        "tokens_per_second": "train/tokens_per_second", "eval_loss": "eval/loss"}  # fmt: skip


def run(settings: Settings, tiny: Path, tmp_path: Path, *names: str) -> JobContext:
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    return job_for(settings, tiny, rows, training={"report_to": list(names), "eval_steps": 2})


def told(job: JobFolder) -> dict[str, dict[int, float]]:
    """What the run's own events say, by tracker's name and step."""
    found: dict[str, dict[int, float]] = {}
    for event in read_events(job.events_path)[0]:
        for name, value in event["values"].items() if event["kind"] == "metric" else ():
            if name in KEYS:
                found.setdefault(KEYS[name], {})[event["step"]] = value
    return found


def same(got: dict[str, dict[int, float]], job: JobFolder) -> None:
    expected = told(job)
    assert set(expected) == set(KEYS.values())
    for name, values in expected.items():
        assert list(got[name]) == list(values), name
        assert list(got[name].values()) == pytest.approx(list(values.values()), rel=1e-5), name


def seen(job: JobFolder) -> dict[str, str]:
    """Where `studio jobs show` says that the run is seen, by tracker."""
    shown = CliRunner().invoke(app, ["jobs", "show", job.id]).stdout
    places = dict(tracked_places(Summaries().of(job)))
    assert places and all(f"{title}: {place}" in shown for title, place in places.items()), shown
    return places


def test_tensorboard_files_hold_the_runs_numbers(settings, tiny, tmp_path, monkeypatch, capsys) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    context = run(settings, tiny, tmp_path, "tensorboard")
    with monkeypatch.context() as patch:
        for name in local_places(tmp_path, {}):
            patch.setenv(name, "")  # put back afterwards
        train(context)
    files = EventAccumulator(str(context.job.report / "tensorboard")).Reload()
    same({name: {one.step: one.value for one in files.Scalars(name)} for name in KEYS.values()}, context.job)
    command = seen(context.job)["TensorBoard"]
    program, *arguments = shlex.split(command)
    assert arguments == ["--logdir", str(context.job.report / "tensorboard")]
    assert shutil.which(program) and f"TensorBoard: {command}" in capsys.readouterr().out


def test_a_missing_package_is_refused_before_loading(settings, tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("studio.train.checks.watching.find_spec", lambda name: None)
    context = run(settings, tiny, tmp_path, "mlflow")
    with pytest.raises(InputErrors) as refused:
        train(context)
    assert refused.value.where == "training.report_to"
    assert f"{sys.executable} -m pip install mlflow" in refused.value.fix
    assert "loading model" not in [event.get("phase") for event in read_events(context.job.events_path)[0]]


def test_names_are_words_of_the_list() -> None:
    def asked(value: Any) -> Any:
        return build(RunConfig, {"training": {"report_to": value}}).training.report_to

    assert asked("tensorboard, wandb,tensorboard") == asked(["tensorboard", "wandb"]) == ["tensorboard", "wandb"]
    assert asked("") == asked([]) == []
    with pytest.raises(InputErrors, match=r"training\.report_to.*'tensorboard', 'trackio', 'wandb' or 'mlflow'"):
        asked("tensorbord")


def test_a_tracker_that_fails_is_dropped_with_a_notice(settings, tiny, tmp_path) -> None:
    class Broken:
        calls = 0

        def __getattr__(self, event: str) -> Any:
            Broken.calls += 1
            raise RuntimeError("the server is away")

    class Good:
        def __init__(self) -> None:
            self.events: list[str] = []

        def __getattr__(self, event: str) -> Any:
            return lambda *_, **__: self.events.append(event)

    context, good = run(settings, tiny, tmp_path), Good()
    trackers = Trackers(context, {"wandb": Broken(), "mlflow": good})
    trackers.on_log(None, None, None, logs={})
    trackers.on_train_end(None, None, None)
    assert Broken.calls == 1 and good.events == ["on_log", "on_train_end"]
    (notice,) = [event for event in read_events(context.job.events_path)[0] if event["kind"] == "notice"]
    assert notice["text"].startswith("wandb gets no more data") and "the server is away" in notice["text"]


def test_what_the_person_has_set_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # without a login in .netrc
    places = local_places(tmp_path / "report", {})
    assert places["WANDB_MODE"] == "offline" and places["TRACKIO_DIR"].startswith(str(tmp_path))
    own = {"WANDB_API_KEY": "key", "MLFLOW_TRACKING_URI": "http://server:5000", "WANDB_PROJECT": "mine"}
    places = local_places(tmp_path / "report", own)
    assert not {"WANDB_MODE", "MLFLOW_TRACKING_URI", "WANDB_PROJECT"} & set(places)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert "WANDB_MODE" not in local_places(tmp_path / "report", {})


def tracked(name: str, settings: Settings, tiny: Path, tmp_path: Path) -> JobContext:
    """A run with another tracker, in a process of its own that finds the package."""
    if find_spec(name) is None and not (EXTRA and (Path(EXTRA) / name).is_dir()):
        pytest.skip(f"{name} is not installed")
    context = run(settings, tiny, tmp_path, name)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "MLFLOW", "TRACKIO"))}
    # The folder comes last: what it brings beside the tracker must not replace the studio's own libraries.
    code = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('studio.train', run_name='__main__')"
    path = os.pathsep.join(filter(None, (str(Path(studio.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    env = {**clean, "PYTHONPATH": path, "STUDIO_HOME": str(settings.home), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, EXTRA, str(context.job.path)], cwd=context.job.path, env=env,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert context.job.state().status == "completed", done.stdout + done.stderr
    problems = [event for event in read_events(context.job.events_path)[0] if event.get("level") == "warning"]
    assert problems == []
    return context


def test_mlflow_in_a_file(settings, tiny, tmp_path) -> None:
    context = tracked("mlflow", settings, tiny, tmp_path)
    with sqlite3.connect(context.job.report / "mlflow.db") as opened:
        rows = opened.execute("select key, step, value from metrics order by step").fetchall()
    got: dict[str, dict[int, float]] = {}
    for key, step, value in rows:
        name = f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
        got.setdefault(name, {})[step] = value
    same(got, context.job)
    *_, address = shlex.split(seen(context.job)["MLflow"])
    assert address == f"sqlite:///{context.job.report / 'mlflow.db'}"


# A .wandb file: 7 bytes, then records in blocks of 32 kB as LevelDB's log has them, each a protobuf message.
WANDB_READER = """
import json, struct, sys
sys.path.append(sys.argv[1])
from wandb.proto import wandb_internal_pb2 as messages
data, place, record, found = open(sys.argv[2], "rb").read(), 7, b"", []
while place + 7 <= len(data):
    if 32768 - place % 32768 < 7:
        place += 32768 - place % 32768
        continue
    _, length, kind = struct.unpack("<IHB", data[place : place + 7])
    record += data[place + 7 : place + 7 + length]
    place += 7 + length
    if kind in (1, 4):
        one, record = messages.Record.FromString(record), b""
        if one.WhichOneof("record_type") == "history":
            items = one.history.item
            found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
print(json.dumps(found))
"""


def by_step(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Values by name and step, of rows that name their step among their values."""
    got: dict[str, dict[int, float]] = {}
    for row in rows:
        for name in set(KEYS.values()) & set(row):
            got.setdefault(name, {})[row["train/global_step"]] = row[name]
    return got


def test_wandb_offline(settings, tiny, tmp_path) -> None:
    context = tracked("wandb", settings, tiny, tmp_path)
    (file,) = (context.job.report / "wandb").glob("offline-run-*/run-*.wandb")
    command = [sys.executable, "-c", WANDB_READER, EXTRA, str(file)]
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    same(by_step(json.loads(read)), context.job)
    assert shlex.split(seen(context.job)["W&B"]) == ["wandb", "sync", str(file.parent)]


def test_trackio_local(settings, tiny, tmp_path) -> None:
    context = tracked("trackio", settings, tiny, tmp_path)
    with sqlite3.connect(context.job.report / "trackio" / "finetune-studio.db") as opened:
        rows = [json.loads(row[0]) for row in opened.execute("select metrics from metrics order by id")]
    same(by_step(rows), context.job)
    folder = f"TRACKIO_DIR={context.job.report / 'trackio'}"
    assert shlex.split(seen(context.job)["Trackio"]) == [folder, "trackio", "show", "--project", "finetune-studio"]
