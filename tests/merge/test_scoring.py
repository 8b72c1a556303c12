"""Models and child answer the same rows: each as `studio evaluate` would find it, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.merge.asking import prepare
from studio.merge.job import merge
from studio.merge.work.scoring import score_models
from studio.settings import Settings
from tests.conftest import run_studio
from tests.merge.made import put_run


def greedy(folder: Path, adapter: Path | None, question: str, count: int) -> str:
    """The first tokens that plain transformers answers, as text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=count, do_sample=False)[0][ids["input_ids"].shape[1] :]
    return str(tokenizer.decode(out, skip_special_tokens=True))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    questions = ("Name a fruit.", "What is 2 + 2?")
    path.write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": "Yes."}]}) + "\n"
        for one in questions
    ))  # fmt: skip
    return path


def asked(models: list[dict[str, Any]], rows: Path) -> dict[str, Any]:
    return {"models": models, "rows": str(rows), "data": str(rows), "like": {}}


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equality with plain transformers must not depend on rounding."""
    device = type("Device", (), {"bf16_fast": False})()
    monkeypatch.setattr("studio.merge.work.scoring.device_info", lambda settings: device)


def test_each_model_gives_its_own_answers(
    rows: Path, base: Path, one: Path, make_adapter: Callable[..., Path], settings: Settings, in_float32: None
) -> None:
    adapter = make_adapter(11, base, std=0.3)
    models = [
        {"name": "base", "weights": str(base), "adapter": None, "tokenizer": str(base)},
        {"name": "one", "weights": str(one), "adapter": None, "tokenizer": str(one)},
        {"name": "tuned", "weights": str(base), "adapter": str(adapter), "tokenizer": str(adapter)},
    ]
    told: list[tuple[float, float | None]] = []
    found = score_models(asked(models, rows), lambda done, total: told.append((done, total)))
    assert [score["name"] for score in found["scores"]] == ["base", "one", "tuned"] and found["total"] == 2
    assert all(score["correct"] == 0 and score["score"] == 0 for score in found["scores"])
    assert (found["measure"], found["of"]) == ("exact_match", "rows")
    assert [row["expected"] for row in found["rows"]] == ["Yes.", "Yes."] and told[-1] == (6, 6)
    for row, question in zip(found["rows"], ("Name a fruit.", "What is 2 + 2?"), strict=True):
        assert row["right"] == [False, False, False]
        for answer, folder, tuned in zip(row["answers"], (base, one, base), (None, None, adapter), strict=True):
            assert answer.startswith(greedy(folder, tuned, question, 3)), "the model's own words"
    assert len(set(found["rows"][0]["answers"])) == 3


def test_pairs_are_compared_as_an_evaluation_compares_them(
    base: Path, one: Path, tmp_path: Path, settings: Settings, in_float32: None
) -> None:
    """The margins are those of plain transformers: mean log-probability of the answers' tokens."""
    path = tmp_path / "pairs.jsonl"
    pairs = [("Hi", "Hello", "No"), ("Name a fruit.", "An apple", "A stone and a house")]
    path.write_text("".join(json.dumps({"prompt": a, "chosen": b, "rejected": c}) + "\n" for a, b, c in pairs))
    models = [{"name": name, "weights": str(folder), "adapter": None, "tokenizer": str(base)}
              for name, folder in (("base", base), ("one", one))]  # fmt: skip
    request = {"models": models, "rows": str(path), "data": str(path), "like": {"method": {"name": "dpo"}}}
    found = score_models(request, lambda done, total: None)
    assert (found["measure"], found["of"], found["total"]) == ("preference_accuracy", "pairs", 2)
    expected = [[margin(folder, *pair) for folder in (base, one)] for pair in pairs]
    for row, pair, margins in zip(found["rows"], pairs, expected, strict=True):
        assert (row["chosen"], row["rejected"]) == pair[1:]
        assert row["answers"] == pytest.approx(margins, abs=2e-3) and row["right"] == [one > 0 for one in margins]
    for at, score in enumerate(found["scores"]):
        right = sum(margins[at] > 0 for margins in expected)
        assert (score["correct"], score["score"]) == (right, right / 2)


def margin(folder: Path, question: str, chosen: str, rejected: str) -> float:
    """By how much likelier a token of the chosen answer is, computed with plain transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    means = []
    for answer in (chosen, rejected):
        asked = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        told = [*asked, {"role": "assistant", "content": answer}]
        whole = tokenizer.apply_chat_template(told, return_dict=True)["input_ids"]
        end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)  # a template may end with a line break
        ids = torch.tensor([whole[:end]])
        with torch.no_grad():
            likely = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        means.append(float(likely[len(prompt) - 1 :].mean()))
    return means[0] - means[1]


@pytest.mark.long
def test_the_job_puts_them_into_its_report(
    rows: Path, base: Path, one: Path, make_adapter: Callable[..., Path], settings: Settings
) -> None:
    put_run(settings, "orders", make_adapter(12, base), base)
    models = [{"model": word, "parameters": {"weight": 0.5}} for word in ("orders", str(one))]
    text = json.dumps({"merge_method": "linear", "models": models})
    config = prepare(text, settings, evaluate=str(rows)).config.model_dump(mode="json")
    job = create_job(settings.jobs, "merge", "child", config)
    merge(JobContext(job, settings))
    report = json.loads((job.report / "merge.json").read_text())
    assert [score["name"] for score in report["scores"]] == ["orders", str(one), "child"]
    assert report["evaluation"]["data"] == str(rows) and report["evaluation"]["total"] == 2
    assert "answering the rows" in [phase["phase"] for phase in report["phases"]]
    assert not (job.path / "work").exists()


@pytest.mark.long
def test_a_sweep_is_a_table_of_points(rows: Path, base: Path, one: Path, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "mix.yaml"
    file.write_text(
        f"merge_method: linear\nmodels:\n- {{model: {base}, parameters: {{weight: 1}}}}\n"
        f"- {{model: {one}, parameters: {{weight: 1}}}}\n"
    )
    place = "models.1.parameters.weight"
    words = ("merge", str(file), "--sweep", f"{place}=0,3", "--evaluate", str(rows), "--json")
    done = run_studio(*words, home=settings.home)
    assert done.code == 0, done.stderr
    assert done.json["place"] == place and done.json["total"] == 2
    assert [(point["value"], point["name"], point["correct"]) for point in done.json["points"]] == [
        (0.0, "mix-0", 0), (3.0, "mix-3", 0),
    ]  # fmt: skip
    assert [parent["name"] for parent in done.json["parents"]] == [str(base), str(one)]
    reports = [
        json.loads((settings.jobs / point["id"] / "report" / "merge.json").read_text()) for point in done.json["points"]
    ]
    assert [len(report["evaluation"]["scores"]) for report in reports] == [3, 1]
    assert reports[1]["evaluation"]["models"] == reports[0]["evaluation"]["scores"][:2]
    assert run_studio("merge", str(file), "--sweep", f"{place}=0,3", home=settings.home).code == 2
