"""Whether a model with the engine's layers gives what it gave with its own, on a small batch; and for two rows in one
what it gives for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from studio.kernels.recognized import AGREEMENT, distance

_LENGTHS = (72, 53)  # tokens of the two rows that are compared
_COMMON = 40  # of which they begin with so many in common
_FIRST = 4  # tokens of a row, in which a short convolution over the row before shows most
Collate = Callable[[list[dict[str, list[int]]]], dict[str, Any]]


def near(far: tuple[float, ...], autocast: bool) -> bool:
    """Whether outputs, and gradients if there is a second distance, are near enough; what is no number is not."""
    allowed = AGREEMENT[torch.bfloat16 if autocast else torch.float32]
    return all(one <= most for one, most in zip(far, allowed, strict=False))


def objection(replace: Callable[[], tuple[float, float]], autocast: bool) -> str:
    """Replace a model's layers; returns why they cannot stay so, "" if they can.

    Args:
        replace: returns how far outputs and gradients of the whole model moved.
        autocast: products are computed in bfloat16.
    """
    try:
        far = replace()
    except Exception as error:  # a model of anybody's code, on a batch of ours: it trains as it is
        return f"they could not be tried on this model: {type(error).__name__}: {str(error).strip():.200}"
    if near(far, autocast):
        return ""
    return f"its layers disagree with this model's (outputs by {far[0]:.1e}, gradients by {far[1]:.1e})"


def batch_of(model: Any) -> dict[str, torch.Tensor]:
    """Two rows of different length that begin alike, padded at the end with the token for it: by that a model with one
    score for a row finds the row's end.
    """
    embedding = model.get_input_embeddings().weight
    vocabulary = embedding.shape[0]
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (2, max(_LENGTHS)), generator=drawn)
    ids[1, :_COMMON] = ids[0, :_COMMON]
    mask = torch.arange(max(_LENGTHS))[None] < torch.tensor(_LENGTHS)[:, None]
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    if pad is not None and 0 <= pad < vocabulary:
        ids = torch.where(mask, torch.where(ids == pad, (pad + 1) % vocabulary, ids), pad)
    return {"input_ids": ids.to(embedding.device), "attention_mask": mask.long().to(embedding.device)}


def apart(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """How far outputs and gradients of `measured` are from each other."""
    return distance(one[0], other[0]), distance(one[1], other[1])


def measured(model: Any, batch: dict[str, torch.Tensor], decoder: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's outputs at real tokens, and the gradients of what is trained; leaves no gradient behind.

    Of a model with one score for a row the outputs are its decoder's states: two scores can both be small sums of
    large numbers, whose rounding in bfloat16 says nothing. Which token gives the score shows in the gradients.

    Args:
        model: as it is trained.
        batch: of `batch_of`.
        decoder: the part of the model that gives a state for each token; the model itself where it has no such part.
    """
    training, real = model.training, batch["attention_mask"].bool()
    model.eval()  # without dropout
    kept = [(parameter, parameter.grad) for parameter in model.parameters() if parameter.requires_grad]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        with torch.random.fork_rng([real.device] if real.is_cuda else []), torch.set_grad_enabled(bool(kept)):
            with _states(decoder) as states:
                logits = model(**batch, use_cache=False).logits.float()
            outputs = logits
            if logits.shape[:2] == real.shape:
                outputs = logits = logits[real]
            elif states and states[-1].shape[:2] == real.shape:
                outputs = states[-1].float()[real]
            torch.manual_seed(0)
            if kept:  # a reference model has nothing that is trained
                (logits * torch.randn_like(logits)).sum().backward()
        slopes = [
            (parameter.grad if parameter.grad is not None else parameter.new_zeros(())).flatten()
            for parameter, _ in kept
        ]
    finally:
        for parameter, grad in kept:
            parameter.grad = grad
        model.train(training)
    return outputs.detach(), torch.cat([slope.float() for slope in slopes]) if slopes else logits.new_zeros(0)


@contextmanager
def _states(decoder: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What a decoder gives meanwhile, (B, T, H) each time."""
    found: list[torch.Tensor] = []
    handle = decoder.register_forward_hook(lambda _module, _given, made: found.append(made[0]))
    try:
        yield found
    finally:
        handle.remove()


def mixed(model: Any, collate: Collate) -> float:
    """How far the outputs of a row behind another one are from those of the row alone; next to 0 where each is apart.

    Attention keeps examples in one row apart by their positions. What else mixes tokens, as convolutions and linear
    attention do, mostly goes on from one example into the next.

    Args:
        model: as it is trained.
        collate: makes inputs of the model from rows, which have "input_ids" and "labels": one row of all of them.

    Returns:
        the relative distance, of all the row's tokens or of its first, whichever is larger.
    """
    batch, training = batch_of(model), model.training
    kept = (ids[real.bool()].tolist() for ids, real in zip(*batch.values(), strict=True))
    rows = [{"input_ids": ids, "labels": ids} for ids in kept]
    model.eval()  # without dropout
    try:
        with torch.no_grad():
            together, alone = (
                model(**collate(part), use_cache=False).logits[0, -len(rows[1]["input_ids"]) :].float()
                for part in (rows, rows[1:])
            )
    finally:
        model.train(training)
    return max(distance(alone, together), distance(alone[:_FIRST], together[:_FIRST]))
