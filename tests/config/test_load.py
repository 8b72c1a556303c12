"""YAML, `--set` and the sentences for what is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.config.describe import options_of, value_at, without_effect
from studio.config.jobs import EvaluateConfig, ExportConfig
from studio.config.load import apply_set, build, dump_run, load_run, run_of
from studio.config.presets import load_named, preset_names
from studio.errors import InputError, InputErrors
from studio.methods import METHODS
from studio.tunings import TUNINGS

CONFIGS = st.builds(
    lambda epochs, batch, rate, rank, text, cut, name: build(
        RunConfig,
        {
            "model": {"path": text},
            "data": {"truncation": cut, "validation": 0.2},
            "tuning": {"name": name, "rank": rank},
            "training": {"epochs": epochs, "batch_size": batch, "learning_rate": rate},
        },
    ),
    epochs=st.floats(0.01, 1000),
    batch=st.integers(1, 4096),
    rate=st.one_of(st.just("auto"), st.floats(1e-9, 1.0)),
    rank=st.integers(1, 1024),
    text=st.text(min_size=1, max_size=60).filter(lambda text: text.strip() == text and text.isprintable()),
    cut=st.sampled_from(["error", "drop", "cut"]),
    name=st.sampled_from(["lora", "full"]),
)


@given(config=CONFIGS)
def test_yaml_round_trip(config: RunConfig, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("yaml") / "run.yaml"
    path.write_text(dump_run(config), encoding="utf-8")
    assert load_run(path) == config


def test_every_option_explains_itself() -> None:
    for model in (RunConfig, EvaluateConfig, ExportConfig):
        for spec in options_of(model):
            assert spec.help.endswith("."), spec.path
            assert spec.title, spec.path
            assert spec.tier in ("basic", "advanced")
    for method, tuning in itertools.product(METHODS, TUNINGS):
        shown = [spec for spec in options_of(RunConfig) if spec.applies(method, tuning)]
        assert 6 <= sum(spec.tier == "basic" for spec in shown) <= 15, (method, tuning)


@pytest.mark.parametrize("length", [0, -5])
def test_an_answer_may_not_be_shorter_than_a_token(length: int) -> None:
    with pytest.raises(InputErrors, match="a whole number from 1, or auto"):
        build(EvaluateConfig, {"run": "one", "max_new_tokens": length})


def test_the_yaml_carries_the_help_as_comments() -> None:
    text = dump_run(RunConfig())
    for spec in options_of(RunConfig):
        assert f"# {spec.help}" in text


@pytest.mark.parametrize(
    ("item", "path", "value"),
    [
        ("training.learning_rate=1e-3", ("training", "learning_rate"), 0.001),
        ("training.epochs=3", ("training", "epochs"), 3),
        ("data.shuffle=false", ("data", "shuffle"), False),
        ("tuning.target_modules=[q_proj, v_proj]", ("tuning", "target_modules"), ["q_proj", "v_proj"]),
        ("training.max_steps=", ("training", "max_steps"), None),
        ("model.path=a=b", ("model", "path"), "a=b"),
        ("model.path=12", ("model", "path"), "12"),
        ('model.path="a b"', ("model", "path"), "a b"),
        ("method.reward_pattern=[0-9]+", ("method", "reward_pattern"), "[0-9]+"),
        ("method.reward_pattern=[a-z]", ("method", "reward_pattern"), "[a-z]"),
        ("method.reward_pattern=", ("method", "reward_pattern"), None),
    ],
)
def test_set_reads_values_as_yaml(item, path, value) -> None:
    raw: dict = {}
    apply_set(raw, item)
    assert raw[path[0]][path[1]] == value
    build(RunConfig, raw)


@pytest.mark.parametrize(
    ("raw", "sentences"),
    [
        ({"trainng": {}}, ["there is no option 'trainng'. Did you mean 'training'?"]),
        ({"training": {"epoch": 1}}, ["no option 'training.epoch'. Did you mean 'training.epochs'?"]),
        ({"training": {"rank": 8}}, ["no option 'training.rank'. Did you mean 'tuning.rank'?"]),
        (
            {"training": {"batch_size": 0}},
            ["training.batch_size: input should be greater than or equal to 1 (it is 0)"],
        ),
        ({"data": {"train": [{"file": "a"}]}}, ["data.train.0.path: field required", "data.train.0.file"]),
        ({"data": {"train": []}}, ["data.train: nothing is named; at least one is needed"]),
        ({"data": {"validation": 1.5}}, ["data.validation: a share from 0 to below 1"]),
        ({"training": {"micro_batch_size": 3}}, ["micro_batch_size: 3 does not divide training.batch_size 8"]),
        ({"training": {"learning_rate": "fast"}}, ["training.learning_rate"]),
        ({"tuning": {"alpha": -1}}, ["tuning.alpha: a number above 0, or auto (it is -1)"]),
        ({"tuning": {"rank": 2.5}}, ["tuning.rank: a whole number is needed (it is 2.5)"]),
    ],
)
def test_wrong_configs_say_what_is_wrong_where_and_what_to_do(raw, sentences) -> None:
    with pytest.raises(InputErrors) as caught:
        build(RunConfig, raw, "run.yaml")
    for sentence in sentences:
        assert sentence in caught.value.sentence
    assert all(line.startswith("run.yaml: ") for line in caught.value.sentence.splitlines())


@pytest.mark.parametrize("written", ["a.jsonl", ["a.jsonl"], [{"path": "a.jsonl"}], {"path": "a.jsonl"}])
def test_a_set_is_its_path_where_nothing_else_is_said(written: Any) -> None:
    assert build(RunConfig, {"data": {"train": written}}) == build(
        RunConfig, {"data": {"train": [{"path": "a.jsonl"}]}}
    )
    assert apply_set(raw := {}, f"data.train={written}") == "data.train"
    assert build(RunConfig, raw).data.train[0].path == "a.jsonl"


@pytest.mark.parametrize("written", [3, [3], ["a.jsonl", None], [["a.jsonl"]]])
def test_what_is_no_set_is_refused(written: Any) -> None:
    with pytest.raises(InputError) as caught:
        build(RunConfig, {"data": {"train": written}})
    assert "data.train" in caught.value.sentence


def test_what_came_by_set_is_not_looked_for_in_the_file() -> None:
    with pytest.raises(InputErrors) as caught:
        run_of({"training": {"epochs": 0}}, ["training.seed=-1"], "run.yaml")
    first, second = sorted(caught.value.sentence.splitlines())
    assert first.startswith("--set: training.seed: ") and "(it is -1)" in first
    assert second.startswith("run.yaml: training.epochs: ")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputErrors) as caught:
        build(RunConfig, {"training": {"epochs": 0, "seed": -1}, "modle": {}})
    assert len(caught.value.errors) == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"model: [\n", "not valid YAML"),
        (b"- a\n- b\n", "a list instead of sections"),
        (b"model:\n  path: \xff\xfe\n", "byte 15 is not UTF-8"),
        (None, "there is no such file"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content, sentence) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_run(path)
    assert sentence in caught.value.sentence
    assert "run.yaml" in caught.value.sentence


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("epochs", "is not OPTION=VALUE"),
        ("training.epoch=1", "Did you mean 'training.epochs'?"),
        ("training.epochs=[", "is not a YAML value. Write a number, a word, or a list"),
    ],
)
def test_wrong_sets_are_sentences(item, sentence) -> None:
    with pytest.raises(InputError) as caught:
        apply_set({}, item)
    assert sentence in caught.value.sentence


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("tuning.bits=8", "8"),
        ('tuning.bits="8"', "8"),
        ("tuning.layers_to_transform=1", [1]),
        ("tuning.layers_to_transform=0-1, 4", [0, 1, 4]),
        ('training.learning_rate="1e-3"', 0.001),
    ],
)
def test_a_word_that_looks_like_a_number_and_a_list_of_one_are_taken(item, value) -> None:
    raw: dict = {}
    apply_set(raw, item)
    assert value_at(build(RunConfig, raw).model_dump(), item.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("sets", "unread"),
    [
        (["tuning.name=qlora", "tuning.init=pissa"], "tuning.init"),
        (["tuning.name=qlora", "tuning.bits=8", "tuning.quant_type=fp4"], "tuning.quant_type"),
        (["tuning.name=full", "tuning.rank=8"], "tuning.rank"),
        (["method.name=dpo", "training.padding_free=true"], "training.padding_free"),
        (["method.name=dpo", "method.neftune_noise_alpha=5"], "method.neftune_noise_alpha"),
        (["method.name=dpo", "method.label_smoothing=0.1"], "method.label_smoothing"),
        (["method.name=dpo", "method.label_smoothing=0.1", "method.dpo_loss=sigmoid, robust"], None),
        (["method.name=grpo", "method.grpo_algorithm=rloo", "method.grpo_loss=bnpo"], "method.grpo_loss"),
        (["method.name=grpo", "method.reward_pattern=a+"], "method.reward_pattern"),
        (["method.name=grpo", "method.reward_pattern=a+", "method.rewards=regex"], None),
        (["model.rope_factor=4"], "model.rope_factor"),
        (["training.early_stopping_threshold=0.1"], "training.early_stopping_threshold"),
        (["training.early_stopping_threshold=0.1", "training.early_stopping=2"], None),
    ],
)
def test_options_that_a_run_does_not_read_are_found(sets, unread) -> None:
    raw: dict = {}
    for item in sets:
        apply_set(raw, item)
    made = build(RunConfig, raw)
    found = [spec.path for spec in without_effect(made, made.method.name, made.tuning.name)]
    assert found == ([unread] if unread else [])


def test_no_preset_sets_an_option_that_it_does_not_read() -> None:
    for name in preset_names():
        made = load_named(name)
        assert not list(without_effect(made, made.method.name, made.tuning.name)), name


def test_presets_load_by_name_and_a_wrong_name_gets_the_nearest() -> None:
    assert "demo/sft" in preset_names()
    for name in preset_names():
        assert isinstance(load_named(name), RunConfig)
    with pytest.raises(InputError, match="Did you mean 'demo/sft'"):
        load_named("demo/sf")


def test_no_number_is_beyond_all_sense() -> None:
    """Each option of numbers: what would overflow in a plan is a sentence about the option."""
    for spec in options_of(RunConfig):
        for value in (1e300, -1e300, 10**300, float("1e999999")):
            *sections, name = spec.path.split(".")
            raw: dict[str, Any] = {name: value}
            for section in reversed(sections):
                raw = {section: raw}
            with pytest.raises(InputErrors) as refused:
                build(RunConfig, raw)
            assert len(refused.value.sentence) < 1000
