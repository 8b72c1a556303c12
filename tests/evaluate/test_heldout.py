"""The validation rows of a run are found again: those that the training did not see, with their expected answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.config import RunConfig
from studio.config.jobs import AUTO, DEMO_TEST, HELD_OUT, EvaluateConfig, asked_rows, usual_rows
from studio.config.load import build
from studio.config.remote import OpenAIConfig, asked_elsewhere, usual_elsewhere
from studio.data.prepare.pipeline import prepare_data
from studio.errors import InputError
from studio.evaluate.heldout import held_out
from studio.evaluate.questions import questions_of
from studio.evaluate.worker import _measure
from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.settings import Settings

ROWS = 40


def made(settings: Settings, model: Path, *files: Path, **data: Any) -> JobFolder:
    train = [{"path": str(file), "columns": {"prompt": "asked", "completion": "told"}} for file in files]
    config = RunConfig.model_validate({"model": {"path": str(model)}, "data": {"train": train, **data}})
    run = create_job(settings.jobs, "train", "own", config.model_dump(mode="json"))
    write_json(run.environment_path, {"base_model": {"name": str(model), "path": str(model)}})
    return run


def table(file: Path, word: str = "sum") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"asked": f"The {word} of {n} and 1?", "told": f"{n + 1}", "n": n} for n in range(ROWS)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_they_are_those_that_were_not_trained_on(settings: Settings, model_path: Path, tmp_path: Path) -> None:
    file, other = table(tmp_path / "a.jsonl"), table(tmp_path / "b.jsonl", "total")
    run = made(settings, model_path, file, other, validation=0.25)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    found = questions_of(held_out(run, tokenizer, settings), tokenizer)
    config = build(RunConfig, run.request.config, "job.yaml")
    prepared = prepare_data(config.data, config.method, tokenizer, settings, seed=config.training.seed)
    trained = {tuple(unit.input_ids) for unit in prepared.train}
    assert len(found) == 20 == len(prepared.validation)
    asked = [tuple(one.prompt_ids + one.answer_ids) for one in found]
    assert set(asked) == {
        tuple(unit.input_ids[: len(ids)]) for unit, ids in zip(prepared.validation, asked, strict=True)
    }
    assert not {ids for ids in asked if any(row[: len(ids)] == ids for row in trained)}
    for one in found:
        assert one.expected == str(int(one.prompt.split()[3]) + 1)
    assert [one.row for one in held_out(run, tokenizer, settings, limit=3)] == [one.row for one in found[:3]]


def test_prompts_with_an_answer_are_questions(settings: Settings, model_path: Path, tmp_path: Path) -> None:
    """A run of GRPO writes its answers itself; what they are compared with is what an evaluation expects."""
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n} and 1?", "answer": f"{n + 1}"}) + "\n" for n in range(ROWS)))
    config = {"model": {"path": str(model_path)}, "method": {"name": "grpo"},
              "data": {"train": [{"path": str(file)}], "validation": 0.1}}  # fmt: skip
    run = create_job(settings.jobs, "train", "own", RunConfig.model_validate(config).model_dump(mode="json"))
    write_json(run.environment_path, {"base_model": {"name": str(model_path), "path": str(model_path)}})
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    found = questions_of(held_out(run, tokenizer, settings), tokenizer)
    assert len(found) == 4 and all(one.expected == str(int(one.prompt.split()[0]) + 1) for one in found)


def test_what_cannot_be_told_is_said(settings: Settings, model_path: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    file, twin = table(tmp_path / "a.jsonl"), table(tmp_path / "deep" / "a.jsonl", "total")
    with pytest.raises(InputError, match="held out no rows"):
        held_out(made(settings, model_path, file, validation=0), tokenizer, settings)
    with pytest.raises(InputError, match="same name"):
        held_out(made(settings, model_path, file, twin, validation=0.25), tokenizer, settings)


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({}, DEMO_TEST),
        ({"data": {"train": [{"path": "/own.jsonl"}], "validation": 0.1}}, HELD_OUT),
        ({"data": {"train": [{"path": "/own.jsonl"}], "validation": "/other.jsonl"}}, "/other.jsonl"),
        ({"data": {"train": [{"path": "/own.jsonl"}, {"path": "demo/train.jsonl"}], "validation": 0.1}}, HELD_OUT),
        ({"method": {"name": "dpo"}, "data": {"train": [{"path": "/own.jsonl"}], "validation": 0.1}}, HELD_OUT),
        ({"method": {"name": "kto"}, "data": {"train": [{"path": "demo/rated.jsonl"}], "validation": 0.1}}, HELD_OUT),
        ({"method": {"name": "orpo"}, "data": {"validation": "demo/pairs_test.jsonl"}}, "demo/pairs_test.jsonl"),
        ({"method": {"name": "kto"}, "data": {"train": [{"path": "demo/rated.jsonl"}], "validation": 0}}, DEMO_TEST),
        ({"method": {"name": "grpo"}, "data": {"train": [{"path": "/own.jsonl"}], "validation": 0.1}}, HELD_OUT),
        (
            {"method": {"name": "grpo"}, "data": {"train": [{"path": "/own.jsonl"}], "validation": "/b.jsonl"}},
            "/b.jsonl",
        ),
        ({"method": {"name": "ppo"}, "data": {"train": [{"path": "demo/sums_train.jsonl"}]}}, HELD_OUT),
        ({"method": {"name": "pretrain"}, "data": {"train": [{"path": "/own.jsonl"}], "validation": 0.1}}, HELD_OUT),
        ({"method": {"name": "pretrain"}, "data": {"train": [{"path": "demo/text_train.jsonl"}]}}, DEMO_TEST),
    ],
)
def test_the_usual_rows_of_a_run(change: dict[str, Any], rows: str) -> None:
    config = RunConfig.model_validate(change).model_dump(mode="json")
    assert usual_rows(config) == rows == asked_rows(AUTO, config, "own")


@pytest.mark.parametrize("asked", [AUTO, HELD_OUT])
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "pretrain"])
def test_a_run_that_held_out_no_rows_is_not_measured_on_others(asked: str, method: str) -> None:
    change = {"method": {"name": method}, "data": {"train": [{"path": "/own.jsonl"}], "validation": 0}}
    for config in (
        RunConfig.model_validate(change).model_dump(mode="json"),
        {},
    ):  # {}: a merge of models from elsewhere
        with pytest.raises(InputError) as refused:
            asked_rows(asked, config, "own")
        assert refused.value.sentence == (
            "data: run 'own' held out no rows. Choose a file of rows (--data FILE)."
        )  # fmt: skip
        assert asked_rows("/mine.jsonl", config, "own") == "/mine.jsonl"


def test_validation_rows_of_a_file_are_that_file() -> None:
    config = RunConfig.model_validate({"data": {"validation": "/other.jsonl"}}).model_dump(mode="json")
    assert asked_rows(HELD_OUT, config, "own") == "/other.jsonl"


@pytest.mark.parametrize(
    ("method", "row"),
    [("grpo", {"prompt": "{} and 1?"}), ("pretrain", {"text": "The sum of {0} and 1 is more than {0}."})],
)
def test_rows_without_an_answer_are_refused(
    settings: Settings, model_path: Path, tmp_path: Path, method: str, row: dict[str, str]
) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps({key: text.format(n) for key, text in row.items()}) for n in range(ROWS)]
    file.write_text("\n".join(lines))
    config = {"model": {"path": str(model_path)}, "method": {"name": method},
              "data": {"train": [{"path": str(file)}], "validation": 0.1}}  # fmt: skip
    run = create_job(settings.jobs, "train", "own", RunConfig.model_validate(config).model_dump(mode="json"))
    write_json(run.environment_path, {"base_model": {"name": str(model_path), "path": str(model_path)}})
    asked = EvaluateConfig(run=run.id, data=HELD_OUT)
    with pytest.raises(InputError, match=r"run 'own' held out rows that cannot be asked: .*\(--data FILE\)"):
        _measure(settings, asked, run, AutoTokenizer.from_pretrained(model_path))


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"data": "demo/train.jsonl"}, DEMO_TEST),
        ({"data": "/own.jsonl", "validation": "/other.jsonl"}, "/other.jsonl"),
        ({"data": "/own.jsonl", "validation_share": 0.1}, HELD_OUT),
        ({"data": "demo/train.jsonl", "validation_share": 0.1}, HELD_OUT),
        ({"data": "/own.jsonl"}, HELD_OUT),
        ({"data": ""}, HELD_OUT),
    ],
)
def test_the_usual_rows_of_a_model_at_a_service(asked: dict[str, Any], wanted: str) -> None:
    job = OpenAIConfig.model_validate(asked).model_dump(mode="json")
    assert usual_elsewhere(job) == wanted
    assert asked_elsewhere("/mine.jsonl", job, "own") == "/mine.jsonl"
    if wanted == HELD_OUT and not job["validation_share"]:
        with pytest.raises(InputError, match=r"'own' held out no rows\. Choose a file of rows"):
            asked_elsewhere(AUTO, job, "own")
    else:
        assert asked_elsewhere(AUTO, job, "own") == wanted
