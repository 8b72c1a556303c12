"""Greedy answers of a model, and whether another one gives the same.

Two models that differ by rounding may part where the trained one hardly prefers its token. So beside each token of an
answer stand the likeliest ones: an answer that parts there is told as unsure, any other difference is a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from studio.evaluate.answers import plainly

PROMPTS, OF_ROWS = 8, 5
TOKENS = 48
LIKELIEST = 5


@dataclass(frozen=True)
class GreedyAnswer:
    """What a model answers to one prompt.

    Attributes:
        name: of the prompt.
        prompt: its token ids.
        ids: (T,) token ids of the answer, its end included where it ended.
        likeliest: (T,) by position, the likeliest tokens as (id, log-probability), the chosen one first.
    """

    name: str
    prompt: list[int]
    ids: list[int]
    likeliest: list[list[tuple[int, float]]]


def asked_greedily(prompts: Iterable[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """Choose (name, token ids) of prompts: some of the run's own rows, then shapes of conversation; no rare texts.

    Args:
        prompts: of cases.json.
    """
    firm = [(prompt["name"], prompt["ids"]) for prompt in prompts if not prompt["rare"] and prompt["ids"]]
    rows = [one for one in firm if one[0].startswith("row ")]
    shapes = [one for one in firm if one not in rows]
    return [*rows[:OF_ROWS], *shapes, *rows[OF_ROWS:]][:PROMPTS]


@torch.inference_mode()
def greedy_answers(model: Any, prompts: Sequence[tuple[str, list[int]]], ends: list[int]) -> list[GreedyAnswer]:
    """Answer each prompt with at most `TOKENS` tokens.

    Args:
        model: a causal language model (or PEFT model) in evaluation mode.
        prompts: (name, token ids).
        ends: token ids that end an answer.
    """
    answers = []
    for name, prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        with plainly(model):
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False,
                eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0, return_dict_in_generate=True,
                output_logits=True,
            )  # fmt: skip
        likely = [torch.log_softmax(logits[0].float(), -1).topk(LIKELIEST) for logits in output.logits]
        pairs = [list(zip(one.indices.tolist(), one.values.tolist(), strict=True)) for one in likely]
        answers.append(GreedyAnswer(name, prompt, output.sequences[0, len(prompt) :].tolist(), pairs))
    return answers


def parted(trained: dict[str, Any], ids: Sequence[int]) -> float | None:
    """Return by how much the trained model preferred its token where two answers part, in nats; None where they do not.

    Args:
        trained: a `GreedyAnswer` as values.
        ids: the other model's answer.
    """
    for at, likeliest in enumerate(trained["likeliest"]):
        other = ids[at] if at < len(ids) else None
        if other == trained["ids"][at]:
            continue
        known = dict(map(tuple, likeliest))
        least = likeliest[-1][1]  # it is none of the likeliest, so it is no likelier than the last of them
        return float(likeliest[0][1] - known.get(other, least))
    return None if len(ids) == len(trained["ids"]) else float("inf")
