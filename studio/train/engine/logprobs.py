"""Log-probabilities of answers under a model's head, for the methods that compare them: dpo, kto, grpo, orpo, simpo.

On a CPU TRL's head computes every position, prompts and padding too, folds each tile of logits in some twenty passes,
and computes it once more for the gradient; ORPO and CPO keep all logits several times over. Here only positions whose
token counts are computed, a tile goes through memory three times, and the gradient of the states is made where the
logits are (as in `layers.HeadLoss`): it is the given one times p W - W[target], whatever that will be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer import utils

from studio.kernels.calls import KINDS, Kernels
from studio.models.plan.memory import FUSED_LOGITS as ROWS

_OPTIONAL = {"entropy": 2, "mean_logits": 3, "is_top1": 4}  # places in what `Kernels.likely` returns


class Likely(torch.autograd.Function):
    """TRL's ChunkedLogProbFunction for states (N, H) under a head (V, H) without a bias or a cap."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, factor: float,
        outputs: tuple[str, ...], kernels: Kernels,
    ) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
        """See `Kernels.likely`.

        Args:
            ctx: keeps the slopes.
            states: (N, H).
            head: (V, H).
            targets: (N), int64.
            factor: times which the logits count.
            outputs: what is wanted beside the log-probabilities, by TRL's names.
            kernels: the compiled functions.

        Returns:
            Log-probabilities, entropies, None, means of the logits, and whether the target is the most probable, (N).
        """
        ctx.set_materialize_grads(False)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else states.dtype
        narrow, matrix, targets = states.detach().to(dtype), head.detach().to(dtype), targets.contiguous()
        alone = ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]
        slopes = torch.empty_like(narrow) if alone else None
        known = torch.empty(len(states), 5, dtype=torch.float32)
        for at in range(0, len(targets), ROWS):
            part = slice(at, at + ROWS)
            logits = narrow[part] @ matrix.t()
            known[part] = kernels.likely(logits, targets[part], factor=factor, gradient=alone)
            if slopes is not None:
                torch.mm(logits, matrix, out=slopes[part])
            del logits  # before the next ones are made
        ctx.save_for_backward(states, head, targets, slopes, known)
        ctx.dtype, ctx.factor, ctx.kernels = dtype, factor, kernels
        found = {name: known[:, place].clone() for name, place in _OPTIONAL.items() if name in outputs}
        mean, best = found.get("mean_logits"), found.get("is_top1")
        best = None if best is None else best.bool()
        ctx.mark_non_differentiable(*(one for one in (mean, best) if one is not None))
        return known[:, 0].clone(), found.get("entropy"), None, mean, best

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor | None, entropy: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
        """The slopes that were made, times the given gradient; where the head is trained they are made here.

        Args:
            ctx: what was kept.
            given: gradient of the log-probabilities, (N); None where they are not used.
            entropy: of the entropies, likewise.
        """
        states, head, targets, slopes, known = ctx.saved_tensors
        if entropy is not None:  # an entropy that is trained: as TRL computes it
            theirs = SimpleNamespace(
                saved_tensors=(states, head, None, targets, known[:, 1], known[:, 2]), compute_dtype=ctx.dtype,
                chunk_size=utils._CHUNKED_LOGPROB_CHUNK_SIZE, needs_input_grad=(*ctx.needs_input_grad[:2], False),
                kernel_args={"logit_scale": ctx.factor, "softcap": 1.0, "inv_t": 1.0, "HAS_SOFTCAP": False},
            )  # fmt: skip
            return *ChunkedLogProbFunction.backward(theirs, given, entropy)[:2], None, None, None, None
        if given is None:
            return (None,) * 6
        if slopes is not None:
            return (slopes * -given[:, None]).to(states.dtype), *(None,) * 5
        narrow, matrix = states.to(ctx.dtype), head.to(ctx.dtype)
        pulled = torch.empty_like(narrow) if ctx.needs_input_grad[0] else None
        learned = torch.zeros(head.shape, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for at in range(0, len(targets), ROWS):
            part = slice(at, at + ROWS)
            logits = narrow[part] @ matrix.t()
            ctx.kernels.likely(logits, targets[part], factor=ctx.factor, gradient=True)
            logits *= -given[part, None].to(ctx.dtype)
            if pulled is not None:
                torch.mm(logits, matrix, out=pulled[part])
            if learned is not None:
                learned += logits.t() @ narrow[part]
            del logits
        return (
            None if pulled is None else pulled.to(states.dtype), None if learned is None else learned.to(head.dtype),
            None, None, None, None,
        )  # fmt: skip


@contextmanager
def _ours(kernels: Kernels) -> Iterator[None]:
    """While this lasts TRL's head gathers the positions that count, as it does on GPUs, and computes them here."""
    theirs, everywhere = utils._ChunkedLogProbFunction, utils._use_triton

    def apply(
        states: torch.Tensor, head: torch.Tensor, bias: Any, targets: torch.Tensor, temperature: float, chunk: int,
        cap: float | None, scale: float, outputs: tuple[str, ...],
    ) -> Any:  # fmt: skip
        if bias is not None or cap is not None or states.dtype not in KINDS or "log_sum_sq_probs" in outputs:
            return theirs.apply(states, head, bias, targets, temperature, chunk, cap, scale, outputs)
        return Likely.apply(states, head, targets, scale / temperature, outputs, kernels)

    utils._ChunkedLogProbFunction, utils._use_triton = SimpleNamespace(apply=apply), lambda device: True
    try:
        yield
    finally:
        utils._ChunkedLogProbFunction, utils._use_triton = theirs, everywhere


def has_head(model: Any) -> bool:
    """Whether TRL has given a model its head (`add_fused_lm_head`).

    Args:
        model: the causal language model itself, not what PEFT puts around it.
    """
    code = getattr(getattr(vars(model).get("forward"), "__func__", None), "__code__", None)
    return code is not None and "fused_lm_head" in code.co_varnames


def attach(model: Any, kernels: Kernels) -> Callable[[], None]:
    """Let a model that `has_head` compute it here; returns what undoes it.

    Args:
        model: the causal language model itself.
        kernels: the compiled functions.
    """
    original = model.forward

    @functools.wraps(original)
    def forward(*args: Any, **options: Any) -> Any:
        if not options.get("fused_lm_head"):
            return original(*args, **options)
        with _ours(kernels):
            return original(*args, **options)

    model.forward = forward

    def undo() -> None:
        model.forward = original

    return undo


def give_head(trainer: Any, model: Any) -> Callable[[], None] | None:
    """Let a trainer on TRL's ORPOTrainer or CPOTrainer take log-probabilities from the head that DPOTrainer has.

    TRL's make all logits and take from them what this computes at the tokens that count. Their report `logits/…` is the
    mean over these tokens then, as DPO's is, without prompts and padding.

    Args:
        trainer: of any method.
        model: its causal language model itself.

    Returns:
        What undoes it; None for other trainers, and where a model's own loss is added.
    """
    if not hasattr(trainer, "engine_forward") or trainer.is_encoder_decoder or trainer.aux_loss_enabled:
        return None
    before = vars(model).get("forward")
    utils.add_fused_lm_head(model, outputs=("log_probs", "mean_logits"))
    trainer.engine_forward = functools.partial(_concatenated, trainer)

    def undo() -> None:
        del trainer.engine_forward
        del model.forward
        if before is not None:
            model.forward = before

    return undo


def _concatenated(trainer: Any, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """What their `concatenated_forward` returns: log-probabilities, mean logits and the loss of the better answers."""
    padding = getattr(trainer, "padding_value", getattr(trainer, "pad_token_id", 0))
    joined = trainer.concatenated_inputs(
        batch, is_encoder_decoder=False, padding_value=padding, device=trainer.accelerator.device
    )
    good, answers, ids = len(batch["chosen_labels"]), joined["concatenated_labels"], joined["concatenated_input_ids"]
    odds = not hasattr(trainer, "cpo_alpha")
    labels = answers.clone()
    if odds:  # which learns the prompts of the better answers, too
        labels[:good] = torch.where(joined["concatenated_attention_mask"][:good] == 1, ids[:good], -100)
    output = model(
        ids, attention_mask=joined["concatenated_attention_mask"], use_cache=False, labels=labels, fused_lm_head=True
    )
    counted, learned = answers[:, 1:] != -100, labels[:good, 1:] != -100
    likely = (output.log_probs * counted).sum(-1)
    if odds or trainer.loss_type in ("ipo", "simpo"):
        likely = likely / counted.sum(-1)
    loss = likely.new_zeros(()) if not odds and trainer.cpo_alpha == 0 else -output.log_probs[:good][learned].mean()
    means = output.mean_logits[:good][counted[:good]], output.mean_logits[good:][counted[good:]]
    return likely[:good], likely[good:], *means, loss
