"""Runs as LLaMA-Factory's configs: only its keys, and back they mean the same, but for what the report lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.config.describe import OptionSpec, options_of, value_at
from studio.config.load import build
from studio.config.presets import load_named
from studio.data.sources.datasetinfo import read_entry
from studio.data.sources.stream import open_sources, read_source
from studio.errors import InputError, InputErrors
from studio.interop.llama_factory.keys import NAMES
from studio.interop.reading import read_file, read_text
from studio.interop.tools import export_to, import_given
from studio.interop.writing import write_folder
from studio.methods import METHODS
from studio.tunings import TUNINGS

SPECS = {spec.path: spec for spec in options_of(RunConfig)}
# Where numbers are typed there is a text, a list or nothing; these are given by hand.
BY_HAND = {
    "model.path": st.just("org/model"),
    "model.revision": st.sampled_from(["main", "v1.0"]),
    "data.train": st.just([{"path": "demo/train.jsonl"}]),
    "data.validation": st.sampled_from([0, 0.05, 0.2]),
    "data.max_length": st.sampled_from(["auto", 512, 4096]),
    "data.system": st.sampled_from([None, "Answer: briefly", "yes", "1e5"]),
    "method.dpo_loss": st.sampled_from([["sigmoid"], ["hinge"], ["ipo"], ["robust"], ["sigmoid", "sft"]]),
    "method.rewards": st.just(["model"]),
    "method.reward_model": st.just("saves/reward"),
    "tuning.target_modules": st.sampled_from(["all-linear", ["q_proj", "v_proj"]]),
    "tuning.modules_to_save": st.sampled_from([None, ["lm_head"]]),
    "tuning.adapter": st.sampled_from([None, "saves/adapter"]),
    "tuning.alpha": st.sampled_from(["auto", 8.0, 12.5]),
    "training.learning_rate": st.sampled_from(["auto", 1e-4, 2.5e-6, 0.5]),
    "training.micro_batch_size": st.sampled_from(["auto", 1]),
    "training.report_to": st.sampled_from([[], ["wandb"], ["tensorboard", "mlflow"]]),
}
# The result does not depend on these, so a tool may choose for itself.
CHOSEN = {"training.micro_batch_size", "training.activation_checkpointing", "training.keep_best"}
# One set is not mixed with others.
UNMIXED = {"data.mix", "data.stopping_strategy"}


def values_of(spec: OptionSpec) -> st.SearchStrategy[Any]:
    """Values of an option: its words, or numbers within its bounds."""
    if spec.path in BY_HAND:
        return BY_HAND[spec.path]
    if spec.kind == "choice":
        return st.sampled_from(spec.choices)
    if spec.kind == "flag":
        return st.sampled_from([True, False, *(["auto"] if spec.auto else [])])
    if spec.kind in ("integer", "number"):
        low, high = spec.minimum or 0, min(spec.maximum or 64, 64)
        numbers = st.integers(int(low) + 1, max(int(high), int(low) + 1))
        if spec.kind == "number":
            numbers = st.floats(low, high, allow_nan=False, width=16)
        return st.one_of(numbers, *([st.none()] if spec.optional else []), st.just(spec.default))
    return st.just(spec.default)


@st.composite
def runs(draw: st.DrawFn) -> RunConfig:
    """Any run with some options of its own."""
    document: dict[str, Any] = {}
    for path in ["method.name", "tuning.name", *draw(st.sets(st.sampled_from(sorted(SPECS)), max_size=12))]:
        names = {"method.name": METHODS, "tuning.name": TUNINGS}.get(path)
        value = draw(st.sampled_from(sorted(names)) if names else values_of(SPECS[path]))
        document.setdefault(SPECS[path].section, {})[SPECS[path].name] = value
    if document["method"]["name"] == "ppo":
        document["method"] |= {"rewards": ["model"], "reward_model": "saves/reward"}
    document.setdefault("model", {})["path"] = "org/model"
    try:
        return build(RunConfig, document)
    except InputErrors:
        assume(False)
        raise


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, numbers up to the digits that are written."""
    if isinstance(one, float | int) and isinstance(other, float | int):
        return one == pytest.approx(other, rel=1e-5)
    return bool(one == other)


