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
from studio.export.proof import together as together_module
from studio.export.proof.model import GgufModel
from studio.export.proof.rows import answer_rows, begun
from studio.export.proof.together import Together
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


def test_long_tokens_of_an_answer_are_whole(model: GgufModel) -> None:
    for text in ("-" * 64, "\n" + " " * 48):
        assert model.decode(model._llama.tokenize(text.encode(), add_bos=False, special=False)) == text


def test_one_pass_agrees_with_generation(model: GgufModel) -> None:
    prompt = model.chat_ids([{"role": "user", "content": "Repeat after me: one two three."}])
    answer, ended = model.greedy(prompt, 12)
    # Where two tokens are nearly equal, the sums of a longer block may order them differently: those are left out.
    best = np.sort(model.logits([*prompt, *answer[:-1]], len(prompt) - 1), axis=1)
    answer = answer[: int(np.cumprod(best[:, -1] - best[:, -2] > 0.3).sum())]
    assert len(answer) >= 3
    with Together(model, [prompt], 20) as together:
        assert list(together.chosen([(prompt, answer)])) == [answer]
        changed = [answer[0], answer[1] + 1, *answer[2:]]
        (chosen,) = together.chosen([(prompt, changed)])
    assert begun(model, changed, chosen) == answer[:2]
    assert isinstance(ended, bool)


def test_rows_side_by_side_are_computed_as_alone(model: GgufModel, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven")
    prompts = [
        model.chat_ids([{"role": "user", "content": f"Repeat after me: {' '.join(words[:many])}."}])
        for many in range(1, 8)
    ]
    monkeypatch.setattr(together_module, "AT_ONCE", 3)  # so that there are several groups
    most, firm, same = 8, 0, 0
    with Together(model, prompts, most) as together:
        answers = list(together.written([(prompt, _first(model, prompt)) for prompt in prompts], most))
        read = list(together.chosen([(prompt, answer) for prompt, (answer, _) in zip(prompts, answers, strict=True)]))
    assert any(ended for _, ended in answers) and not all(ended for _, ended in answers)
    for prompt, (answer, ended), chosen in zip(prompts, answers, read, strict=True):
        assert 0 < len(answer) <= most and ended == (len(answer) < most)
        alone = model.logits([*prompt, *answer], len(prompt) - 1)
        best = np.sort(alone, axis=1)
        clear = best[:, -1] - best[:, -2] > 0.3  # nearly equal ones may be ordered differently by another sum
        follows = [*answer, *([2] if ended else [])]
        for place, token in enumerate(follows):
            firm += bool(clear[place])
            same += bool(clear[place]) and int(alone[place].argmax()) == token
            if clear[place] and place < len(chosen):
                assert chosen[place] == token
    assert firm == same >= 20


def _first(model: GgufModel, prompt: list[int]) -> list[int]:
    return [int(model.logits(prompt, len(prompt) - 1)[0].argmax())]


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
        row | {"row": 4, "expected": "One", "answer_ids": answer[:1]},  # with no end, after which it would stop
    ]
    (tmp_path / "cases.json").write_text(json.dumps({"rows": rows}))
    seen: list[tuple[float, float | None]] = []
    request = {"file": str(file), "folder": str(tmp_path), "threads": 1}
    found = answer_rows(request, lambda done, total: seen.append((done, total)))
    assert (found["correct"], found["total"], found["exact_match"]) == (2, 4, 0.5)
    assert found["wrong"] == [
        {"row": 3, "prompt": "p", "expected": "Berlin.", "answer": said},
        {"row": 4, "prompt": "p", "expected": "One", "answer": said},
    ]
    assert seen[-1] == (4, 4)
