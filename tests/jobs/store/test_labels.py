"""Names, tags, notes and the archive mark of jobs: kept beside what was asked, within limits, found again."""

from __future__ import annotations

import shutil
import threading

import pytest

from studio.errors import InputError
from studio.jobs import find_job
from studio.jobs.store import joblock
from studio.jobs.store.folder import create_job, taken_names
from studio.jobs.store.labels import NAME, Labels, change_labels, changed_tags, read_labels
from studio.locks import locked


def test_labels_are_kept_beside_what_was_asked(settings) -> None:
    job = create_job(settings.jobs, "train", "first", {"a": 1})
    asked = (job.path / "job.yaml").read_text()
    assert read_labels(job.path) == Labels() and job.name == "first"
    change_labels(job.path, name="  The   best ", tags=["good", "Good", "base-1"], note=" line 1\nline 2 ")
    change_labels(job.path, archived=True)
    assert job.labels() == Labels("The best", ("good", "base-1"), "line 1\nline 2", True)
    assert job.name == "The best" and (job.path / "job.yaml").read_text() == asked
    change_labels(job.path, name="", tags=[], note="", archived=False)
    assert job.labels() == Labels() and job.name == "first"


def test_a_renamed_job_is_found_by_either_name_and_takes_nobody_elses_id(settings) -> None:
    old, other = (create_job(settings.jobs, "train", name, {}) for name in ("demo", "other"))
    change_labels(old.path, name="keeper")
    assert [find_job(settings.jobs, name).id for name in ("keeper", "demo", old.id)] == [old.id] * 3
    change_labels(old.path, name="other")
    change_labels(other.path, name="demo")
    assert find_job(settings.jobs, "other").id == old.id, "the shown name wins over a first name"
    change_labels(old.path, name=other.id)
    assert find_job(settings.jobs, other.id).id == other.id


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "x" * 81}, "the name has 81 characters"),
        ({"name": "a\x07b"}, "unprintable"),
        ({"tags": ["two words"]}, "'two words' is not a tag"),
        ({"tags": ["-a"]}, "'-a' is not a tag"),
        ({"tags": [""]}, "'' is not a tag"),
        ({"tags": ["#"]}, "'' is not a tag"),
        ({"tags": ["x" * 25]}, "is too long"),
        ({"tags": [f"t{number}" for number in range(13)]}, "these are 13 tags"),
        ({"note": "x" * 4001}, "the note has 4001 characters"),
    ],
)
def test_limits_are_sentences_and_change_nothing(settings, change, words) -> None:
    job = create_job(settings.jobs, "train", "first", {})
    before = change_labels(job.path, name="kept", tags=["kept"], note="kept")
    with pytest.raises(InputError, match=words) as caught:
        change_labels(job.path, **change)
    assert caught.value.fix and job.labels() == before


@pytest.mark.parametrize("content", ["{", "[1]", '{"name": 1}', '{"tags": 5}', '{"archived": "no"}', "\udcff"])
def test_a_damaged_file_hides_no_job_and_is_not_overwritten(settings, content) -> None:
    job = create_job(settings.jobs, "train", "first", {})
    raw = content.encode(errors="surrogateescape")
    (job.path / NAME).write_bytes(raw)
    assert job.name == "first" and find_job(settings.jobs, "first").id == job.id
    with pytest.raises(InputError, match="cannot be read"):
        change_labels(job.path, note="new")
    assert (job.path / NAME).read_bytes() == raw


def test_two_changes_at_once_lose_nothing(settings) -> None:
    job = create_job(settings.jobs, "train", "first", {})
    changes = [{"name": "n"}, {"tags": ["t"]}, {"note": "x"}, {"archived": True}] * 3
    threads = [threading.Thread(target=change_labels, args=(job.path,), kwargs=change) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert job.labels() == Labels("n", ("t",), "x", True)


def test_signs_add_and_take_away_tags() -> None:
    assert changed_tags(["a", "b"], ["+c", "d", "-A"]) == ["b", "c", "d"]
    assert changed_tags(["a", "#old"], ["+#c", "#d", "-#a", "-old"]) == ["c", "d"], "as lists show them"
    with pytest.raises(InputError, match="there is no tag 'x'"):
        changed_tags(["a"], ["-x"])


def test_a_job_that_was_removed_meanwhile_is_not_made_again(settings) -> None:
    job, other = (create_job(settings.jobs, "train", name, {}) for name in ("gone", "stays"))

    def removed_by_another_page(path, what):
        shutil.rmtree(job.path)
        return locked(path, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joblock, "locked", removed_by_another_page)
        with pytest.raises(InputError, match=f"the job '{job.id}' has been removed meanwhile"):
            change_labels(job.path, name="kept")
    with pytest.raises(InputError, match="has been removed meanwhile"):
        change_labels(job.path, note="kept")
    assert list(settings.jobs.iterdir()) == [other.path] and "gone" not in taken_names(settings.jobs)
