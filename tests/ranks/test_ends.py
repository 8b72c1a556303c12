"""Which rank is to blame, from what the ranks left behind: the dead one, and never those that lost their connection."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from studio.errors import StoppedError, StudioError
from studio.train.ranks import ends
from studio.train.ranks.ends import FOLDER, End, RankError, hung, looks_cut, verdict, write_end

CUT = End("cut", "an unexpected error (RuntimeError: Connection closed by peer)", fix="x", exit_code=1, line=7)
DONE = End("completed")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "log.txt").write_text("first\n12:00:00  training  3 of 9\n\n")
    (tmp_path / FOLDER / "rank-1.log").write_text("reading rows\n12:00:01  the very last\n")
    return tmp_path


def said(job: Path, ends: dict[int, End], codes: dict[int, int], count: int = 2) -> StudioError | None:
    for rank, end in ends.items():
        write_end(job, rank, end)
    return verdict(job, count, codes)


def test_all_that_completed_leave_nothing_to_say(job: Path) -> None:
    assert said(job, {0: DONE, 1: DONE}, {}) is None


def test_the_dead_rank_is_named_and_not_the_one_that_lost_it(job: Path) -> None:
    error = said(job, {0: CUT}, {0: 1, 1: -signal.SIGKILL})
    assert isinstance(error, RankError)
    assert error.what == (
        "rank 1 was killed (SIGKILL), most often because memory was full; the last line of rank-1.log is "
        "'12:00:01  the very last'"
    )
    assert error.fix.startswith("Resume it from its last checkpoint")


@pytest.mark.parametrize(
    ("before", "said_so"),
    [(3, "was killed by the kernel because memory was full (SIGKILL)"), (4, "not by the kernel for lack of memory")],
)
def test_the_kernel_tells_whether_memory_was_full(
    job: Path, monkeypatch: pytest.MonkeyPatch, before: int, said_so: str
) -> None:
    (job / "environment.json").write_text(json.dumps({"oom_kills": {"/proc/vmstat": before}}))
    monkeypatch.setattr(ends, "oom_kills", lambda: {"/proc/vmstat": 4})
    error = said(job, {0: CUT}, {0: 1, 1: -signal.SIGKILL})
    assert error is not None and said_so in error.what
    assert ("training.micro_batch_size" in error.fix) is (before == 3)


def test_a_rank_that_the_launcher_ended_is_not_to_blame(job: Path) -> None:
    error = said(job, {0: End("error", "a table cannot be read", fix="Write it again", line=3)}, {0: 1, 1: -15})
    assert isinstance(error, RankError)
    assert (error.what, error.fix, error.line) == ("a table cannot be read", "Write it again", 3)


def test_another_rank_says_its_own_reason(job: Path) -> None:
    error = said(job, {0: CUT, 1: End("error", "the computer's memory was full", fix="Lower it", line=2)}, {0: 1, 1: 1})
    assert isinstance(error, RankError) and error.line is None
    assert error.what.startswith("rank 1: the computer's memory was full; the last line of rank-1.log")


def test_a_sentence_of_the_studio_is_passed_on_with_its_exit_status(job: Path) -> None:
    end = End("studio", "there are no rows", "data.train", "Add some", {"a.b": 1}, 2)
    error = said(job, {0: end, 1: CUT}, {0: 2, 1: 1})
    assert isinstance(error, RankError)
    assert (error.what, error.fix, error.exit_code, error.change) == (
        "data.train: there are no rows", "Add some", 2, {"a.b": 1},
    )  # fmt: skip


def test_a_stop_is_a_stop_although_the_others_were_cut_off(job: Path) -> None:
    assert isinstance(said(job, {0: End("stopped", "it was stopped"), 1: CUT}, {1: 1}), StoppedError)


def test_who_dies_without_a_word_has_its_status_told(job: Path) -> None:
    error = said(job, {}, {1: 3})
    assert error is not None and error.what.startswith("rank 1 ended with exit status 3; the last line of rank-1.log")


def test_a_hanging_rank_is_told_with_where_it_stands(job: Path) -> None:
    assert hung(job, 1, 15.4, "score (rewards.py, line 7)").what == (
        "rank 1 has done nothing for 15 s, in score (rewards.py, line 7); the last line of rank-1.log is "
        "'12:00:01  the very last'"
    )
    assert "does not respond; it may have been suspended (SIGSTOP)" in hung(job, 0, 20, "").what


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1", True),
        ("Connection reset by peer", True),
        ("NCCL communicator was aborted on rank 1", True),
        ("Expected all tensors to be on the same device", False),
    ],
)
def test_a_lost_connection_is_known_by_what_torch_says(text: str, cut: bool) -> None:
    assert looks_cut(text) is cut
