"""RMSNorm, rotary positions, gates of MLPs and the loss of the next token in one pass each, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from studio.kernels.calls import KINDS, Kernels
from studio.kernels.recognized import Layers
from studio.models.plan.memory import FUSED_LOGITS as ROWS


class Norm(torch.autograd.Function):
    """RMSNorm of x (…, size) with a weight (size)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: bool, kernels: Kernels
    ) -> torch.Tensor:
        """See `Kernels.norm`.

        Args:
            ctx: keeps what the gradient needs.
            x: (…, size).
            weight: (size).
            epsilon: added to the mean of squares.
            offset: the weights are what is added to 1.
            kernels: the compiled functions.
        """
        rows = x.reshape(-1, x.shape[-1])
        rows = rows if rows.is_contiguous() else rows.contiguous()
        out, scales = kernels.norm(rows, weight, epsilon, offset=offset)
        ctx.save_for_backward(rows, weight, scales)
        ctx.kernels, ctx.offset = kernels, offset
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> tuple[Any, ...]:
        """See `Kernels.norm_backward`."""
        rows, weight, scales = ctx.saved_tensors
        flat = given.reshape(rows.shape).contiguous()
        dx, slopes = ctx.kernels.norm_backward(
            rows, weight, scales, flat, offset=ctx.offset, trained=ctx.needs_input_grad[1]
        )
        return dx.view(given.shape), slopes, None, None, None


class Rotary(torch.autograd.Function):
    """Queries and keys (B, H, T, D) turned by cosines and sines (B or 1, T, D)."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, kernels: Kernels
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels.rotary`.

        Args:
            ctx: keeps what the gradient needs.
            q: (B, H, T, D).
            k: (B, heads of keys, T, D).
            cosine, sine: (B or 1, T, D).
            kernels: the compiled functions.
        """
        ctx.save_for_backward(cosine, sine)
        ctx.kernels = kernels
        return kernels.rotary(q, cosine, sine), kernels.rotary(k, cosine, sine)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[Any, ...]:
        """See `Kernels.rotary`."""
        cosine, sine = ctx.saved_tensors
        slopes = (one if one.stride(-1) == 1 else one.contiguous() for one in given)
        return *(ctx.kernels.rotary(one, cosine, sine, back=True) for one in slopes), None, None, None


class Gated(torch.autograd.Function):
    """act(gate) * up of (…, 2 x size)."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor, gelu: bool, kernels: Kernels) -> torch.Tensor:
        """See `Kernels.gated`.

        Args:
            ctx: keeps what the gradient needs.
            both: (…, 2 x size).
            gelu: the gate is GELU by tanh, not SiLU.
            kernels: the compiled functions.
        """
        rows = both.reshape(-1, both.shape[-1])
        rows = rows if rows.is_contiguous() else rows.contiguous()
        ctx.save_for_backward(rows)
        ctx.kernels, ctx.gelu = kernels, gelu
        return kernels.gated(*rows.chunk(2, 1), gelu=gelu).view(*both.shape[:-1], both.shape[-1] // 2)

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> tuple[Any, ...]:
        """See `Kernels.gated_backward`."""
        (rows,) = ctx.saved_tensors
        flat = given.reshape(rows.shape[0], -1).contiguous()
        slopes = ctx.kernels.gated_backward(rows, flat, gelu=ctx.gelu)
        return slopes.view(*given.shape[:-1], rows.shape[1]), None, None


class HeadLoss(torch.autograd.Function):
    """Sum of the losses of states (N, H) under a head (V, H), and how many tokens were the most probable.

    The gradients are made in the forward pass, where the logits are: they are computed once and never kept (as in
    Liger's fused linear cross-entropy, Hsu et al. 2024, arXiv:2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, targets: torch.Tensor, head: torch.Tensor, loss_name: str, kernels: Kernels
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels.cross_entropy`.

        Args:
            ctx: keeps the gradients.
            states: (N, H).
            targets: (N), int64.
            head: (V, H); its gradient has its own number format, and is not rounded to that of the states.
            loss_name: nll, or dft.
            kernels: the compiled functions.
        """
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        learned = torch.zeros(head.shape, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        wanted = slopes is not None or learned is not None
        total, hits = torch.zeros((), dtype=torch.float32), torch.zeros((), dtype=torch.long)
        by_probability, matrix = loss_name == "dft", head.to(states.dtype)
        for at in range(0, len(targets), ROWS):
            part, target = states[at : at + ROWS], targets[at : at + ROWS].contiguous()
            logits = part @ matrix.t()
            losses, best = kernels.cross_entropy(logits, target, by_probability=by_probability, gradient=wanted)
            total += (losses * torch.exp(-losses)).sum() if by_probability else losses.sum()
            hits += (best == target).sum()
            if slopes is not None:
                torch.mm(logits, matrix, out=slopes[at : at + ROWS])
            if learned is not None:
                learned += logits.t() @ part
            del logits  # before the next ones are made
        ctx.save_for_backward(slopes)
        ctx.learned, ctx.dtype = learned, head.dtype  # as large as the head: scaled in place, and given away
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor, _: Any) -> tuple[Any, ...]:
        """The gradients that were made, times the one that is given."""
        (slopes,) = ctx.saved_tensors
        made = None if slopes is None else slopes * given.to(slopes.dtype)
        learned, ctx.learned = ctx.learned, None
        return made, None, None if learned is None else learned.mul_(given).to(ctx.dtype), None, None


def one_pass(kernels: Kernels) -> Layers:
    """Norms and rotary positions, with gradients.

    Args:
        kernels: the compiled functions.
    """
    return Layers("cpu", lambda *given: Norm.apply(*given, kernels), lambda *given: Rotary.apply(*given, kernels))


def head_fits(head: nn.Module, states: torch.Tensor) -> bool:
    """Whether `HeadLoss` can compute it: a linear layer without a bias."""
    return type(head) is nn.Linear and head.bias is None and states.dtype in KINDS
