"""A run as Axolotl's YAML: only keys that it knows, the same meaning when it is read again, nothing left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example
from hypothesis import given as given_these
from hypothesis import settings as examples

from studio.config import RunConfig
from studio.config.describe import OptionSpec, options_of, value_at
from studio.config.load import build
from studio.config.presets import demo_of
from studio.errors import InputError
from studio.interop.axolotl import TOOL
from studio.interop.axolotl.writing import NAME, write
from studio.interop.reading import read_text
from studio.methods import METHODS
from studio.tunings import TUNINGS

# Options whose values depend on each other, or that name things that must be there.
_NOT_DRAWN = ("data.", "method.reward", "method.dpo_loss", "method.name", "tuning.name", "model.path", "training.batch",
              "training.micro", "method.trust", "model.trust", "tuning.adapter", "tuning.merge")  # fmt: skip
SPECS = [spec for spec in options_of(RunConfig) if not spec.path.startswith(_NOT_DRAWN)]
NAMES = [name for name in METHODS if demo_of(name) and METHODS[name].trainer != "ppo"]


def drawn(spec: OptionSpec) -> st.SearchStrategy[Any]:
    if spec.kind == "flag":
        return st.booleans()
    if spec.kind in ("choice", "words"):
        word = st.sampled_from(spec.choices)
        return word if spec.kind == "choice" else st.lists(word, unique=True, max_size=2)
    if spec.kind == "integer":
        return st.integers(int(spec.minimum or 1), int(min(spec.maximum or 1000, 1000)))
    if spec.kind == "number":
        low = spec.minimum or 0.0
        high = min(low + 1, low + 1 if spec.maximum is None else spec.maximum)
        return st.integers(1, 99).map(lambda percent: round(low + (high - low) * percent / 100, 6))
    return st.nothing()


RUNS = st.fixed_dictionaries({
    "method": st.sampled_from(NAMES), "tuning": st.sampled_from(list(TUNINGS)), "micro": st.integers(1, 4),
    "parts": st.integers(1, 4),
    "options": st.lists(
        st.sampled_from([spec for spec in SPECS if not drawn(spec).is_empty]), max_size=12, unique_by=id
    ).flatmap(lambda specs: st.fixed_dictionaries({spec.path: drawn(spec) for spec in specs})),
})  # fmt: skip


def made(run: dict[str, Any]) -> RunConfig:
    """A run of the drawn options; some values do not go together, and are then left out."""
    raw: dict[str, dict[str, Any]] = {
        "model": {}, "data": {"train": [{"path": "org/rows", "format": "auto"}], "validation": 0.1},
        "method": {"name": run["method"]}, "tuning": {"name": run["tuning"]},
        "training": {"micro_batch_size": run["micro"], "batch_size": run["micro"] * run["parts"]},
    }  # fmt: skip
    for path, value in run["options"].items():
        section, _, name = path.partition(".")
        raw[section][name] = value
        try:
            build(RunConfig, raw)
        except InputError:
            del raw[section][name]
    return build(RunConfig, raw)


# The loss sigmoid does not read it, so it is not written: it would come back as refused.
UNREAD = {"method": "dpo", "tuning": "full", "micro": 1, "parts": 1, "options": {"method.label_smoothing": 0.005}}


@example(UNREAD)
@given_these(RUNS)
@examples(max_examples=40)
def test_what_is_mapped_comes_back_with_the_same_meaning(run: dict[str, Any]) -> None:
    config = made(run)
    exported = write(config)
    given = read_text(exported.files[NAME])
    assert set(given.values) <= TOOL.keys
    back = TOOL.read(given)
    assert not [line.key for line in back.report if line.status == "unknown"]
    there, again = config.model_dump(), build(RunConfig, back.run).model_dump()
    if there["tuning"]["alpha"] == "auto":
        there["tuning"]["alpha"] = 2.0 * there["tuning"]["rank"]
    for line in exported.report:
        if line.status == "mapped" and line.key != "data.train":
            mine, theirs = value_at(there, line.key), value_at(again, line.key)
            if line.key == "training.report_to":  # a key each in Axolotl: they have no order
                mine, theirs = sorted(mine), sorted(theirs)
            assert (line.key, theirs) == (line.key, mine)
        assert line.status == "mapped" or line.why
    changed = {spec.path for spec in options_of(RunConfig) if value_at(config.model_dump(), spec.path) != spec.default}
    assert changed <= {line.key for line in exported.report}


@pytest.mark.parametrize(
    ("source", "method", "entry"),
    [
        ({"path": "a/b", "format": "messages", "columns": {"messages": "talk"}, "tags": {"role": "from"}, "rows": 9},
         "sft", {"path": "a/b", "split": "train[:9]", "type": "chat_template", "field_messages": "talk",
                 "message_property_mappings": {"role": "from", "content": "content"}}),
        ({"path": "t.jsonl", "format": "text", "columns": {"text": "body"}}, "pretrain",
         {"path": "t.jsonl", "type": "completion", "field": "body"}),
        ({"path": "p.jsonl", "format": "preference"}, "dpo",
         {"path": "p.jsonl", "type": {"field_prompt": "prompt", "field_chosen": "chosen",
                                      "field_rejected": "rejected"}}),
        ({"path": "p.jsonl", "columns": {"prompt": "q"}, "reading": "conversation"}, "orpo",
         {"path": "p.jsonl", "type": ".dpo.chat_template.default"}),
        ({"path": "a/b", "subset": "x", "columns": {"chosen": "good"}, "tags": {"role": "from"}}, "dpo",
         {"path": "a/b", "split": "train", "type": "chat_template.default", "field_chosen": "good"}),
        ({"path": "a/b", "subset": "x", "columns": {"chosen": "good"}, "tags": {"role": "from"}}, "orpo",
         {"path": "a/b", "name": "x", "split": "train", "type": ".dpo.chat_template.default",
          "message_property_mappings": {"role": "from", "content": "content"}}),
        ({"path": "p.jsonl", "format": "preference"}, "orpo", {"path": "p.jsonl", "type": ".dpo.passthrough.default"}),
    ],
)  # fmt: skip
def test_sets_get_the_type_that_makes_the_same_text(source: dict[str, Any], method: str, entry: dict[str, Any]) -> None:
    config = build(RunConfig, {"data": {"train": [source], "validation": 0}, "method": {"name": method}})
    assert read_text(write(config).files[NAME]).values["datasets"] == [entry]


def test_a_prompt_of_axolotl_goes_back_to_its_type() -> None:
    text = "base_model: m\nmicro_batch_size: 1\nlearning_rate: 1e-4\ndatasets:\n  - path: a/b\n    type: {kind}\n"
    for kind in ("alpaca", "alpaca:chat", "alpaca_chat.load_qa", "alpaca_w_system.load_chat"):
        run = build(RunConfig, TOOL.read(read_text(text.replace("{kind}", kind))).run)
        (entry,) = read_text(write(run).files[NAME]).values["datasets"]
        assert (entry["path"], entry["type"]) == ("a/b", "alpaca_w_system" if "w_system" in kind else kind)


def test_the_demo_names_its_file_and_what_is_missing_is_a_comment() -> None:
    raw = {"method": {"name": "sft", "loss": "dft"}, "tuning": {"name": "full"}}
    config = build(RunConfig, raw | {"data": {"validation": "demo/validation.jsonl"}})
    exported = write(config)
    text = exported.files[NAME]
    (entry,) = read_text(text).values["datasets"]
    (held_out,) = read_text(text).values["test_datasets"]
    assert entry["path"].endswith("demo/train.jsonl") and entry["type"] == "chat_template"
    assert Path(entry["path"]).is_file() and Path(held_out["path"]).is_file()
    assert "#   method.loss: dft (Axolotl has nothing like it)" in text
    assert "# What the studio takes for a model of 135 million weights.\nlearning_rate:" in text


def test_ppo_is_refused() -> None:
    with pytest.raises(InputError, match="Axolotl has no PPO"):
        write(build(RunConfig, {"method": {"name": "ppo"}}))
