"""Comparing trainings: only options that differ, defaults filled in, best only where it means something."""

from __future__ import annotations

import csv
import io

import pytest

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.errors import InputError
from studio.jobs import JobFolder, Summaries
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.labels import change_labels
from studio.jobs.store.state import write_state
from studio.jobs.views.compare import Comparison, Row, compare_runs
from studio.jobs.views.comparedtext import as_csv, as_markdown
from studio.jobs.views.disk import DiskBook
from tests.jobs.made import trained


def compared(*runs: JobFolder, evaluations: list[JobFolder] | None = None) -> Comparison:
    return compare_runs(list(runs), Summaries(), DiskBook(), evaluations or [])


def rows(found: list[Row]) -> dict[str, Row]:
    return {row.key: row for row in found}


def evaluated(
    settings, run: JobFolder, score: float, data: str = "test.jsonl", name: str = "exact_match", asked: str = "Why?"
) -> JobFolder:
    job = create_job(settings.jobs, "evaluate", run.name, {"run": run.id})
    job.report.mkdir()
    report = {"data": data, "after": {name: score, "total": 50}, "rows": [{"row": 1, "prompt": asked}]}
    write_json(job.report / "evaluation.json", report)
    write_state(job.state_path, job.state().with_(status="completed"))
    return job


def test_only_what_differs_is_shown_with_defaults_filled_in(settings) -> None:
    first = trained(settings.jobs, "a", tuning={"rank": 16}, training={"epochs": 2})
    second = trained(settings.jobs, "b", tuning={"rank": 32}, training={"seed": 7, "padding_free": True})
    # As an older version wrote it: without what has its default.
    raw = first.path / "job.yaml"
    raw.write_text("kind: train\nname: a\nconfig:\n  training: {epochs: 2}\n")
    found = rows(compared(JobFolder(first.path), second).options)
    assert {key: row.values for key, row in found.items()} == {
        "tuning.rank": ["16", "32"], "training.padding_free": ["no", "yes"], "training.seed": ["42", "7"]
    }  # fmt: skip
    titles = {spec.path: spec.title for spec in options_of(RunConfig)}
    assert all(row.title == titles[key] and row.best == [] for key, row in found.items())
    assert compared(second, trained(settings.jobs, "c", **second.request.config)).options == []


def test_an_option_that_a_run_does_not_use_is_a_dash(settings) -> None:
    adapter = trained(settings.jobs, "a", tuning={"name": "lora", "rank": 64})
    full = trained(settings.jobs, "b", tuning={"name": "full"})
    found = rows(compared(adapter, full).options)
    assert found["tuning.rank"].values == ["64", "–"] and found["tuning.name"].values == ["lora", "full"]


def test_auto_is_compared_by_what_it_became(settings) -> None:
    runs = [trained(settings.jobs, name) for name in "abc"]
    for run, value in zip(runs, (8, 4, 8), strict=True):
        choices = {"training.micro_batch_size": {"value": value, "reason": "", "source": ""}}
        write_json(run.environment_path, {"plan": {"choices": choices}})
    assert compared(runs[0], runs[2]).options == []
    found = rows(compared(*runs).options)
    assert found["training.micro_batch_size"].values == ["auto (8)", "auto (4)", "auto (8)"]
    waiting = trained(settings.jobs, "d", status="queued")
    assert compared(runs[0], waiting).options == [], "nobody knows yet what its auto becomes"


def test_a_file_that_changed_between_two_runs_is_a_difference(settings) -> None:
    runs = [trained(settings.jobs, name) for name in "ab"]
    for run, digest in zip(runs, ("a" * 64, "b" * 64), strict=True):
        write_json(run.environment_path, {"data": {"sources": [{"sha256": digest}]}})
    found = compared(*runs)
    assert rows(found.options)["data (SHA-256)"].values == ["a" * 12, "b" * 12]
    assert "model or data" in found.notes[0]


def test_sources_are_named_with_what_is_not_usual(settings) -> None:
    first = trained(settings.jobs, "a", data={"train": [{"path": "x.jsonl"}]})
    second = trained(settings.jobs, "b", data={"train": [{"path": "x.jsonl", "rows": 100}, {"path": "y.jsonl"}]})
    assert rows(compared(first, second).options)["data.train"].values == ["x.jsonl", "x.jsonl rows=100, y.jsonl"]


