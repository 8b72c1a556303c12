"""A reward model as a reward: scores a prompt with an answer in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from studio.data.prepare.units import Prompt
from studio.errors import InputError
from studio.models.inspect.adapters import adapter_config
from studio.train.load.pretrained import load_adapter, load_whole
from studio.train.setup import Setup

BATCH = 16
Score = Callable[[Sequence[Prompt], Sequence[str]], list[float]]


def load_scorer(folder: Path, base: Path, dtype: torch.dtype) -> Any:
    """Load a reward model: a whole checkpoint, or an adapter with its head over `base`.

    Args:
        folder: of the reward model.
        base: of the model being trained; read only where `folder` holds an adapter.
        dtype: of the loaded weights.
    """
    kind = AutoModelForSequenceClassification
    if adapter_config(folder) is None:
        model: Any = load_whole(kind, folder, "method.reward_model", dtype=dtype)
    else:
        plain = load_whole(kind, base, "model.path", new_head=True, num_labels=1, dtype=dtype)
        model = load_adapter(plain, folder, "method.reward_model")
    model.eval().requires_grad_(False)
    return model.to("cuda") if torch.cuda.is_available() else model


def model_scorer(setup: Setup) -> Score:
    """Return the scorer of `method.reward_model`.

    Raises:
        InputError: the run names none.
    """
    if setup.scorer is None:
        raise InputError("there is no reward model", where="method.reward_model", fix="Give the run that trained it")
    model = load_scorer(setup.scorer, setup.base, setup.model.dtype)
    model.config.get_text_config().pad_token_id = pad_id(setup.tokenizer)
    return scoring_by(model, setup.tokenizer)


def scoring_by(model: Any, tokenizer: Any) -> Score:
    """Return the scorer of prompts with answers that asks `model`."""
    pad = pad_id(tokenizer)

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        ids = [row.prompt_ids + answer_ids(tokenizer, said) for row, said in zip(prompts, answers, strict=True)]
        scores: list[float] = score_ids(model, ids, pad)
        return scores

    return score


@torch.no_grad()
def score_ids(model: Any, sequences: Sequence[Sequence[int]], pad: int) -> list[float]:
    """Score token sequences (prompt with answer), some at a time, padded at the right.

    Args:
        model: with a head of one label.
        sequences: token ids, unpadded, of any lengths.
        pad: id of the padding token; the attention mask hides it.
    """
    device = next(model.parameters()).device
    scores: list[float] = []
    for at in range(0, len(sequences), BATCH):
        batch = sequences[at : at + BATCH]
        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), pad, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(batch):
            ids[i, : len(sequence)] = torch.tensor(sequence, device=device)
            mask[i, : len(sequence)] = 1
        given: list[float] = model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
        scores += given
    return scores


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """An answer as the reward model saw answers in training: with the token that ends it."""
    end = tokenizer.eos_token_id
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], *([] if end is None else [end])]


def pad_id(tokenizer: Any) -> int:
    """The id that fills up sequences; masks keep it from counting."""
    return int((tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id) or 0)
