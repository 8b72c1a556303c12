"""What a plan and the page say of streamed rows: from a few of them, until a run has gone through the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig
from studio.config.model import EMBEDDED_MODEL
from studio.data.prepare.pipeline import prepare_data
from studio.data.sources.mixing import mix
from studio.data.streaming import sample
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.methods import MethodConfig
from tests.parity.made import demo_rows

ROWS = demo_rows("train.jsonl", 20)


def quiet(name: str, done: float, total: float | None) -> None:
    return None


def shards(folder: Path, count: int) -> Path:
    folder.mkdir()
    for at in range(count):
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        (folder / f"{at:02}.jsonl").write_text(lines)
    return folder


def options(path: Path, **more: Any) -> dict[str, Any]:
    values = {"train": [{"path": str(path)}], "truncation": "cut", "max_length": 512, "streaming": "on", **more}
    return DataConfig(**values).model_dump()


def asked(op: str, settings: Any, data: dict[str, Any], confined: bool = False, **own: Any) -> Any:
    args = {"data": data, "model": {"path": EMBEDDED_MODEL}, "method": {"name": "sft"}, "confined": confined, **own}
    return WholeOperations(settings).run(op, args, quiet)


def test_a_plan_reads_a_few_rows_until_a_run_has_read_all(settings, tokenizer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sample, "_ROWS", 80)
    monkeypatch.setattr(sample, "_LONG_PASS", 100_000)
    passes = "before it starts, which is not in the plan's time"
    folder = shards(tmp_path / "shards", 20)
    data = options(folder, validation=0.1)
    found = asked("lengths", settings, data)
    estimate = found["estimate"]
    assert len(estimate["each"]) == 80, "ten rows of each of eight files"
    assert estimate["count"] + estimate["validation_count"] == pytest.approx(400, rel=0.15)
    text = found["report"]["findings"][0]["text"]
    assert text.startswith("the rows are streamed: 80 of about ")
    assert passes in found["report"]["findings"][1]["text"]
    assert not (settings.home / "cache" / "streams").exists()
    whole = prepare_data(DataConfig(**{**data, "streaming": "off"}), MethodConfig(), tokenizer, settings)
    assert estimate["tokens"] == pytest.approx(sum(row.tokens for row in whole.train), rel=0.2)
    told = found["report"]["tokens"], found["report"]["supervised_tokens"]
    assert told == pytest.approx((whole.report.tokens, whole.report.supervised_tokens), rel=0.2)
    assert told[0] > estimate["tokens"] and estimate["validation_tokens"] == pytest.approx(told[0] * 0.1, rel=0.2)
    assert estimate["longest"] >= max(row.length for row in whole.train) * 0.9

    prepare_data(DataConfig(**data), MethodConfig(), tokenizer, settings)
    known = asked("lengths", settings, data)
    assert known["estimate"]["count"] == 360 and known["estimate"]["validation_count"] == 40
    assert sorted(known["estimate"]["each"]) == sorted(row.length for row in whole.train)
    assert known["report"]["findings"][0]["text"].startswith("the rows are streamed: 400 of 400")
    assert not any(passes in one["text"] for one in known["report"]["findings"]), "it was gone through already"


@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (None, None)])
def test_a_plan_counts_what_the_mix_takes(settings, tmp_path, stopping, weights) -> None:
    rows = {"one": ROWS, "two": ROWS[:10]}
    for name, some in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    train = [
        {"path": str(tmp_path / f"{name}.jsonl"), "weight": weight} for name, weight in zip(rows, weights, strict=True)
    ]
    data = {**options(tmp_path), "train": train, "mix": "interleave", "stopping_strategy": stopping, "validation": 0}
    planned = asked("lengths", settings, data)["estimate"]["count"]
    made = len(mix(DataConfig(**data), [20, 10], 42))
    assert planned == (pytest.approx(made, rel=0.3) if weights[0] else made)


def test_a_bad_row_among_the_first_is_named_by_the_plan(settings, tmp_path) -> None:
    folder = shards(tmp_path / "shards", 3)
    (folder / "01.jsonl").write_text(json.dumps(ROWS[0]) + '\n{"prompt": 3}\n')
    with pytest.raises(InputError, match=r"^01\.jsonl, row 2"):
        asked("lengths", settings, options(folder))


def test_the_page_looks_at_some_rows_and_says_so(settings, monkeypatch) -> None:
    monkeypatch.setattr(sample, "_ROWS", 20)
    monkeypatch.setattr("studio.data.worker.whole._STREAMED_SAMPLE", 30)
    folder = shards(settings.home / "shards", 2)
    data = options(folder, truncation="error")
    one = asked("inspect", settings, data, confined=True, path=str(folder))
    assert one["lengths"]["rows"] == 20 and one["rows"] == pytest.approx(40, rel=0.2)
    assert "20 of about" in one["findings"][0]["text"]
    profile = asked("profile", settings, data, confined=True)
    assert profile["sampled"]["rows"] == 30
    assert asked("inspect", settings, data, path=str(folder))["rows"] == 40, "the command reads all"


def test_a_plan_passes_over_a_bad_row_where_only_some_are_taken(settings, tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[:7], {"prompt": "a"}, *ROWS[7:]]))
    with pytest.raises(InputError, match=r"rows\.jsonl, row 8"):
        asked("lengths", settings, options(path, validation=0))
    found = asked("lengths", settings, options(path, validation=0, train=[{"path": str(path), "rows": 6}]))
    assert found["estimate"]["count"] == 6 and found["report"]["tokens"] > 0
