"""`studio jobs` for what comes after a run: names, tags, notes, archive, comparison, removal."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from studio.cli.main import main
from studio.jobs.store.state import write_state
from tests.jobs.made import trained


@pytest.fixture
def studio(settings, capsys):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["jobs", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_list_is_text_and_no_id_is_cut(studio, settings) -> None:
    names = [f"a-long-name-of-a-run-that-differs-at-its-end-only-{end}" for end in "ab"]
    for name in names:
        job = trained(settings.jobs, name, [0.5], status="failed")
        write_state(job.state_path, job.state().with_(reason="[/x] [enforce fail] bad end"))
    code, out, _ = studio("list")
    assert code == 0 and all(f"{name} " in out for name in names)
    assert out.count("[/x] [enforce fail] bad end") == 2


def test_rename_tag_and_note_are_kept_and_shown(studio, settings) -> None:
    job = trained(settings.jobs, "first", [0.5])
    assert studio("rename", "first", "The best")[0] == 0
    assert studio("tag", "The best", "+good", "base")[1] == "'The best': good, base\n"
    assert json.loads(studio("tag", job.id, "-base", "--json")[1])["tags"] == ["good"]
    assert studio("note", "first", "beats all others")[0] == 0
    code, out, _ = studio("show", "The best")
    assert code == 0 and "tags: good" in out and "beats all others" in out and "on disk: checkpoints" in out
    shown = json.loads(studio("show", job.id, "--json")[1])
    assert shown["name"] == "The best" and shown["labels"]["tags"] == ["good"] and shown["disk"]["total"] > 4000
    assert studio("rename", job.id, "")[0] == 0 and job.name == "first"


def test_archived_ones_are_left_out_of_the_list(studio, settings) -> None:
    kept, away = trained(settings.jobs, "kept"), trained(settings.jobs, "away")
    assert studio("archive", "away")[1] == "archived: 'away'\n"
    _, out, err = studio("list")
    assert kept.id in out and away.id not in out and "1 archived" in err
    assert {row["id"]: row["archived"] for row in json.loads(studio("list", "--json")[1])["jobs"]} == {
        kept.id: False, away.id: True,
    }  # fmt: skip
    assert studio("unarchive", away.id, kept.id)[0] == 0
    assert away.id in studio("list")[1]


def test_what_runs_is_listed_whoever_archived_it(studio, settings) -> None:
    job = trained(settings.jobs, "a", status="running")
    studio("archive", "a")
    assert job.id in studio("list")[1]
    write_state(job.state_path, job.state().with_(status="completed"))
    assert job.id not in studio("list")[1]


def test_compare_prints_what_differs(studio, settings) -> None:
    first = trained(settings.jobs, "a[red]", [0.5], tuning={"rank": 8})
    second = trained(settings.jobs, "b", [0.6])
    code, out, _ = studio("compare", first.id, "b")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert code == 0 and "a[red]" in out, "a name is no markup"
    assert lines["tuning.rank"].split()[1:] == ["8", "16"]
    assert lines["Best validation loss"].split()[3:] == ["0.5", "best", "0.6"]
    found = json.loads(studio("compare", first.id, second.id, "--json")[1])
    assert [row["key"] for row in found["options"]] == ["tuning.rank"]
    assert studio("compare", first.id, "b", "--as", "markdown")[1].startswith("| | a\\[red\\] | b |\n|---|---|---|\n")
    table = csv.reader(io.StringIO(studio("compare", first.id, "b", "--as", "csv")[1]))
    assert next(table)[3] == "a[red]"


def test_delete_asks_and_refuses_where_nobody_can_answer(studio, settings, monkeypatch) -> None:
    job, other = trained(settings.jobs, "a"), trained(settings.jobs, "b", status="running")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = studio("delete", "a")
    assert code == 2 and "no terminal to ask on" in err and "kB" in err and job.path.exists()
    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    code, out, err = studio("delete", "a")
    assert code == 0 and out == "nothing was deleted\n" and f"'a' ({job.id})" in err and job.path.exists()
    code, out, _ = studio("delete", "a")
    assert code == 0 and "freed" in out and not job.path.exists()
    code, _, err = studio("delete", "b", "--yes")
    assert code == 2 and "'b' has not finished (running)" in err and other.path.exists()


def test_a_name_of_several_is_no_name_to_delete_by(studio, settings) -> None:
    jobs = [trained(settings.jobs, "same") for _ in range(2)]
    for verb in ("delete", "clean"):
        code, _, err = studio(verb, "same", "--yes")
        assert code == 2 and "2 jobs are called 'same'" in err and all(job.id in err for job in jobs)
    assert all(job.checkpoints.exists() for job in jobs)
    answer = json.loads(studio("delete", jobs[0].id, jobs[0].id, "--yes", "--json")[1])
    assert answer["ids"] == [jobs[0].id] and jobs[1].path.exists()


def test_clean_keeps_the_model(studio, settings) -> None:
    job = trained(settings.jobs, "a")
    freed = json.loads(studio("clean", "a", "--yes", "--json")[1])["freed_bytes"]
    assert freed > 3000 and not job.checkpoints.exists() and (job.model / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tag", "a", "-none"], "there is no tag 'none'. The job's tags: none."),
        (["tag", "a", "--yess"], "no such option: --yess"),
        (["tag", "a"], "Missing argument"),
        (["rename", "a"], "Missing argument 'NAME'"),
        (["rename", "a", "two", "words"], "unexpected extra argument(s) (words)"),
        (["note", "a", "x", "y"], "unexpected extra argument(s) (y)"),
        (["stop", "a", "b"], "unexpected extra argument(s) (b)"),
        (["compare", "a"], "one run cannot be compared with itself"),
        (["compare", "a", "a"], "a run is given twice"),
        (["delete"], "Missing argument"),
        (["delete", "b"], "there is no job 'b'"),
        (["list", "--nope"], "No such option: --nope"),
    ],
)
def test_wrong_words_are_sentences(studio, settings, words, said) -> None:
    job = trained(settings.jobs, "a")
    code, _, err = studio(*words)
    assert code == 2 and said in err and job.path.exists() and job.labels().tags == ()
