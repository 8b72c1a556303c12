"""Each reward by hand; what a function of the person's own may do wrong; what a schema file may be."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as law
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from studio.data.formats.rows import parse_row
from studio.data.masks.masker import Masker
from studio.data.prepare.units import Pair, Prompt, encode
from studio.errors import InputError, StudioError
from studio.methods.online import REWARDS
from studio.train.rewards.functions import (
    Reward,
    exact_match,
    json_scorer,
    last_number,
    length_scorer,
    make_rewards,
    numeric,
    regex_scorer,
)
from studio.train.rewards.python import load_function, split_reference
from studio.train.rewards.schema import read_schema
from studio.train.rewards.scoring import load_scorer, score_ids
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, make_trainer, reported, write_rows
from tests.support.everyday import everyday


def rows(*answers: str | None) -> list[Prompt]:
    return [Prompt([1], f"q{i}", answer, i + 1, "x", {"level": i}) for i, answer in enumerate(answers)]


# ---- those that compare


def test_exact_match_leaves_blanks_at_the_ends_aside() -> None:
    assert exact_match(rows("4", "4", "a b", None), [" 4\n", "44", "a  b", ""]) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("the sum is 15.", 15), ("15", 15), ("1,234.5 km", 1234.5), ("-3", -3), ("= -3.50", -3.5), ("−7", -7),
        ("2 + 2 = 4", 4), ("10-15", 15), ("at 3:40", 40), ("1, 2, 3", 3), ("(1,2)", 2), ("3,", 3), ("12,3456", 3456),
        ("1,234,567", 1234567), ("none", None), ("", None), ("x²", None), ("-", None), ("1.2.3", 3),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert last_number(text) == number


@law(max_examples=200, deadline=None)
@given(value=st.integers(-(10**12), 10**12), digits=st.integers(0, 3))
def test_numbers_are_read_as_they_are_written(value: int, digits: int) -> None:
    number = value / 10**digits
    assert last_number(f"It is {number:,.{digits}f}.") == pytest.approx(number)
    assert last_number(f"It is {number:.{digits}f}") == pytest.approx(number)


@law(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_has_a_number_or_none(text: str) -> None:
    found = last_number(text)
    assert found is None or math.isfinite(found) or len(text) > 300


def test_numeric_compares_the_last_numbers() -> None:
    wanted = rows("15", "the answer is 1,000", "no number", None, "-2")
    assert numeric(wanted, ["6 + 9 = 15", "1000.0", "none either", "5", "2"]) == [1, 1, 0, 0, 0]


# ---- those that look at the form

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_json_with_and_without_a_schema() -> None:
    said = ['{"n": 1}', '{"n": "1"}', "[1]", "5", "n = 1", "", '{"n": 1} ok', "NaN", "[Infinity]"]
    assert json_scorer(None)(rows(*said), said) == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert json_scorer(SCHEMA)(rows(*said), said) == [1, 0.2, 0.2, 0.2, 0, 0, 0, 0, 0]


def test_json_that_is_nested_without_end_is_no_json() -> None:
    assert json_scorer(SCHEMA)(rows("x"), ["[" * 100_000]) == [0]


@law(max_examples=200, deadline=None)
@given(st.text())
def test_json_takes_any_text(text: str) -> None:
    assert json_scorer(SCHEMA)(rows("x"), [text])[0] in (0, 0.2, 1)


def test_regex_fits_the_whole_answer() -> None:
    assert regex_scorer(r"\d+")(rows(*"abcd"), [" 12\n", "12 km", "x", ""]) == [1, 0, 0, 0]
    assert regex_scorer(r"a.*b")(rows("x"), ["a\nb"]) == [1]


def test_length_falls_with_the_distance(tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    said = ["1", "12", "123", "1234", "12345", ""]
    assert [len(tokenizer(text)["input_ids"]) for text in said] == [1, 2, 3, 4, 5, 0], "a digit is a token"
    assert length_scorer(2, tokenizer)(rows(*said), said) == [0.5, 1, 0.5, 0, 0, 0]


# ---- a function of one's own


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "rewards.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_function_gets_texts_and_columns(file) -> None:
    path = file(
        "seen = {}\n"
        "def score(prompts, completions, **columns):\n"
        "    seen.update(prompts=prompts, completions=completions, **columns)\n"
        "    return [len(text) if text else None for text in completions]\n"
    )
    function = load_function(f"{path}:score")
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "asked"}]
    asked = [Prompt([1], chat, "4", 1, "x", {"level": 2, "answer": 4}), Prompt([1], "text", None, 2, "x", {"level": 3})]
    assert function(asked, ["abc", ""]) == [3.0, None]
    assert sys.modules["studio_reward_function"].seen == {
        "prompts": ["asked", "text"], "completions": ["abc", ""], "level": [2, 3], "answer": ["4", None],
    }  # fmt: skip


def test_a_file_may_use_dataclasses(file) -> None:
    path = file(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Rule:\n"
        "    worth: float = 2.0\n"
        "def score(completions, **rest):\n"
        "    return [Rule().worth for _ in completions]\n"
    )
    assert load_function(f"{path}:score")(rows("a"), ["x"]) == [2.0]


NOT_A_REFERENCE = ["rewards.py", "score", "rewards.py:", ":score", "rewards.txt:score", "rewards.py:not a name", ""]


@pytest.mark.parametrize("text", NOT_A_REFERENCE)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InputError, match=r"method\.reward_python: .* is not FILE\.py:FUNCTION.*rewards\.py:score"):
        split_reference(text)


def test_what_is_wrong_with_a_file_is_said_before_it_is_run(file, tmp_path) -> None:
    with pytest.raises(InputError, match=r"the file cannot be read \(No such file or directory\)"):
        split_reference(f"{tmp_path / 'other.py'}:score")
    path = file("def other(): ...\nasync def score(): ...\nraise RuntimeError('was run')\n")
    with pytest.raises(InputError, match="there is no function 'score'; the file has: other"):
        split_reference(f"{path}:score")
    assert split_reference(f"{path}:other") == (path, "other")
    with pytest.raises(InputError, match="there is no function 'score'; the file has: none"):
        split_reference(f"{file('x = 1')}:score")
    with pytest.raises(InputError, match=r"the file is not valid Python: .*rewards\.py, line 1"):
        split_reference(f"{file('def score(:')}:score")
    path.write_bytes(b"\x00")
    with pytest.raises(InputError, match="the file is not valid Python"):
        split_reference(f"{path}:score")
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="the file is not valid Python"):
        split_reference(f"{path}:score")


FAILURES = [
    ("return [1 / 0]", r"score fails: ZeroDivisionError\('division by zero'\).*Fix it"),
    ("return [1.0, 2.0]", r"score returned 2 rewards for 1 answers.*Return one number per completion"),
    ("return []", "score returned 0 rewards for 1 answers"),
    ("return 1.0", "score fails: TypeError"),
    ("return None", "score fails: TypeError"),
    ("return ['good']", "score fails: ValueError.*good"),
    ("return [[1]]", "score fails: TypeError"),
    ("return [float('nan')]", r"score returned nan.*Return None for a completion without a reward"),
    ("return [float('inf')]", "score returned inf"),
]


@pytest.mark.parametrize(("body", "said"), FAILURES)
def test_what_a_function_does_wrong(file, body: str, said: str) -> None:
    path = file(f"def score(prompts, completions, **rest):\n    {body}\n")
    with pytest.raises(StudioError, match=said) as caught:
        load_function(f"{path}:score")(rows("a"), ["x"])
    assert caught.value.where == f"method.reward_python: {path}"


def test_a_file_that_cannot_be_imported_and_one_that_takes_other_arguments(file) -> None:
    path = file("import nothing_of_this_name\ndef score(**rest): ...\n")
    with pytest.raises(StudioError, match=r"importing it fails: ModuleNotFoundError.*Fix the file"):
        load_function(f"{path}:score")
    path = file("def score(completions):\n    return [1.0]\n")
    with pytest.raises(StudioError, match=r"score fails: TypeError.*prompts"):
        load_function(f"{path}:score")(rows("a"), ["x"])


# ---- schema files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is not a JSON Schema: Expecting property name"),
        ('{"type": "nothing"}', "this is not a JSON Schema: 'nothing' is not valid"),
        ("[1]", "this is not a JSON Schema"),
        ("5", "this is not a JSON Schema"),
        ("true", "a schema must be a JSON object"),
        ('{"$ref": "#/$defs/gone"}', "this is not a JSON Schema: .*gone"),
        ('{"$ref": "http://127.0.0.1:9/x.json"}', "this is not a JSON Schema: .*127.0.0.1"),
        ('{"pattern": "("}', "this is not a JSON Schema: "),
        ('{"properties": {"a": {"items": {"$ref": "#/$defs/gone"}}}}', "this is not a JSON Schema: .*gone"),
        ('{"$defs": {"unused": {"$ref": "other.json"}}}', "this is not a JSON Schema: .*other.json"),
        ('{"$ref": "#"}', "refers to itself endlessly"),
        ('{"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"$ref": "#/$defs/b"}}}', "endlessly"),
        ('{"allOf": [{"$ref": "#"}]}', "refers to itself endlessly"),
    ],
)
def test_what_is_no_schema(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_schema(path)
    assert str(path) in str(caught.value)


def test_a_schema_that_is_missing_or_right(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this is not a JSON Schema: .*No such file"):
        read_schema(tmp_path / "none.json")
    path = tmp_path / "schema.json"
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="this is not a JSON Schema"):
        read_schema(path)
    for schema in (
        SCHEMA,
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$defs": {"a": {}}, "$ref": "#/$defs/a"},
        {"properties": {"$ref": {"type": "string"}, "next": {"$ref": "#"}}},
        {"$id": "http://x.org/tree", "$defs": {"a": {"$anchor": "leaf"}}, "items": {"$ref": "tree#leaf"}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
    ):
        path.write_text(json.dumps(schema))
        assert read_schema(path) == schema


def test_an_answer_deeper_than_a_schema_can_be_followed() -> None:
    score = json_scorer({"type": "object", "properties": {"next": {"$ref": "#"}}})
    said = ['{"next": {}}', '{"next": 1}', '{"next":' * 300 + "{}" + "}" * 300]
    assert score(rows(*said), said) == [1.0, 0.2, 0.2]


# ---- a reward model


def reward_run(settings: Any, tiny: Path, tmp_path: Path, **sections: Any) -> Any:
    file = write_rows(tmp_path / "pairs.jsonl", demo_rows("pairs_train.jsonl", 12))
    sections["tuning"] = {"rank": 4, **sections.get("tuning", {})}
    context = job_for(
        settings, tiny, file, method={"name": "reward"}, data={"validation": 0, "max_length": 512},
        training={"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2}, **sections,
    )  # fmt: skip
    train(context)
    return context


@pytest.mark.parametrize("tuning", everyday(["full", "lora", "dora", "qlora"], "lora"))
def test_a_reward_model_scores_as_it_was_trained(settings, tiny, tmp_path, tuning) -> None:
    """Prompt and written answer become the tokens that the pairs had, however they are padded."""
    folder = reward_run(settings, tiny, tmp_path, tuning={"name": tuning}).job.model
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    pairs = demo_rows("pairs_train.jsonl", 3)
    units = encode("pairs", [parse_row(row, 1, "x", "preference", "pairs") for row in pairs], Masker(tokenizer))
    masker = Masker(tokenizer)
    prompts = encode(
        "prompts", [parse_row({"prompt": row["prompt"]}, 1, "x", "prompts", "prompts") for row in pairs], masker
    )
    setup = SimpleNamespace(
        config=SimpleNamespace(method=SimpleNamespace(rewards=["model"])), scorer=folder, base=tiny,
        model=SimpleNamespace(dtype=torch.float32), tokenizer=tokenizer,
    )  # fmt: skip
    (reward,) = make_rewards(setup, prompts)  # type: ignore[arg-type]
    assert (reward.name, isinstance(reward, Reward)) == ("model", True)
    if tuning == "full":
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    else:
        plain = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32)
        model = PeftModel.from_pretrained(plain, folder)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    for key in ("chosen", "rejected"):
        found = reward(range(3), [row[key][0]["content"] for row in pairs])
        for unit, score in zip(units, found, strict=True):
            assert isinstance(unit, Pair)
            ids = torch.tensor([unit.prompt_ids + getattr(unit, f"{key}_ids")])
            with torch.no_grad():
                assert score == pytest.approx(float(model.eval()(ids).logits), abs=1e-5)
    assert len({*reward(range(3), ["yes", "no", "perhaps"])}) == 3


@pytest.mark.long
def test_a_reward_model_scores_in_bfloat16_too(settings, tiny, tmp_path) -> None:
    for tuning in ("full", "lora", "qlora"):
        folder = reward_run(settings, tiny, tmp_path, tuning={"name": tuning}, model={"dtype": "bfloat16"}).job.model
        ids = [[20, 21, 22], [30, 31, 32, 33]]
        scores = []
        for dtype in (torch.float32, torch.bfloat16):
            model = load_scorer(folder, tiny, dtype)
            model.config.get_text_config().pad_token_id = 2
            scores.append(score_ids(model, ids, 2))
        assert scores[1] == pytest.approx(scores[0], abs=0.05)


@pytest.mark.parametrize("dtype", everyday(["float32", "bfloat16"], "float32"))
def test_grpo_learns_from_a_reward_model(settings, tiny, tmp_path, dtype) -> None:
    folder = reward_run(settings, tiny, tmp_path, model={"dtype": dtype}).job.model
    file = write_rows(tmp_path / "rows.jsonl", demo_rows("sums_train.jsonl", 12))
    context = job_for(
        settings, tiny, file, model={"dtype": dtype}, tuning={"rank": 4}, data={"validation": 0, "max_length": 512},
        method={
            "name": "grpo", "rewards": "model, length", "reward_weights": "1, 0.5", "reward_length": 6,
            "reward_model": str(folder), "num_generations": 2, "max_completion_length": 8,
        },
        training={"max_steps": 3, "batch_size": 4},
    )  # fmt: skip
    train(context)
    assert len(reported(context, "reward")) == 3
    assert len(set(reported(context, "reward"))) == 3


def test_every_reward_can_be_made(settings, tiny, tmp_path) -> None:
    folder = reward_run(settings, tiny, tmp_path).job.model
    own = tmp_path / "own.py"
    own.write_text("def score(completions, **rest):\n    return [0.5 for _ in completions]\n")
    file = write_rows(tmp_path / "rows.jsonl", demo_rows("sums_train.jsonl", 4))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(file)}], "validation": 0},
        "method": {
            "name": "grpo", "rewards": list(REWARDS), "reward_pattern": r"\d+", "reward_length": 2,
            "reward_python": f"{own}:score", "trust_reward_code": True,
        },
        "training": {"batch_size": 4},
    }  # fmt: skip
    setup = make_trainer({**raw, "method": {**raw["method"], "rewards": ["length"]}}, tiny, tmp_path, settings).setup
    setup.config.method.rewards = list(REWARDS)
    setup.scorer = folder
    made = {reward.name: reward for reward in make_rewards(setup, setup.train)}
    assert list(made) == list(REWARDS)
    answer = setup.train[0].answer
    found = {name: reward([0], [answer])[0] for name, reward in made.items()}
    assert {name: score for name, score in found.items() if name != "model"} == {
        "exact_match": 1, "numeric": 1, "json": 1, "regex": 1, "length": 1, "python": 0.5,
    }  # fmt: skip
    setup.scorer = None
    with pytest.raises(InputError, match=r"method\.reward_model: there is no reward model.*Give the run"):
        make_rewards(setup, setup.train)
