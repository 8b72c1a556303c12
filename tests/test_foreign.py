"""YAML and JSON of strangers, and paths that no file has."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from studio.config.load import apply_set, load_run
from studio.errors import InputError, InputErrors
from studio.foreign import RUN, Limits, TooMuchError, parse_json, parse_yaml, read_json_file, unusable_path
from studio.jobs.actions.sweep import parse_values
from studio.jobs.store.folder import JobFolder
from tests.support.everyday import everyday

MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{number}: &a{number} {{<<: [{', '.join([f'*a{number - 1}'] * 10)}]}}\n" for number in range(1, 13)
)
OVER = {
    "merges": MERGED, "a few merges": "".join(MERGED.splitlines(keepends=True)[:7]), "itself": "&a [*a]",
    "itself by a key": "&a {b: *a}", "itself by a merge": "&a {<<: *a}", "flow": "[" * 60 + "]" * 60,
    "blocks": "".join(f"{'  ' * depth}a:\n" for depth in range(60)),
    "dashes": "- " * 60 + "a", "questions": "? " * 60 + "a",
    "hexadecimal": "0x" + "f" * 200, "octal": "0o" + "7" * 200, "decimal": "9" * 200, "float": "1." + "1" * 200,
    "key": "k" * 1001 + ": 1", "bytes": "a: " + "b " * 200_000, "values": "[" + "1," * 30_000 + "]",
}  # fmt: skip
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("name", OVER)
def test_what_is_over_a_limit_is_refused_soon(name: str) -> None:
    began = time.process_time()
    with pytest.raises(TooMuchError):
        parse_yaml(OVER[name])
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "text", ["!!int ''", "!!bool x", "!!int 0x", "!!timestamp x", "2026-99-99", "!!float x", "!!binary x"]
)
def test_a_value_that_is_none_of_its_kind_is_a_fault_of_the_file(text: str) -> None:
    with pytest.raises((ValueError, YAMLError)):
        parse_yaml(f"a: {text}")


def test_what_people_write_stays() -> None:
    text = "base: &base {epochs: 2, seed: 0x10}\ntraining: {<<: *base, rate: 1e-4}\nlist: [*base, *base]\n"
    base = {"epochs": 2, "seed": 16}
    assert parse_yaml(text) == {"base": base, "training": {**base, "rate": 1e-4}, "list": [base, base]}
    assert parse_yaml("") is None and parse_yaml("# nothing") is None


@examples(deadline=None)
@given(plain)
def test_json_is_read_as_json(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    ["[" * 500_000 + "]" * 500_000, "[" * 41 + "]" * 41, '{"a":' * 41 + "1" + "}" * 41, "[" + "[]," * 700_000 + "1]"]
)  # fmt: skip
def test_bombs_of_json_are_refused(text: str) -> None:
    with pytest.raises(TooMuchError):
        parse_json(text)
    assert parse_json("[" * 40 + "]" * 40)


FEW = Limits(bytes=10_000_000, nodes=1000)


@pytest.mark.parametrize("text", ["[1,{},2]", '{"a": "[,:{"}' * 2, '\\",', "\\", '"', '\\\\"', "\n,\t[", "é,", "\x00,"])
def test_what_stands_in_a_text_is_no_value(text: str) -> None:
    """Answers of a model may be JSON, and a report has thousands of them."""
    value = {"rows": [{"answer": text * 200} for _ in range(20)]}
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert parse_json(written, FEW) == value == parse_json(written.encode(), FEW)


@pytest.mark.parametrize("before", ["", '"\\\\"', '"\\\\\\""', '"\\""', '"a\\\\\\\\"', '"é"', '"\\u0022"'])
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_no_text_hides_values(before: str, code: str) -> None:
    values = f"[{before or 0}{',1' * 1001}]"
    assert len(json.loads(values)) == 1002
    with pytest.raises(TooMuchError):
        parse_json(values.encode(code), FEW)
    with pytest.raises(TooMuchError):
        parse_json(f'["{"x" * 2_000_000}",{values[1:]}'.encode(code), FEW)  # of more than one block
    with pytest.raises(TooMuchError):
        parse_json(("[" + '"",' * 1001 + "0]").encode(code), FEW)


@examples(deadline=None)
@given(plain)
def test_values_are_counted_outside_of_texts(value: Any) -> None:
    outside = "".join(re.split(r'"(?:[^"\\]|\\.)*"', json.dumps(value)))
    count = sum(map(outside.count, ",[{:"))
    parse_json(json.dumps(value), Limits(bytes=1_000_000, nodes=count))
    if count:
        with pytest.raises(TooMuchError):
            parse_json(json.dumps(value), Limits(bytes=1_000_000, nodes=count - 1))


def test_a_text_that_never_ends_is_known_soon() -> None:
    began = time.process_time()
    with pytest.raises(ValueError):
        parse_json('"' + ',\\"' * 1_000_000, FEW)
    assert time.process_time() - began < 5


def test_a_file_is_not_read_past_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "big.json"
    with file.open("wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(TooMuchError):
        read_json_file(file, Limits(bytes=1000, nodes=10))
    with pytest.raises(InputError, match="not the YAML of a run"):
        load_run(file)


@pytest.mark.parametrize("name", everyday(OVER, "merges", "itself", "flow", "hexadecimal", "key", "bytes"))
def test_the_command_line_has_the_same_limits(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.yaml").write_text(OVER[name])
    with pytest.raises(InputError):
        load_run(tmp_path / "run.yaml")
    job = tmp_path / "20260101-000000-a"
    job.mkdir()
    (job / "job.yaml").write_text(OVER[name])
    for what in ("request", "heading", "name"):
        with pytest.raises(InputError, match="cannot be read"):
            getattr(JobFolder(job), what)
    if "\n" not in OVER[name]:
        with pytest.raises(InputError):
            parse_values("training.seed", OVER[name])
        with pytest.raises(InputError):
            apply_set({}, f"training.seed={OVER[name]}")
        with pytest.raises(InputError):
            apply_set({}, f"tuning.rank_pattern={OVER[name]}")


def test_thousands_of_wrong_keys_are_a_page_of_sentences(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("".join(f"key{number}: 1\n" for number in range(9_000)))
    began = time.process_time()
    with pytest.raises(InputErrors) as refused:
        load_run(tmp_path / "run.yaml")
    assert time.process_time() - began < 15
    assert len(refused.value.errors) < 40 and "8,970 more" in refused.value.errors[-1].sentence


@pytest.mark.parametrize(
    "value", ["0-20000000", "0-1999,0-1999,0-1999", "5-3", "²", "0-²", "9" * 5000, [10**30], [-1], ""]
)
def test_blocks_that_no_model_has(tmp_path: Path, value: Any) -> None:
    from studio.tunings import TuningConfig

    if value == "":
        assert TuningConfig(layers_to_transform=value).layers_to_transform is None
        return
    with pytest.raises(ValueError, match="layers_to_transform"):
        TuningConfig(layers_to_transform=value)


def test_limits_leave_room_for_runs() -> None:
    """A rank for each layer of the largest models, and a thousand files."""
    ranks = ", ".join(
        f"model.layers.{block}.self_attn.{letter}_proj: 8" for block in range(126) for letter in "abcdefg"
    )
    files = ", ".join(f"{{path: folder/of/rows/number-{number}.jsonl, weight: 2}}" for number in range(1000))
    text = f"data: {{train: [{files}]}}\ntuning: {{rank_pattern: {{{ranks}}}}}\n"
    assert len(text) < RUN.bytes and len(parse_yaml(text)["tuning"]["rank_pattern"]) == 882


@pytest.mark.parametrize("text", ["a" * 256, "é" * 128, "/a" * 2048, "a\0b", "\ud800", "x/" + "b" * 300 + "/y"])
def test_paths_that_no_file_has(text: str) -> None:
    assert unusable_path(text)


@pytest.mark.parametrize("text", ["a" * 255, "é" * 127, "/a" * 2047, "", "..", "a b\n", "~"])
def test_paths_that_a_file_may_have(text: str) -> None:
    assert unusable_path(text) == ""


def test_an_anchor_that_is_used_again_prints_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """Each would be a piece of the file on the terminal of the server: 2 MB for a file of 256 KB."""
    assert parse_yaml("a: &a 1\nb: &a 2\nc: *a\n") == {"a": 1, "b": 2, "c": 2}
    assert not recwarn.list