def test_an_option_of_another_version_is_shown_and_said(settings) -> None:
    first, second = (trained(settings.jobs, name) for name in "ab")
    text = (second.path / "job.yaml").read_text().replace("  training:\n", "  training:\n    warp_drive: 9\n")
    (second.path / "job.yaml").write_text(text)
    found = compared(first, JobFolder(second.path))
    assert rows(found.options)["training.warp_drive"].values == ["none", "9"]
    assert "'b' was created by another version" in found.notes[0]


def test_results_and_which_is_best(settings) -> None:
    first = trained(settings.jobs, "a", [0.9, 0.5, 0.7], values={"mean_token_accuracy": 0.8})
    second = trained(settings.jobs, "b", [0.8, 0.6], values={"mean_token_accuracy": 0.9})
    scores = [evaluated(settings, first, 0.9), evaluated(settings, first, 0.1), evaluated(settings, second, 0.7)]
    found = rows(compared(first, second, evaluations=scores).results)
    loss, step = found["best_eval_loss"], found["best_eval_step"]
    assert (loss.numbers, loss.best, step.numbers, step.best) == ([0.5, 0.6], [0], [20, 20], [])
    assert found["loss"].numbers == [2 / 30, 2 / 20] and found["loss"].best == [0]
    assert found["mean_token_accuracy"].best == [1], "higher is better, as the method says"
    assert found["exact_match"].values == ["90.0%", "70.0%"] and found["exact_match"].best == [0]
    assert found["tokens_per_second"].numbers == [515.5, 510.5]
    assert found["seconds"].numbers == [60, 40] and found["seconds"].best == [1]
    assert found["peak_memory"].best == [], "equal values are not better"
    assert found["bytes"].numbers == [float(DiskBook().of(run).total) for run in (first, second)]


def test_what_cannot_be_compared_is_not_marked(settings) -> None:
    first = trained(settings.jobs, "a", [0.5])
    other = trained(settings.jobs, "b", [0.4], method={"name": "dpo"}, values={"rewards/margins": 1.0})
    found = compared(first, other)
    assert rows(found.results)["best_eval_loss"].best == [] and "different methods" in found.notes[0]
    assert rows(found.results)["rewards/margins"].values == ["–", "1"]
    going = trained(settings.jobs, "c", [0.3], status="running")
    results = rows(compared(first, going).results)
    assert results["best_eval_loss"].best == [1] and results["seconds"].best == results["bytes"].best == []
    scores = [evaluated(settings, first, 0.9, "x.jsonl"), evaluated(settings, going, 0.5, "y.jsonl")]
    assert rows(compared(first, going, evaluations=scores).results)["exact_match"].best == []
    # Each run's "validation" is its own: only the rows tell whether they are the same.
    for asked, best in (("Why?", [0]), ("How?", [])):
        scores = [
            evaluated(settings, first, 0.9, "validation", "preference_accuracy"),
            evaluated(settings, going, 0.5, "validation", "preference_accuracy", asked),
            evaluated(settings, going, 0.7),
        ]
        found = rows(compared(first, going, evaluations=scores).results)
        assert found["preference_accuracy"].best == best and found["preference_accuracy"].numbers == [0.9, 0.5]
        assert found["exact_match"].numbers == [None, 0.7], "each measure has its own newest evaluation"
    seeded = trained(settings.jobs, "d", [0.3], training={"seed": 1}, data={"validation": 0.1})
    same = trained(settings.jobs, "e", [0.3], data={"validation": 0.1})
    assert "The seed selects" in compared(seeded, same).notes[0]


def test_numbers_that_are_none_are_left_out(settings) -> None:
    first = trained(settings.jobs, "a", [0.5], values={"loss": "nan", "tokens_per_second": "inf"})
    found = rows(compared(first, trained(settings.jobs, "b", [0.6])).results)
    assert found["loss"].values[0] == "–" and found["loss"].best == []
    assert found["tokens_per_second"].numbers == [None, 505.5]


@pytest.mark.parametrize("count", [0, 1, 11])
def test_two_to_ten_trainings(settings, count) -> None:
    runs = [trained(settings.jobs, f"r{number}") for number in range(count)]
    with pytest.raises(InputError, match=f"{count} runs cannot be compared"):
        compared(*runs)


