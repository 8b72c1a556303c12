"""Bytes of a job's folder: by part, hard links once, links never followed, measured again only after a change."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio.jobs.views import disk
from studio.jobs.views.disk import DiskBook, gigabytes, measure
from tests.jobs.made import CHECKPOINT_BYTES, MODEL_BYTES, trained


def test_parts_add_up_to_what_lies_there(settings) -> None:
    job = trained(settings.jobs, "a")
    job.exports.mkdir()
    (job.exports / "a.gguf").write_bytes(b"e" * 700)
    use = measure(job.path)
    everything = sum(path.stat().st_size for path in job.path.rglob("*") if path.is_file())
    assert use.total == use.freed == everything and use.exports == 700
    assert use.model == MODEL_BYTES + (job.model / "adapter_config.json").stat().st_size
    assert use.checkpoints > CHECKPOINT_BYTES and use.rest > 0


def test_links_count_once_or_not_at_all(settings, tmp_path) -> None:
    job = trained(settings.jobs, "a")
    before = measure(job.path)
    weights = job.model / "adapter_model.safetensors"
    os.link(weights, job.model / "twin.safetensors")
    (tmp_path / "base.bin").write_bytes(b"b" * 5000)
    os.link(tmp_path / "base.bin", job.model / "base.bin")
    big = tmp_path / "elsewhere"
    big.mkdir()
    (big / "huge.bin").write_bytes(b"h" * 9000)
    (job.path / "out").symlink_to(big, target_is_directory=True)
    (job.model / "loop").symlink_to(job.path, target_is_directory=True)
    use = measure(job.path)
    assert use.model == before.model + 5000, "the twin is the same file"
    assert use.shared == 5000 and use.freed == before.total, "the base lies elsewhere too"


def test_only_a_change_is_measured_again(settings, monkeypatch) -> None:
    jobs = [trained(settings.jobs, name, status="completed") for name in ("a", "b")]
    walked: list[Path] = []

    def counted(folder: Path) -> disk.DiskUse:
        walked.append(folder)
        return measure(folder)

    monkeypatch.setattr(disk, "measure", counted)
    book = DiskBook()
    sizes, complete = book.sizes(jobs, 10)
    assert complete and sizes == {job.id: measure(job.path).total for job in jobs}
    for _ in range(3):
        book.sizes(jobs, 10)
    assert len(walked) == 2
    (jobs[0].checkpoints / "checkpoint-10" / "more.bin").write_bytes(b"x" * 400)
    assert book.of(jobs[0]).total == sizes[jobs[0].id] + 400 and len(walked) == 3


def test_measuring_many_stops_after_its_time_and_goes_on(settings, monkeypatch) -> None:
    jobs = [trained(settings.jobs, f"r{number}") for number in range(5)]
    clock = iter(range(1000))
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    book = DiskBook()
    assert book.sizes(jobs, -1) == ({}, False)
    known = [len(book.sizes(jobs, 4)[0]) for _ in range(4)]
    assert known == [2, 4, 5, 5], "each call measures others"
    assert book.sizes(jobs, 4)[1] is True


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1230, "1.23 kB"), (45_600_000, "45.6 MB"), (123e9, "123 GB")],
)
def test_sizes_in_words(count, text) -> None:
    assert gigabytes(int(count)) == text
