"""Rows answered by a GGUF: one pass over the expected answer decides as generation would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.evaluate.score import exact_match
from studio.export.proof.model import GgufModel
from studio.export.proof.rows import answer_rows, forced_right
from studio.models.catalog.embedded import find_gguf

PROMPT = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def file() -> Path:
    """The model as its package ships it: it repeats what it is told, which a stand-in may not."""
    return find_gguf()


@pytest.fixture(scope="module")
def model(file: Path) -> Any:
    loaded = GgufModel(file, 256, 1)
    yield loaded
    loaded.close()


def test_only_white_space_is_forgiven() -> None:
    assert exact_match('{"a":1}', ' {"a":1}\n')
    assert not exact_match('{"a":1}', '{"a": 1}')
    assert not exact_match("Yes", "yes")


def test_kept_beginnings_do_not_change_logits(model: GgufModel) -> None:
    ids = model.chat_ids(PROMPT)
    model.logits(ids[:9], 0)
    after_another = model.logits(ids, 0)
    model.logits([5, 6, 7], 0)
    alone = model.logits(ids, 0)
    assert after_another.shape == (len(ids), model.vocabulary)
    assert abs(after_another - alone).max() < 0.2, "q8_0 sums in other blocks; a wrong position would be tens"
    assert (after_another.argmax(axis=1) == alone.argmax(axis=1)).mean() > 0.9


@pytest.mark.long
def test_torch_may_compute_in_the_same_process(file: Path) -> None:
    """On a processor with AMX both use it, and either may switch it off in a thread of the other: a crash."""
    code = f"""
import torch
from pathlib import Path
from studio.export.proof.model import GgufModel
model, square = GgufModel(Path({str(file)!r}), 256, 1), torch.ones(512, 512, dtype=torch.bfloat16)
ids = model.chat_ids([{{"role": "user", "content": "Say hello to everybody here, in as many words as you like."}}])
first = model.logits(ids, 0)
assert (square @ square)[0, 0] == 512
model.logits([5, 6, 7], 0)
assert abs(model.logits(ids, 0) - first).max() < 0.2
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_pass_agrees_with_generation(model: GgufModel) -> None:
    prompt = model.chat_ids([{"role": "user", "content": "Repeat after me: one two three."}])
    answer, ended = model.greedy(prompt, 12)
    # Where two tokens are nearly equal, the sums of a longer block may order them differently: those are left out.
    best = np.sort(model.logits([*prompt, *answer[:-1]], len(prompt) - 1), axis=1)
    answer = answer[: int(np.cumprod(best[:, -1] - best[:, -2] > 0.3).sum())]
    assert len(answer) >= 3
    assert forced_right(model, prompt, answer)
    changed = [*answer[:-1], answer[-1] + 1]
    assert not forced_right(model, prompt, changed)
    assert isinstance(ended, bool)


def test_rows_are_counted_and_wrong_answers_shown(file: Path, tmp_path: Path) -> None:
    model = GgufModel(file, 128, 1)
    prompt = model.chat_ids([{"role": "user", "content": "Repeat after me: one two three."}])
    answer, ended = model.greedy(prompt, 40)
    said = model.decode(answer)
    model.close()
    assert ended
    row = {"row": 1, "prompt": "p", "prompt_ids": prompt}
    rows = [
        row | {"expected": said, "answer_ids": [*answer, 2]},
        row | {"row": 2, "expected": f" {said}\n", "answer_ids": [*answer, 198, 2]},
        row | {"row": 3, "expected": "Berlin.", "answer_ids": [77, 2] + [2] * len(answer)},
    ]
    (tmp_path / "cases.json").write_text(json.dumps({"rows": rows}))
    seen: list[tuple[float, float | None]] = []
    request = {"file": str(file), "folder": str(tmp_path), "threads": 1}
    found = answer_rows(request, lambda done, total: seen.append((done, total)))
    assert (found["correct"], found["total"], found["exact_match"]) == (2, 3, 0.6667)
    assert found["wrong"] == [{"row": 3, "prompt": "p", "expected": "Berlin.", "answer": said}]
    assert seen[-1] == (3, 3)
