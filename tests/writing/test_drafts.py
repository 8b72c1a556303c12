"""Answers that are expected change the time that writing takes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.writing import loop
from studio.writing.quick import quicker
from tests.writing.test_quick import adapted, made, prompts

END, MOST = 2, 8


def ending(model: Any) -> Any:
    """A model whose answers end somewhere: the end is always rather likely."""
    head = model.get_output_embeddings()
    head.weight.data[END] *= 2.5
    return model


def answers(written: torch.Tensor, width: int) -> list[list[int]]:
    """What was written of each row, its end included, without padding."""
    rows = [row[width:] for row in written.tolist()]
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def drafted(model: Any, given: dict[str, torch.Tensor], drafts: Any, **settings: Any) -> tuple[torch.Tensor, int, int]:
    """What is written, in how many calls of the model, and how many rows were said to have ended."""
    calls, ended = [], []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hook = inner.register_forward_pre_hook(lambda *_: calls.append(1))
    told = {} if drafts is None else {"drafts": drafts, "on_end": ended.append}
    with quicker(model) as takes:
        assert takes
        torch.manual_seed(3)
        written = model.generate(
            **given, **{"max_new_tokens": MOST, "do_sample": False, "eos_token_id": END, "pad_token_id": 0, **settings},
            **told,
        )  # fmt: skip
    hook.remove()
    return written, len(calls), sum(ended)


@pytest.mark.parametrize("share", [0, 20], ids=["apart", "shared"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma"])
def test_the_text_is_the_same(family: str, share: int) -> None:
    model, given = ending(made(family)), prompts(share)
    plain, steps, _ = drafted(model, given, None)
    own = answers(plain, given["input_ids"].shape[1])
    assert any(row[-1] == END for row in own) and any(row[-1] != END for row in own)
    wrong = [[*row[:-2], (row[-2] + 1) % 97, row[-1]] if len(row) > 1 else [7, END] for row in own]
    mixed = [one if at % 3 else two for at, (one, two) in enumerate(zip(own, wrong, strict=True))]
    for drafts in (own, wrong, mixed, [[] for _ in own], [[*row, END] for row in own], [[*row, 5] for row in own]):
        written, _, ended = drafted(model, given, drafts)
        assert torch.equal(written, plain) and ended == len(own)
    # Whoever writes what is expected of all reads it in one step.
    some = [at for at, row in enumerate(own) if row[-1] == END]
    chosen = {name: one[some] for name, one in given.items()}
    known = [own[at] for at in some]
    written, calls, ended = drafted(model, chosen, known)
    alone, needed, _ = drafted(model, chosen, None)
    assert torch.equal(written, alone) and ended == len(some)
    assert calls <= needed and calls <= 2 + (share > 0) < steps


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.5}, {"do_sample": True}, {"min_new_tokens": 3}], ids=str)
def test_where_the_likeliest_is_not_what_is_written_nothing_is_tried(settings: dict[str, Any]) -> None:
    model, given = ending(made()), prompts()
    greedy = answers(drafted(model, given, None)[0], given["input_ids"].shape[1])
    plain = drafted(model, given, None, **settings)
    found = drafted(model, given, greedy, **settings)
    assert torch.equal(found[0], plain[0]) and found[1] == plain[1] and found[2] == len(greedy)


def test_many_rows_with_an_adapter_are_two_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HALF_ROWS", 4)
    model, given = adapted(ending(made())), prompts(20)
    plain, _, _ = drafted(model, given, None)
    own = answers(plain, given["input_ids"].shape[1])
    for drafts in (own, [row if at % 2 else [5, END] for at, row in enumerate(own)]):
        written, _, ended = drafted(model, given, drafts)
        assert torch.equal(written, plain) and ended == len(own)


def test_drafts_beyond_what_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.writing.drafts.AT_ONCE", 6)
    model, given = ending(made()), prompts(20)
    plain, _, _ = drafted(model, given, None)
    own = answers(plain, given["input_ids"].shape[1])
    assert torch.equal(drafted(model, given, own)[0], plain)