def test_no_run_twice_and_trainings_only(settings) -> None:
    run = trained(settings.jobs, "a")
    with pytest.raises(InputError, match="given twice"):
        compared(run, run)
    with pytest.raises(InputError, match=r"'a' is an evaluate job and has no model to compare"):
        compared(run, evaluated(settings, run, 1.0))


def merged(settings, name: str, weight: float, score: float, parents: list[JobFolder]) -> JobFolder:
    """A merge of runs that answered rows, as its job leaves it; the runs scored half of that."""
    models = "".join(f"- {{model: {run.name}, parameters: {{weight: {weight}}}}}\n" for run in parents)
    job = create_job(settings.jobs, "merge", name, {"recipe": f"merge_method: ties\nbase_model: c\nmodels:\n{models}"})
    scores = [{"name": run.name, "score": score / 2} for run in parents] + [{"name": name, "score": score}]
    evaluation = {
        "data": "test.jsonl", "measure": "exact_match", "of": "rows", "total": 50, "scores": scores,
        "rows": [{"row": 1, "prompt": "Why?", "answers": []}],
    }  # fmt: skip
    job.report.mkdir()
    described = [{"id": run.id, "kind": "run"} for run in parents]
    write_json(job.report / "merge.json", {"parents": described, "evaluation": evaluation})
    write_state(job.state_path, job.state().with_(status="completed"))
    return job


def test_a_merge_stands_beside_its_runs_with_its_recipe(settings) -> None:
    first, second = trained(settings.jobs, "a", [0.5]), trained(settings.jobs, "b", [0.6], tuning={"rank": 8})
    child = merged(settings, "child", 0.5, 0.8, [first, second])
    found = compared(first, child, second, evaluations=[evaluated(settings, second, 0.6)])
    options = rows(found.options)
    assert options["tuning.rank"].values == ["16", "–", "8"]
    assert options["merge_method"].values == ["–", "ties", "–"]
    assert options["merged_models"].values[1] == "a (weight 0.5), b (weight 0.5); base c"
    results = rows(found.results)
    assert results["best_eval_loss"].values == ["0.5", "–", "0.6"] and results["best_eval_loss"].best == [0]
    score = results["exact_match"]
    assert (score.title, score.values, score.best) == ("Exact match", ["40.0%", "80.0%", "60.0%"], [1])
    assert results["bytes"].best == [], "what a merge takes is no merit of a training"
    assert "| `tuning.rank` | 16 | – | 8 |" in as_markdown(found) and found.notes == []


def test_two_merges_are_compared_by_their_recipes(settings) -> None:
    runs = [trained(settings.jobs, name, [0.5]) for name in "ab"]
    found = compared(merged(settings, "one", 0.5, 0.8, runs), merged(settings, "two", 0.9, 0.6, runs))
    assert [row.key for row in found.options] == ["merged_models"]
    assert rows(found.results)["exact_match"].best == [0] and "loss" not in rows(found.results)


def test_a_recipe_that_cannot_be_read_is_no_reason_not_to_compare(settings) -> None:
    runs = [trained(settings.jobs, name, [0.5]) for name in "ab"]
    child = merged(settings, "child", 0.5, 0.8, runs)
    broken = create_job(settings.jobs, "merge", "broken", {"recipe": "models: [", "parents": {"a": "a"}})
    (broken.path / "report").mkdir()
    (broken.report / "merge.json").write_text("[]")
    found = rows(compared(child, broken).options)
    assert found["merge_method"].values == ["ties", "unknown"] and found["merged_models"].values[1] == "a"