def meant(config: RunConfig, path: str) -> Any:
    """What an option means: words such as auto as what they stand for."""
    value = value_at(config.model_dump(mode="json"), path)
    if path == "method.beta" and value == "auto":
        return config.method.kind.beta
    if path == "tuning.merge_adapter":
        return config.tuning.merges and bool(config.tuning.adapter)
    if path == "tuning.alpha" and value == "auto":
        return 2.0 * config.tuning.rank
    if path == "method.dpo_loss_weights" and value is None:
        return [1.0] * len(config.method.dpo_loss)
    return value


@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(runs())
def test_out_and_in_again_means_the_same_but_for_what_is_listed(run: RunConfig) -> None:
    try:
        exported = export_to(run, "llama-factory")
    except InputError as wrong:
        assert wrong.where in ("method.name", "method.orpo_loss", "method.rewards")
        return
    text = exported.files["train.yaml"]
    given_back = read_text(text)
    assert given_back.values.keys() <= NAMES, "a key that the tool does not know"
    back = import_given(given_back)
    assert not [line.key for line in back.report if line.status in ("unknown", "refused")]
    again = build(RunConfig, back.run)
    listed = {line.key: line.status for line in exported.report}
    method, tuning = run.method.name, run.tuning.name
    assert (again.method.name, again.tuning.name) == (method, tuning)
    for path, spec in SPECS.items():
        if path in CHOSEN | UNMIXED or path == "data.train" or not spec.applies(method, tuning):
            continue
        if spec.needs and not reads(run, spec):
            continue
        if not same(meant(run, path), meant(again, path)) and listed.get(path) not in ("approximated", "refused"):
            raise AssertionError(f"{path}: {meant(run, path)!r} came back as {meant(again, path)!r}, unlisted\n{text}")
    for line in exported.report:
        if line.status == "refused":
            assert f"# refused: {line.key} - {line.why}" in text


def reads(run: RunConfig, spec: OptionSpec) -> bool:
    name, words = spec.needs or ("", ())
    value = value_at(run.model_dump(), name)
    held = set(value) if isinstance(value, list) else {value}
    return bool(held & set(words)) if words else bool(value)


def rows_of(config: RunConfig) -> list[Any]:
    """What the rows of a run mean, with their source."""
    from studio.settings import read_settings

    found = []
    for source in open_sources(config.data, read_settings(), config.method.kind.rows, turns=True):
        for read in read_source(source):
            assert read.example is not None, read.error
            one = read.example
            found.append((source.part, one.messages, one.text, one.rejected, one.label, one.tools))
    return found


@pytest.mark.parametrize("method", ["sft", "pretrain", "dpo", "reward"])
def test_the_data_of_the_demos_reads_back_as_the_same_examples(method: str, tmp_path: Path) -> None:
    run = load_named(f"demo/{method}")
    write_folder(tmp_path / "out", export_to(run, "llama-factory"))
    info = tmp_path / "out" / "dataset_info.json"
    assert all(read_entry(info, name) for name in json.loads(info.read_text(encoding="utf-8")))
    back = build(RunConfig, import_given(read_file(tmp_path / "out" / "train.yaml")).run)
    ours = rows_of(run)
    assert len(ours) > 50
    assert rows_of(back) == ours


def test_a_pair_becomes_a_good_and_a_bad_answer_and_calls_become_function_turns(tmp_path: Path) -> None:
    write_folder(tmp_path / "kto", export_to(load_named("demo/kto"), "llama-factory"))
    rows = [json.loads(line) for line in (tmp_path / "kto" / "pairs_train.jsonl").read_text("utf-8").splitlines()]
    assert [row["label"] for row in rows[:4]] == [True, False, True, False]
    assert rows[0]["messages"][0] == rows[1]["messages"][0]
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    row = {
        "messages": [
            {"role": "user", "content": "x?"}, {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": "1"}, {"role": "assistant", "content": "One."},
        ],
        "tools": tools,
    }  # fmt: skip
    (tmp_path / "calls.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    run = build(RunConfig, {"data": {"train": [{"path": str(tmp_path / "calls.jsonl")}], "validation": 0}})
    write_folder(tmp_path / "out", export_to(run, "llama-factory"))
    (written,) = (tmp_path / "out" / "calls.jsonl").read_text(encoding="utf-8").splitlines()
    turn = json.loads(written)["messages"][1]
    assert (turn["role"], json.loads(turn["content"])) == ("function", [{"name": "f", "arguments": {"x": 1}}])
    back = build(RunConfig, import_given(read_file(tmp_path / "out" / "train.yaml")).run)
    assert rows_of(back) == rows_of(run)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("user assistant user", "skips a conversation whose turns are not user and assistant"),
        ("user user assistant", "skips a conversation whose turns are not user and assistant"),
        ("assistant user assistant", "skips a conversation whose turns are not user and assistant"),
        ("user assistant:0 user assistant", "the answer in message 2 does not count here, but would in LLaMA-Factory"),
    ],
)
def test_a_row_that_would_be_skipped_or_counted_otherwise_there_is_refused(
    turns: str, said: str, tmp_path: Path
) -> None:
    messages: list[dict[str, Any]] = []
    for at, word in enumerate(turns.split()):
        role, _, weight = word.partition(":")
        messages.append({"role": role, "content": f"text {at}", **({"weight": int(weight)} if weight else {})})
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    run = build(RunConfig, {"data": {"train": [{"path": str(tmp_path / "rows.jsonl")}], "validation": 0}})
    with pytest.raises(InputError, match=said) as wrong:
        write_folder(tmp_path / "out", export_to(run, "llama-factory"))
    assert "row 1" in str(wrong.value.where) and not (tmp_path / "out").exists()


