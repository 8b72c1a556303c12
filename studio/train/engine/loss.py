"""Cross-entropy whose logits exist only at supervised positions.

A model's own loss makes (B, T, V) logits for every token; in fine-tuning most tokens are context and padding.
Here the hidden states of supervised positions are gathered first, and projected in chunks. TRL does this on
Triton devices only; on a CPU it projects every position.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from studio.kernels.calls import Kernels
from studio.models.plan.memory import LOGIT_CHUNK as CHUNK
from studio.train.engine.layers import HeadLoss, head_fits

# Heads that do more than a matrix product. Their models keep the library's loss.
_SCALED_HEADS = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
    "output_router_logits",
)  # fmt: skip
_TRIED = 128  # tokens before and after the first that counts: the model's own loss makes logits of all of them
_AGREEMENT = 2e-2  # bf16 rounds a loss of about 3 to steps of 0.016; a wrong head is off by whole units


@dataclass
class SupervisedOutput:
    """What a forward pass with `supervised_loss=True` returns.

    Attributes:
        loss: sum of the losses of supervised tokens divided by `num_items` (or by their number).
        correct: how many supervised tokens the model would have chosen itself.
        count: number of supervised tokens.
    """

    loss: torch.Tensor
    correct: torch.Tensor
    count: torch.Tensor


def attach(model: nn.Module, kernels: Kernels | None = None) -> bool:
    """Let `model(..., labels=..., supervised_loss=True)` return a `SupervisedOutput`.

    Must happen before PEFT wraps the model. Without the flag the model is as it was.

    Args:
        model: a causal language model.
        kernels: the engine's compiled functions, where the run has them.

    Returns:
        False when the model's head is not a plain linear layer; then nothing is changed.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or any(getattr(config, name, None) for name in _SCALED_HEADS):
        return False
    original = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        *args: Any, supervised_loss: bool = False, num_items: Any = None, loss_name: str = "nll", **kwargs: Any
    ) -> Any:
        if not supervised_loss:
            return original(*args, **kwargs)
        labels = kwargs.pop("labels")
        hidden = model.base_model(*args, **kwargs).last_hidden_state
        return supervised_loss_of(hidden, model.get_output_embeddings(), labels, num_items, loss_name, kernels)

    model.forward = forward
    return True


def supervised_loss_of(
    hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor, num_items: Any, loss_name: str = "nll",
    kernels: Kernels | None = None,
) -> SupervisedOutput:  # fmt: skip
    """Loss of the next token at the positions whose label is not -100.

    Args:
        hidden: (B, T, H) last hidden states.
        head: output projection, weight (V, H).
        labels: (B, T), -100 where a token does not count; position t predicts label t + 1.
        num_items: supervised tokens of the whole update, over all its micro-batches; None for this batch's.
        loss_name: nll, or dft, which weights each token's loss by its probability (Wu et al. 2025, arXiv:2508.05629).
        kernels: compute it in one pass where they are given.
    """
    wanted = labels[:, 1:]
    mask = wanted != -100
    states, targets = hidden[:, :-1][mask], wanted[mask]
    total = hidden.sum() * 0.0  # keeps the graph when no token counts
    correct = torch.zeros((), dtype=torch.long, device=hidden.device)
    count = mask.sum()
    divisor = count if num_items is None else torch.as_tensor(num_items, device=hidden.device)
    if torch.is_autocast_enabled(states.device.type):
        states = states.to(torch.get_autocast_dtype(states.device.type))
    if kernels is not None and len(targets) and head_fits(head, states):
        summed, correct = HeadLoss.apply(states, targets, head.weight, loss_name, kernels)
        return SupervisedOutput((total + summed) / divisor.clamp(min=1), correct, count)
    pieces = list(zip(states.split(CHUNK), targets.split(CHUNK), strict=True)) if len(targets) else []
    for state, target in pieces:
        if len(pieces) > 1 and torch.is_grad_enabled():  # recompute a chunk's logits rather than keep them all
            part, hits = checkpoint(_chunk, state, target, head, loss_name, use_reentrant=False)
        else:
            part, hits = _chunk(state, target, head, loss_name)
        total, correct = total + part, correct + hits
    return SupervisedOutput(total / divisor.clamp(min=1), correct, count)


def _chunk(
    states: torch.Tensor, targets: torch.Tensor, head: nn.Linear, loss_name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(states).float()
    hits = (logits.argmax(-1) == targets).sum()
    if loss_name == "dft":
        losses = functional.cross_entropy(logits, targets, reduction="none")
        return (losses * torch.exp(-losses.detach())).sum(), hits
    return functional.cross_entropy(logits, targets, reduction="sum"), hits


@torch.no_grad()
def agrees(model: nn.Module, input_ids: list[int], labels: list[int]) -> bool:
    """True when the attached loss equals the model's own on one example, or on a part of a long one.

    A guard for architectures nobody here has seen: a head with a scale of its own would train wrongly in silence.

    Args:
        model: with our loss attached, on any device.
        input_ids: one unpadded example, (T).
        labels: (T); -100 where a token is not supervised.
    """
    device = next(model.parameters()).device
    first = next((place for place, label in enumerate(labels) if label != -100), 0)
    part = slice(max(0, first - _TRIED), first + _TRIED)
    batch = {
        "input_ids": torch.tensor([input_ids[part]], device=device),
        "labels": torch.tensor([labels[part]], device=device),
    }
    own = model(**batch).loss.float()
    ours = model(**batch, supervised_loss=True).loss.float()
    return bool((own - ours).abs() <= _AGREEMENT * own.abs().clamp(min=1.0))
