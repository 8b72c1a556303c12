"""Answers for many viewers: made once while the files stay, and never more than a few megabytes of them."""

from __future__ import annotations

from pathlib import Path

from studio.ui.routes import answers as module
from studio.ui.routes.answers import KeptAnswers, file_stamp


def test_an_answer_is_made_once_while_its_files_stay(tmp_path: Path) -> None:
    path, made = tmp_path / "events.jsonl", []
    answers = KeptAnswers()

    def ask(keep: bool = True) -> bytes:
        return answers.get("asked", file_stamp(path), lambda: (made.append(1), (b"%d" % len(made), keep))[1])

    assert (ask(), ask()) == (b"1", b"1")
    path.write_text("a")
    assert (ask(), ask()) == (b"2", b"2")
    with path.open("a") as file:
        file.write("b")
    assert (ask(), ask()) == (b"3", b"3")
    other = tmp_path / "other"
    other.write_text("ab")
    other.replace(path)
    assert ask() == b"4"
    path.unlink()
    assert ask(keep=False) == b"5"
    assert (ask(), ask()) == (b"6", b"6")


def test_what_is_kept_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "ALL_BYTES", 100)
    monkeypatch.setattr(module, "ONE_BYTES", 40)
    answers, made = KeptAnswers(), []

    def ask(name: str, size: int) -> None:
        answers.get(name, (), lambda: (made.append(name), (b"x" * size, True))[1])

    for name in ("a", "b", "a", "c", "a", "b"):
        ask(name, 40)
    assert made == ["a", "b", "c", "b"]  # "a" was asked for again in time, "b" had to go
    ask("large", 41)
    ask("large", 41)
    assert made[4:] == ["large", "large"]