def test_an_answer_before_the_last_need_not_count_where_only_the_last_one_does(tmp_path: Path) -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in said]
    row = json.dumps({"prompt": messages[:-1], "completion": messages[-1:]})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n", encoding="utf-8")
    raw = {"data": {"train": [{"path": str(tmp_path / "rows.jsonl")}], "validation": 0}}
    with pytest.raises(InputError, match="message 2 does not count"):
        write_folder(tmp_path / "all", export_to(build(RunConfig, raw), "llama-factory"))
    last = build(RunConfig, {**raw, "method": {"train_on": "last"}})
    write_folder(tmp_path / "last", export_to(last, "llama-factory"))
    (written,) = (tmp_path / "last" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [turn["content"] for turn in json.loads(written)["messages"]] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("tuning", "status"), [("lora", "approximated"), ("full", "mapped")])
def test_what_is_trained_is_float32_there_and_what_is_frozen_as_its_file(tuning: str, status: str) -> None:
    run = build(RunConfig, {"model": {"dtype": "float32"}, "tuning": {"name": tuning}})
    exported = export_to(run, "llama-factory")
    assert [line.status for line in exported.report if line.key == "model.dtype"] == [status]
    assert "\nbf16" not in exported.files["train.yaml"]


def test_a_schedule_has_the_settings_that_it_cannot_do_without_there() -> None:
    run = build(RunConfig, {"training": {"scheduler": "cosine_with_min_lr"}})
    exported = export_to(run, "llama-factory")
    assert "lr_scheduler_kwargs: {min_lr_rate: 0.1}\n" in exported.files["train.yaml"]
    stable = export_to(build(RunConfig, {"training": {"scheduler": "warmup_stable_decay"}}), "llama-factory")
    assert "# approximated: training.scheduler - " in stable.files["train.yaml"]


def test_sets_with_weights_and_of_a_dataset_info_keep_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 5), encoding="utf-8")
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"mine": {"file_name": "rows.json"}}), encoding="utf-8")
    sources = [{"path": f"{info}:mine", "weight": 3, "rows": 4}, {"path": "demo/train.jsonl", "weight": 1}]
    run = build(RunConfig, {"data": {"train": sources, "mix": "interleave", "stopping_strategy": "all_exhausted"}})
    exported = export_to(run, "llama-factory")
    entries = json.loads(exported.files["dataset_info.json"])
    assert entries["mine"] == {"file_name": str(tmp_path / "rows.json"), "num_samples": 4}
    assert list(exported.data) == ["train.jsonl"]
    write_folder(tmp_path / "out", exported)
    back = build(RunConfig, import_given(read_file(tmp_path / "out" / "train.yaml")).run)
    assert [source.weight for source in back.data.train] == [0.75, 0.25]
    assert (back.data.mix, back.data.stopping_strategy) == ("interleave", "all_exhausted")
    with pytest.raises(InputError, match="not an empty folder"):
        write_folder(tmp_path / "out", exported)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_numbers_are_written_so_that_every_reader_of_yaml_takes_them_for_numbers() -> None:
    run = build(RunConfig, {"training": {"learning_rate": 1e-5}, "data": {"system": "no"}, "model": {"path": "1e5"}})
    text = export_to(run, "llama-factory").files["train.yaml"]
    assert "learning_rate: 1.0e-5\n" in text
    assert 'default_system: "no"\n' in text
    assert 'model_name_or_path: "1e5"\n' in text
