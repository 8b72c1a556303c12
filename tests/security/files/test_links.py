"""Links where the studio reads a file of YAML or of a tokenizer, and where a job writes: none is followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from studio.config.load import load_yaml
from studio.errors import InputError
from studio.export.gguf.tokens import has_own_files
from studio.jobs.actions.queue import tell_held
from studio.jobs.run.notify import UNTOLD, expect_end
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import RESERVE, write_reserve
from studio.jobs.store.folder import JobFolder, create_job
from studio.locks import HeldError
from studio.reach import append_in, open_own, reading_for
from studio.settings import PRESETS, Settings
from tests.security.files.swaps import INSIDE, OUTSIDE, swapped, tried


@pytest.fixture
def ours(ours: Settings) -> Settings:
    (ours.temporary / "gradio" / "0a1b").mkdir(parents=True)
    return ours


@pytest.mark.parametrize("place", ["uploads", "tmp/gradio/0a1b"])
def test_a_yaml_file_that_becomes_a_link(place: str, ours: Settings, tmp_path: Path) -> None:
    file, outside = ours.home / place / "run.yaml", tmp_path / "outside.yaml"
    file.write_text(f"a: {INSIDE}\n")
    outside.write_text(f"a: {OUTSIDE}\n")
    with reading_for(ours), swapped(file, outside):
        inside, leaked = tried(lambda: load_yaml(file))
    assert (inside > 0, leaked) == (True, 0)


def test_whose_yaml_is_read(ours: Settings, tmp_path: Path) -> None:
    """The presets whoever asks, a file of elsewhere only for the command line, which may give a pipe as well."""
    file = tmp_path / "run.yaml"
    file.write_text("a: 1\n")
    with reading_for(ours):
        assert load_yaml(PRESETS / "demo" / "sft.yaml")["model"]
        for path in (file, PRESETS / ".." / ".." / tmp_path.relative_to("/") / "run.yaml"):
            with pytest.raises(InputError):
                load_yaml(path)
        with pytest.raises(InputError), open_own(ours.temporary / "gradio" / ".." / ".." / "x", ours.temporary):
            pass
    assert load_yaml(file) == {"a": 1}
    read, write = os.pipe()
    os.write(write, b"a: 2\n")
    os.close(write)
    assert load_yaml(Path(f"/proc/self/fd/{read}")) == {"a": 2}
    os.close(read)


def test_a_tokenizer_that_becomes_a_link(ours: Settings, tmp_path: Path) -> None:
    """An export compares the files of run and base: two that lie outside are never found equal to each other."""
    run, base = ours.models / "run", ours.models / "base"
    for folder in (run, base):
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text("{}")
        (folder / "tokenizer_config.json").write_text(f'{{"at": "{folder.name}"}}')
    outside = tmp_path / "tokenizer.json"
    outside.write_text(OUTSIDE)
    with reading_for(ours):
        assert has_own_files(run, base)
        for folder in (run, base):
            (folder / "tokenizer.json").unlink()
            (folder / "tokenizer.json").symlink_to(outside)
        with pytest.raises(InputError):
            has_own_files(run, base)


WRITES: dict[str, Callable[[JobFolder, Settings], object]] = {
    "events.jsonl": lambda job, settings: EventWriter(job.events_path).write("notice", text="x"),
    "log.txt": lambda job, settings: append_in(job.path, "log.txt").write(b"x"),
    UNTOLD: lambda job, settings: expect_end(replace(settings, webhook="http://127.0.0.1:1/"), job),
    RESERVE: lambda job, settings: write_reserve(job.path),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("there", [True, False])
def test_a_job_writes_through_no_link(name: str, there: bool, settings: Settings, tmp_path: Path) -> None:
    job, target = create_job(settings.jobs, "train", "foreign", {}), tmp_path / "profile"
    if there:
        target.write_text(OUTSIDE)
        os.utime(target, (1, 1))
    (job.path / name).unlink(missing_ok=True)
    (job.path / name).symlink_to(target)
    try:
        WRITES[name](job, settings)
    except InputError as error:
        assert name in error.where
    assert target.exists() == there
    assert not there or (target.read_text(), target.stat().st_mtime) == (OUTSIDE, 1)


@pytest.mark.parametrize("name", ["events.jsonl", "log.txt", "checkpoints", "model", "exports", "report"])
def test_a_job_with_a_link_is_not_started(name: str, settings: Settings, tmp_path: Path) -> None:
    """Its folder came from elsewhere: the supervisor says so, lives on, and starts the next job."""
    began, elsewhere = tmp_path / "began", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "checkpoint-1").write_text(OUTSIDE)
    job = create_job(settings.jobs, "train", "foreign", {"mode": "x"})
    (job.path / name).unlink(missing_ok=True)
    (job.path / name).symlink_to(elsewhere / "checkpoint-1" if "." in name else elsewhere)
    supervisor = Supervisor(settings, lambda one: ["touch", str(began)])
    tell_held(job, HeldError("held"))
    supervisor.step()
    state = job.state()
    assert (state.status, name in state.reason, began.exists()) == ("failed", True, False)
    assert (elsewhere / "checkpoint-1").read_text() == OUTSIDE