def test_taken_away_as_text(settings) -> None:
    first = trained(settings.jobs, "a", [0.5], tuning={"rank": 8})
    second = trained(settings.jobs, "b", [0.6])
    change_labels(first.path, name="=cmd|' /C calc'!A0")
    found = compared(first, second)
    markdown = as_markdown(found)
    assert "| Best validation loss | **0.5** (best) | 0.6 |" in markdown
    assert "| `tuning.rank` | 8 | 16 |" in markdown and "=cmd\\|' /C" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    table = list(csv.reader(io.StringIO(as_csv(found))))
    assert table[0] == ["kind", "key", "title", "'=cmd|' /C calc'!A0", "b", "best"], "no formula for a spreadsheet"
    assert ["result", "best_eval_loss", "Best validation loss", "0.5", "0.6", "'=cmd|' /C calc'!A0"] in table
    assert ["option", "tuning.rank", "Rank", "8", "16", ""] in table


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"name": "dpo", "beta": 0.1}, {"name": "dpo", "beta": 0.5}, "Beta"),
        ({"name": "dpo", "label_smoothing": 0.1}, {"name": "dpo"}, "Label smoothing"),
        ({"train_on": "all"}, {"train_on": "last"}, "Train on"),
        ({"name": "pretrain", "documents": "join"}, {"name": "pretrain"}, "Documents"),
        ({"name": "grpo", "rewards": ["length"], "reward_length": 4},
         {"name": "grpo", "rewards": ["length"], "reward_length": 9}, "Target length"),
    ],
)  # fmt: skip
def test_losses_that_measure_different_things_are_not_marked(settings, first, second, named) -> None:
    values = {"rewards/accuracies": 0.5, "rewards/margins": 1.0, "reward": 0.5}
    runs = [
        trained(settings.jobs, "a", [0.55], method=first, values=values),
        trained(settings.jobs, "b", [0.31], method=second, values={name: 2 * value for name, value in values.items()}),
    ]
    found = compared(*runs)
    results = rows(found.results)
    assert results["best_eval_loss"].best == results["loss"].best == []
    assert f"({named})" in found.notes[0]
    if first.get("name") == "dpo":
        assert results["rewards/margins"].best == [] and results["rewards/accuracies"].best == [1]
    if first.get("name") == "grpo":
        assert results["reward"].best == []


def test_how_the_loss_is_lowered_is_no_other_loss(settings) -> None:
    first = trained(settings.jobs, "a", [0.55], method={"neftune_noise_alpha": 5.0})
    found = compared(first, trained(settings.jobs, "b", [0.31]))
    assert rows(found.results)["best_eval_loss"].best == [1] and found.notes == []


@pytest.mark.parametrize("text", ['{"after": {"exact_m', "[1]", '{"after": 5}', "{}", '"x"'])
def test_a_damaged_evaluation_is_no_score_and_no_error(settings, text) -> None:
    runs = [trained(settings.jobs, name, [0.5]) for name in "ab"]
    older, newer = evaluated(settings, runs[0], 0.7), evaluated(settings, runs[0], 0.9)
    (newer.report / "evaluation.json").write_text(text)
    assert rows(compared(*runs, evaluations=[newer, older]).results)["exact_match"].numbers == [0.7, None]
    (older.path / "job.yaml").write_text("kind: evaluate\nname: a\nconfig:\n")
    found = compared(*runs, evaluations=[newer, JobFolder(older.path)])
    assert "exact_match" not in rows(found.results)


def test_names_do_nothing_elsewhere() -> None:
    """A name of somebody else's run is text in the Markdown, and no formula in the CSV, written wide or not."""
    names = ["<img src=x onerror=alert(1)>|[a](b)", "＝HYPERLINK(1)", "\x1b[2J"]
    runs = [{"id": str(number), "name": name, "word": "completed"} for number, name in enumerate(names)]
    note = Comparison(runs, [Row("a`b<c>", "<b>", names)], [], [f"'{names[0]}' was created by another version."])
    text = as_markdown(note)
    assert "<" not in text and "\x1b" not in text and "\\|\\[a\\](b)" in text
    cells = next(csv.reader(io.StringIO(as_csv(note))))
    assert cells[4] == "'＝HYPERLINK(1)"


def test_a_job_of_a_service_stands_beside_a_run(settings) -> None:
    run = trained(settings.jobs, "a", [0.5])
    job = create_job(settings.jobs, "openai", "there", {"model": "openai:gpt-4o-mini-2024-07-18", "n_epochs": 3})
    evaluations = [evaluated(settings, run, 0.5), evaluated(settings, job, 0.9)]
    found = compared(run, job, evaluations=evaluations)
    options, results = rows(found.options), rows(found.results)
    assert options["model"].values == ["–", "openai:gpt-4o-mini-2024-07-18"] and options["n_epochs"].values[1] == "3"
    assert "training.epochs" not in options
    assert results["exact_match"].values == ["50.0%", "90.0%"] and results["exact_match"].best == [1]
    assert results["best_eval_loss"].best == [], "a service counts its loss in its own way"
