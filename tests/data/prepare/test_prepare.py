"""prepare_data: conservation of rows, the three truncations with their counts, the split, the errors of issue 2."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from studio.config.data import DataConfig, DataSource
from studio.data.masks.overlay import IGNORED
from studio.data.prepare.pipeline import Prepared, choose_validation, prepare_data
from studio.data.report import summarize_lengths
from studio.errors import InputError, InputErrors
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import chat

Write = Callable[..., Path]
Prepare = Callable[..., Prepared]
SFT = MethodConfig()


@pytest.fixture
def prepare(tokenizer: Any, settings: Settings) -> Prepare:
    def run(
        path: Path | list[Path], method: MethodConfig = SFT, on_phase: Any = None, seed: int = 42, **values: Any
    ) -> Prepared:
        paths = path if isinstance(path, list) else [path]
        config = DataConfig(train=[DataSource(path=str(one)) for one in paths], **{"validation": 0, **values})
        return prepare_data(config, method, tokenizer, settings, on_phase, seed)

    return run


def rows(count: int) -> list[dict[str, Any]]:
    return [chat(f"Question number {i}?", f"Answer {i}.") for i in range(count)]


def test_demo(tokenizer: Any, settings: Settings) -> None:
    phases: list[tuple[str, int, int | None]] = []
    done = prepare_data(DataConfig(), SFT, tokenizer, settings, lambda *phase: phases.append(phase))
    source = done.report.sources[0]
    assert source.rows == len(done.train) + len(done.validation) == source.kept
    assert done.report.validation_rows == round(0.1 * source.rows)
    assert phases[-1] == ("tokenizing", source.rows, source.rows)
    for one in done.train:
        kept = [label for label in one.labels if label != IGNORED]
        assert tokenizer.decode(kept).endswith("}<|im_end|>")
    everything = done.train + done.validation
    assert done.report.tokens == sum(len(one.input_ids) for one in everything)
    assert done.report.supervised_tokens == sum(len(one.labels) - one.labels.count(IGNORED) for one in everything)
    assert done.report.as_dict()["sources"][0]["sha256"] == source.sha256


def test_every_row_lands_once_and_the_seed_decides(prepare: Prepare, write: Write) -> None:
    path = write("x.jsonl", rows(50))
    first, again, other = (prepare(path, validation=0.2, seed=seed) for seed in (1, 1, 2))
    places = [[one.row for one in part] for part in (first.train, first.validation)]
    assert sorted(places[0] + places[1]) == list(range(1, 51))
    assert len(places[1]) == 10
    assert [one.row for one in again.validation] == places[1]
    assert [one.row for one in other.validation] != places[1]


@example_settings(max_examples=200, deadline=None)
@given(st.integers(0, 500), st.floats(0, 0.999), st.integers(0, 2**32 - 1))
def test_split_law(count: int, share: float, seed: int) -> None:
    away = choose_validation(count, share, seed)
    assert away == choose_validation(count, share, seed)
    assert away <= set(range(count))
    if share > 0 and count >= 2:
        assert 1 <= len(away) < count
    else:
        assert not away


def test_validation_file_and_several_sources(prepare: Prepare, write: Write) -> None:
    one, two = write("one.jsonl", rows(3)), write("two.json", '[{"text": "a text"}]')
    held = write("held.jsonl", rows(2))
    done = prepare([one, two], validation=str(held))
    assert [(part.path, part.row) for part in done.train] == [
        ("one.jsonl", 1), ("one.jsonl", 2), ("one.jsonl", 3), ("two.json", 1),
    ]  # fmt: skip
    assert [part.path for part in done.validation] == ["held.jsonl", "held.jsonl"]
    assert [(source.part, source.format) for source in done.report.sources] == [
        ("train", "messages"), ("train", "text"), ("validation", "messages"),
    ]  # fmt: skip
    assert done.report.duplicates_across == 2
    assert any("validation loss looks better" in finding.text for finding in done.report.findings)


LONG = [chat("q", "short"), chat("q", "word " * 200), chat("word " * 200, "a"), chat("q", "end")]


def test_truncation_error_names_the_rows_and_its_remedies_work(prepare: Prepare, write: Write) -> None:
    path = write("x.jsonl", LONG)
    with pytest.raises(InputError) as caught:
        prepare(path, max_length=64)
    assert "2 of 4 rows are longer than 64 tokens" in caught.value.what
    assert "x.jsonl, row 2 (" in caught.value.what
    longest = int(caught.value.fix.split("data.max_length to ")[1].split(",")[0])
    assert len(prepare(path, max_length=longest).train) == 4
    with pytest.raises(InputError):
        prepare(path, max_length=longest - 1)


def test_truncation_drop_and_cut_are_counted(prepare: Prepare, write: Write) -> None:
    path = write("x.jsonl", LONG)
    dropped = prepare(path, max_length=64, truncation="drop")
    assert [one.row for one in dropped.train] == [1, 4]
    assert (dropped.report.dropped, dropped.report.cut, dropped.report.lengths.over_limit) == (2, 0, 2)
    cut = prepare(path, max_length=64, truncation="cut")
    assert [one.row for one in cut.train] == [1, 2, 4]
    source = cut.report.sources[0]
    assert (source.cut, source.dropped, source.dropped_unsupervised, source.kept) == (1, 0, 1, 3)
    whole = prepare(path, max_length=512)
    # The start is kept, token for token.
    assert cut.train[1].input_ids == whole.train[1].input_ids[:64]
    assert cut.train[1].labels == whole.train[1].labels[:64]
    assert len(cut.report.findings) == 2


def test_no_more_than_five_long_rows_are_named(prepare: Prepare, write: Write) -> None:
    with pytest.raises(InputError, match=r"row 5 \(\d+ tokens\) and 4 more; the longest has"):
        prepare(write("x.jsonl", rows(9)), max_length=8)


def test_no_row_left(prepare: Prepare, write: Write) -> None:
    path = write("x.jsonl", rows(3))
    for truncation in ("drop", "cut"):
        with pytest.raises(InputError, match=r"no rows are left to train on.*Raise data\.max_length"):
            prepare(path, max_length=8, truncation=truncation)


def test_several_bad_rows_are_named_at_once(prepare: Prepare, write: Write) -> None:
    broken = rows(20)
    for i in range(4, 12):
        broken[i] = {"message": []}
    with pytest.raises(InputErrors) as caught:
        prepare(write("x.jsonl", broken))
    lines = caught.value.sentence.splitlines()
    assert len(lines) == 6
    assert "row 5" in lines[0]
    assert "row 9" in lines[4]
    assert "3 more rows" in lines[5]


def test_one_row_has_no_validation_and_says_so(prepare: Prepare, write: Write) -> None:
    done = prepare(write("x.jsonl", rows(1)), validation=0.5)
    assert (len(done.train), len(done.validation)) == (1, 0)
    assert any("no rows are left for validation" in finding.text for finding in done.report.findings)


def test_zero_supervised_tokens(tokenizer: Any, settings: Settings, write: Write) -> None:
    from tests.data.templates import with_template

    # Nothing stands between question and answer, so "th" and "e" become one token, " the".
    merged = with_template(tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}")
    path = write("x.jsonl", [chat("q", "answer"), chat("say th", "e")])
    config = DataConfig(train=[DataSource(path=str(path))], validation=0)
    with pytest.raises(InputError, match=r"x\.jsonl, row 2: the row has 0 supervised tokens.*method\.train_on: all"):
        prepare_data(config, SFT, merged, settings)
    assert len(prepare_data(config, MethodConfig(train_on="all"), merged, settings).train) == 2
    path = write("x.jsonl", [chat("q", "a"), chat("q", "\n")])
    with pytest.raises(InputError, match=r"x\.jsonl, row 2.*answer is empty"):
        prepare_data(config, SFT, merged, settings)
    path = write("x.jsonl", [chat("q", "a"), {"messages": [{"role": "user", "content": "q"}]}])
    with pytest.raises(InputError, match=r"x\.jsonl, row 2.*nothing to train on"):
        prepare_data(config, SFT, merged, settings)


def test_script_tags_stay_text(prepare: Prepare, write: Write, tokenizer: Any) -> None:
    text = "<script>alert('x')</script>&amp;"
    done = prepare(write("x.jsonl", [chat(text, text)]))
    assert tokenizer.decode([label for label in done.train[0].labels if label != IGNORED]) == text + "<|im_end|>"


def test_huge_row_names_itself(prepare: Prepare, write: Write) -> None:
    with pytest.raises(InputError, match=r"1 of 2 rows is longer than 1024 tokens: x\.jsonl, row 2"):
        prepare(write("x.jsonl", [chat("q", "a"), chat("q", "word " * 100_000)]), max_length=1024)


def test_notes_become_findings(prepare: Prepare, write: Write) -> None:
    lines = [{"text": "q<|im_end|>a", "id": 1}, {"text": "b c"}, {"text": "b c"}]
    done = prepare(write("x.jsonl", lines), control_tokens="keep")
    texts = " ".join(f"{one.count} {one.text} {one.rows}" for one in done.report.findings)
    assert "1 the text contains special tokens" in texts
    assert "ignored keys: id" in texts
    assert done.report.duplicates_train == 1


def test_speed(prepare: Prepare, write: Write) -> None:
    """500 rows of the demo's size take 0.1 s of CPU time; time on the wall would measure the neighbours."""
    path = write("x.jsonl", rows(500))
    prepare(path)
    began = time.process_time()
    prepare(path)
    assert time.process_time() - began < 2


@given(st.lists(st.integers(0, 5000), min_size=1), st.integers(1, 5000))
def test_histogram_counts_each_row_once(lengths: list[int], limit: int) -> None:
    summary = summarize_lengths(lengths, limit)
    assert sum(summary.counts) == summary.rows == len(lengths)
    assert len(summary.edges) == len(summary.counts) + 1 <= 26
    assert summary.edges[0] <= min(lengths) <= max(lengths) < summary.edges[-1]
    assert summary.over_limit == sum(length > limit for length in lengths)
    assert summary.shortest <= summary.median <= summary.p95 <= summary.longest
