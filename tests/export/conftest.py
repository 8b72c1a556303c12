"""Fixtures of the export: an adapter that stands in for a trained one, runs that hold it, and one real export."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.export.steps import QuietWatcher
from studio.jobs import JobFolder, list_jobs
from studio.jobs.run.warm import Warm
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import ASSETS, Settings
from studio.train.loop.saving import save_tokenizer
from tests.parity.made import make_tiny

TYPES = ["f16", "q4_0"]  # q4_0: made in a tenth of q4_k_m's time


def perturb(model: Any, std: float) -> Any:
    """Give lora_B the values that training would: it starts at zero, where nothing could go wrong."""
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model


def export_of(settings: Settings, run: JobFolder, to: str, **config: Any) -> JobContext:
    """An export job that waits to be run in this process."""
    return JobContext(create_job(settings.jobs, "export", to, {"run": run.id, "to": to} | config), settings)


def line_of(context: JobContext) -> dict[str, Any]:
    """The first line of an export's report."""
    found: dict[str, Any] = json.loads((context.job.report / "export.json").read_text())["files"][0]
    return found


@pytest.fixture(autouse=True)
def steps_come_forked(forked_steps: Warm) -> None:
    """Every export of these tests is as quick as one of the studio's."""


@pytest.fixture(autouse=True)
def nothing_waits(session_settings: Settings) -> Iterator[None]:
    """Jobs that a test made by hand do not wait in the shared home: the next supervisor would run them."""
    yield
    for job in list_jobs(session_settings.jobs):
        if job.state().status == "queued":
            write_state(job.state_path, job.state().with_(status="stopped", reason="made by a test"))


@pytest.fixture(scope="session")
def adapter(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the embedded model, as a training run saves it."""
    folder = tmp_path_factory.mktemp("adapter") / "model"
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(7)  # PEFT draws A; without it the stand-in depended on which tests had run before
    perturb(get_peft_model(model, config), 0.01).save_pretrained(folder)
    save_tokenizer(AutoTokenizer.from_pretrained(model_path), model_path, folder, trust_remote_code=False)
    return folder


@pytest.fixture(scope="session")
def make_run(session_settings: Settings, model_path: Path) -> Callable[[Path], JobFolder]:
    """Make a completed training job whose result is the given folder."""

    def make(model: Path, base: Path | None = None) -> JobFolder:
        data = {"train": [{"path": "demo/train.jsonl"}], "validation": "demo/validation.jsonl"}
        run = create_job(session_settings.jobs, "train", "stand in", {"data": data})
        shutil.copytree(model, run.model)
        from_base = {"name": "smollm2-135m-instruct", "path": str(base or model_path)}
        write_json(run.environment_path, {"base_model": from_base})
        write_state(run.state_path, JobState(status="completed"))
        return run

    return make


@pytest.fixture(scope="session")
def small_run(
    model_path: Path, make_run: Callable[..., JobFolder], tmp_path_factory: pytest.TempPathFactory
) -> JobFolder:
    """A run of a tiny random model, for what an export does whatever its weights are."""
    folder = tmp_path_factory.mktemp("small")
    base = make_tiny(model_path, folder / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(7)
    config = LoraConfig(r=12, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    perturb(get_peft_model(model, config), 0.3).save_pretrained(folder / "adapter")
    save_tokenizer(AutoTokenizer.from_pretrained(base), base, folder / "adapter", trust_remote_code=False)
    return make_run(folder / "adapter", base)


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the demo's test rows."""
    path = tmp_path_factory.mktemp("rows") / "three.jsonl"
    path.write_text("".join((ASSETS / "demo" / "test.jsonl").read_text().splitlines(keepends=True)[:3]))
    return path


@pytest.fixture(scope="session")
def exported(
    session_settings: Settings,
    adapter: Path,
    make_run: Callable[[Path], JobFolder],
    rows_file: Path,
    forked_steps: Warm,
) -> JobFolder:
    """A finished export of the stand-in to two types, by the process that the studio starts; one row is answered."""
    run, row = make_run(adapter), rows_file.with_name("one.jsonl")
    row.write_text(rows_file.read_text().splitlines(keepends=True)[0])
    config = {"run": run.id, "types": TYPES, "imatrix": "off", "evaluate": str(row)}
    job = create_job(session_settings.jobs, "export", "stand in", config)
    with job.log_path.open("wb") as log:
        process = forked_steps.start("studio.export", [str(job.path)], log, job.path, dict(os.environ))
    assert process.wait(580) == 0, job.log_path.read_text()[-3000:]
    return job


@pytest.fixture(scope="session")
def report(exported: JobFolder) -> dict[str, Any]:
    """report/export.json of the real export."""
    return json.loads((exported.report / "export.json").read_text())


class Recorder(QuietWatcher):
    """A watcher that keeps what it is told, and asks to stop after so many polls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.notices: list[str] = []
        self.polls, self.stop_after = 0, stop_after

    def log(self, text: str) -> None:
        self.lines.append(text)

    def notice(self, level: str, text: str, fix: str = "") -> None:
        self.notices.append(text)

    def should_stop(self) -> bool:
        self.polls += 1
        return self.stop_after is not None and self.polls > self.stop_after


@pytest.fixture
def watcher() -> Recorder:
    """A watcher that nobody stops."""
    return Recorder()


class Counter:
    """A phase that keeps what it was set to."""

    def __init__(self) -> None:
        self.values: list[tuple[float, float | None]] = []

    def set(self, done: float, total: float | None = None) -> None:
        self.values.append((done, total))


@pytest.fixture
def counter() -> Counter:
    """A phase to look at."""
    return Counter()
