"""Names, paths and look-up of jobs; whole files."""

from __future__ import annotations

import pytest

from studio.config import RunConfig
from studio.errors import InputError
from studio.jobs import find_job, list_jobs
from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.finding import find_only, find_own
from studio.jobs.store.folder import create_job, folder_name
from studio.jobs.store.labels import change_labels


def test_ids_are_unique_and_names_are_kept(settings) -> None:
    jobs = [create_job(settings.jobs, "train", "My run / 1", {"a": 1}) for _ in range(3)]
    assert len({job.id for job in jobs}) == 3
    assert all(job.request.name == "My run / 1" and "/" not in job.id for job in jobs)
    assert {job.id for job in list_jobs(settings.jobs)} == {job.id for job in jobs}


@pytest.mark.parametrize("name", ["", "///", "…"])
def test_a_name_of_nothing_is_refused(settings, name) -> None:
    with pytest.raises(InputError, match="is not a name"):
        create_job(settings.jobs, "train", name, {})


def test_a_name_in_another_script_has_a_folder_of_its_own(settings) -> None:
    first, second, again = (create_job(settings.jobs, "train", name, {}) for name in ("训练", "学习", "训练"))
    assert (first.name, second.name) == ("训练", "学习")
    assert all(job.id.isascii() for job in (first, second, again))
    assert folder_name("训练") != folder_name("学习")
    assert find_job(settings.jobs, "学习").id == second.id


def test_a_job_of_another_home_is_not_taken_for_one_of_ours(settings, tmp_path) -> None:
    own, foreign = (create_job(jobs, "train", "x", {}) for jobs in (settings.jobs, tmp_path / "other" / "jobs"))
    assert find_own(settings.jobs, str(own.path)).id == own.id
    assert find_job(settings.jobs, str(foreign.path)).id == foreign.id, "its results can be used"
    for find in (find_own, find_only):
        with pytest.raises(InputError, match=r"another home\. Set STUDIO_HOME to .*/other"):
            find(settings.jobs, str(foreign.path))


def test_an_unknown_run_names_the_nearest(settings) -> None:
    create_job(settings.jobs, "train", "extract-lora", {})
    with pytest.raises(InputError, match="Did you mean 'extract-lora'"):
        find_job(settings.jobs, "extract-lra", "train")
    with pytest.raises(InputError, match="there is no run"):
        find_job(settings.jobs, "../../etc", "train")


def test_a_failed_write_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {1: {2}, ("no", "key"): 3})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_of_several_jobs_names_none_of_them_for_a_removal(settings) -> None:
    first, second = (create_job(settings.jobs, "train", "same", {}) for _ in range(2))
    alone = create_job(settings.jobs, "train", "alone", {})
    with pytest.raises(InputError, match="2 jobs are called 'same'") as caught:
        find_only(settings.jobs, "same")
    assert first.id in caught.value.fix and second.id in caught.value.fix
    assert find_only(settings.jobs, first.id).id == first.id and find_only(settings.jobs, "alone").id == alone.id
    change_labels(alone.path, name="same")
    with pytest.raises(InputError, match="3 jobs"):
        find_only(settings.jobs, "same")
    with pytest.raises(InputError, match="there is no job"):
        find_only(settings.jobs, "nobody")


def test_a_run_made_before_plain_rows_became_conversations_reads_them_as_texts(settings) -> None:
    sources = [{"path": "old.csv"}, {"path": "new.csv", "reading": "auto"}]
    job = create_job(settings.jobs, "train", "old", {"data": {"train": sources}, "method": {"name": "sft"}})
    kept = job.request.config
    assert [one["reading"] for one in kept["data"]["train"]] == ["raw", "auto"]
    assert RunConfig.model_validate(kept).data.train[0].plain_reading == "raw"
