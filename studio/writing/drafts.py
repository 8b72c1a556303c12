"""Answers that are expected, tried before they are written.

A model that knows its task writes what is expected of it. Reading such an answer behind its prompt takes one step,
writing it one for each token; a row that the model answers otherwise is written as if nothing had been expected. As in
speculative decoding (Leviathan et al. 2023, arXiv:2211.17192), with whole answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import Cache

from studio.models.plan.batches import Batching, split

AT_ONCE = 256  # tokens of answers whose logits are in memory at a time


def as_drafted(
    model: Any, drafts: Sequence[Sequence[int]], scores: torch.Tensor, cache: Cache, seen: torch.Tensor,
    lengths: torch.Tensor, ends: torch.Tensor, most: int,
) -> list[int]:  # fmt: skip
    """Return the rows whose draft is what the model writes, taking the likeliest token each time.

    Args:
        model: the causal language model.
        drafts: what is expected of each row, as token ids; one that does not end is not tried.
        scores: of the first token, (B, V).
        cache: keys and values of the prompts; it is not changed.
        seen: which of them are a prompt's, (B, P).
        lengths: of the prompts, (B,).
        ends: ids of the tokens that end an answer, (E,).
        most: longest answer, tokens.
    """
    first, stops = scores.argmax(-1).tolist(), set(ends.tolist())
    fit = [
        row for row, draft in enumerate(drafts)
        if 0 < len(draft) <= most and draft[0] == first[row] and draft[-1] in stops and stops.isdisjoint(draft[:-1])
    ]  # fmt: skip
    found = [row for row in fit if len(drafts[row]) == 1]
    longer = [row for row in fit if len(drafts[row]) > 1]
    for part in split([len(drafts[row]) for row in longer], Batching(len(longer), AT_ONCE)):
        rows = [longer[at] for at in part]
        some, width = torch.tensor(rows), len(drafts[rows[0]]) - 1
        ids = torch.zeros(len(rows), width, dtype=torch.long)  # padded on the right, which nothing before it sees
        for at, row in enumerate(rows):
            ids[at, : len(drafts[row]) - 1] = torch.tensor(drafts[row][:-1])
        places = lengths[some, None] + torch.arange(width)
        mask = functional.pad(seen[some], (0, width), value=True)
        theirs = Cache(layers=[layer.chosen(some, width) for layer in cache.layers])
        logits = model(
            input_ids=ids, position_ids=places, attention_mask=mask.long(), past_key_values=theirs, use_cache=True,
            return_dict=True,
        ).logits  # fmt: skip
        for row, best in zip(rows, logits.argmax(-1).tolist(), strict=True):
            if best[: len(drafts[row]) - 1] == list(drafts[row][1:]):
                found.append(row)
    return found
