"""Lines of a log by number, however long it is."""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from studio.jobs.run.diagnosis import oom_kills, rose
from studio.jobs.store.logs import lines_around, read_tail

LINES = 400_000


def test_the_tail_knows_its_line_numbers(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(f"line {number}\n" for number in range(1, LINES + 1)))
    began = time.monotonic()
    tail = read_tail(log)
    place = tail.text.index(f"line {LINES - 7}\n")
    assert tail.line_at(place) == LINES - 7
    assert tail.line_at(len(tail.text) - 1) == LINES
    for wanted in (1, 150, 2 * LINES // 3, LINES):
        first, lines = lines_around(log, wanted, before=5, after=5)
        assert lines[wanted - first] == f"line {wanted}"
        assert first == max(1, wanted - 5) and len(lines) <= 11
    assert lines_around(log, LINES + 100) == (LINES - 100, [f"line {LINES - 100 + n}" for n in range(101)])
    assert lines_around(log, 3 * LINES)[1] == []
    assert time.monotonic() - began < 5
    assert read_tail(tmp_path / "none").text == "" and lines_around(tmp_path / "none", 1) == (1, [])


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x85\u2028"), max_size=30), max_size=60),
       st.integers(1, 70), st.booleans())  # fmt: skip
def test_lines_are_those_of_an_editor(tmp_path_factory, lines: list[str], wanted: int, ends: bool) -> None:
    log = tmp_path_factory.mktemp("log") / "log.txt"
    log.write_text("\n".join(lines) + ("\n" if ends and lines else ""), encoding="utf-8")
    first, found = lines_around(log, wanted, before=3, after=3)
    expected = lines if not lines or ends or lines[-1] else lines[:-1]  # an empty last line is no line
    assert found == expected[first - 1 : wanted + 3]


def test_a_progress_bar_shows_its_last_state_and_a_long_line_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"a\n 1%\r 50%\r100%\n" + b"x" * 3_000_000 + b"\nlast\n")
    _, lines = lines_around(log, 1)
    assert lines[:2] == ["a", "100%"] and set(lines[2]) == {"x"} and len(lines[2]) < 5000 and lines[3] == "last"


def test_the_kernel_is_asked_in_both_versions_of_cgroups(tmp_path: Path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    assert oom_kills(proc, cgroups) == {}
    (proc / "vmstat").write_text("nr_free_pages 17\noom_kill 2\n")
    (proc / "self" / "cgroup").write_text("4:memory,cpu:/inner\n0::/box\n")
    (cgroups / "memory" / "inner").mkdir(parents=True)
    (cgroups / "memory" / "inner" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    (cgroups / "box").mkdir()
    (cgroups / "box" / "memory.events").write_text("low 0\noom 1\noom_kill 7\noom_group_kill 0\n")
    before = oom_kills(proc, cgroups)
    assert sorted(before.values()) == [2, 5, 7]
    assert rose(before, before) is False and rose({}, before) is None
    (cgroups / "box" / "memory.events").write_text("oom_kill 8\n")
    assert rose(before, oom_kills(proc, cgroups)) is True
