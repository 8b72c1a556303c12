"""Attention within segments, computed by the studio's own code in place of torch's.

Torch computes a packed row under a dense mask and a padded batch with its padding; its kernel for a CPU is slow
backwards, above all for short rows. Ours computes what each token sees and nothing else
(`studio/kernels/attention.h`), and is put into transformers' attention interface by name, so any model that asks there
has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from studio.kernels.calls import KINDS, Kernels, Segments

NAME = "studio_segments"
_SIZES = range(8, 257)  # of a head
_SOFT = ("attn_logit_softcapping", "attn_logit_soft_capping")
_asked: list[int] | None = None  # windows, while `_windows` listens


def put_into(model: Any, inner: Any, batch: dict[str, Any], kernels: Kernels) -> Callable[[], None] | None:
    """Let a model attend here, unless it attends in a way that is unknown here.

    A window that only the model's mask has (PhiMoE, Llama 4) cannot be told from the batch, which is shorter.

    Args:
        model: as it is trained.
        inner: the same without PEFT's wrapper.
        batch: inputs of the model.
        kernels: the compiled functions.

    Returns:
        what takes it back; None where the model attends itself.
    """
    config, before = inner.config.get_text_config(), inner.config._attn_implementation
    if any(getattr(config, name, None) for name in _SOFT) or not inner._can_set_attn_implementation():
        return None

    def undo() -> None:
        inner.set_attn_implementation(before)

    register(kernels)
    inner.set_attn_implementation(NAME)
    if _has_window(config):
        with _windows() as asked, torch.no_grad():
            model(**batch, use_cache=False)
        if not any(asked):
            undo()
            return None
    return undo


@contextmanager
def _windows() -> Iterator[list[int]]:
    """The windows that layers ask for meanwhile, one for each call; 0 for none."""
    global _asked
    _asked = []
    try:
        yield _asked
    finally:
        _asked = None


def _has_window(config: Any) -> bool:
    """Whether some layer sees only the last tokens, or those of its chunk, as far as a model's text config tells."""
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return any(word in kind for kind in layers for word in ("sliding", "chunked"))
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def register(kernels: Kernels) -> None:
    """Make the attention known to transformers under `NAME`."""

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        window = options.get("sliding_window") or 0
        if _asked is not None:
            _asked.append(window)
        batch, heads, length, size = query.shape
        dropout = options.get("dropout") or 0.0
        segments = None
        if key.shape[2] == length:
            segments = segments_of(batch, length, attention_mask, options.get("position_ids"))
            if segments is not None and segments.before:
                window = 0  # no row reaches its end
        fits = size in _SIZES and value.shape[-1] == size and query.dtype == key.dtype == value.dtype
        if segments is None or dropout or query.dtype not in KINDS or not fits:
            return _plain(query, key, value, attention_mask, segments, window, scale, dropout), None
        out = _Attention.apply(*map(_tokens, (query, key, value)), kernels, segments, window, scale)
        return out.view(batch, length, heads, size), None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, flash_attention_mask)


def segments_of(batch: int, length: int, mask: torch.Tensor | None, positions: torch.Tensor | None) -> Segments | None:
    """Find the sequences of a batch.

    Args:
        batch: rows, B.
        length: T.
        mask: (B, T), 0 for padding; None without any.
        positions: (B or 1, T); in one packed row each sequence begins at 0.

    Returns:
        None where a row's real tokens do not lie side by side.
    """
    about = positions if mask is None else mask
    known: Segments | None = getattr(about, "_studio_segments", None)
    if known is not None:
        return known  # every layer asks for the same batch
    if mask is not None:
        kept = mask.bool()
        counts, firsts = kept.sum(1).tolist(), kept.to(torch.uint8).argmax(1).tolist()
        lasts = (length - kept.flip(1).to(torch.uint8).argmax(1)).tolist()
        if any(count and last - first != count for count, first, last in zip(counts, firsts, lasts, strict=True)):
            return None
        found = Segments(tuple(row * length + first for row, first in enumerate(firsts)), tuple(counts))
    elif positions is not None and batch == 1:
        starts = (positions[0] == 0).nonzero()[:, 0].tolist()
        if not starts or starts[0]:
            starts = [0, *starts]
        found = Segments(tuple(starts), tuple(b - a for a, b in zip(starts, [*starts[1:], length], strict=True)))
    else:
        found = Segments(tuple(row * length for row in range(batch)), (length,) * batch)
    if about is not None:
        mark(about, found)
    return found


def mark(about: torch.Tensor, segments: Segments) -> None:
    """Note the sequences of a batch at its mask or positions, which every layer is given."""
    about._studio_segments = segments


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernels: Kernels, *rest: Any
    ) -> torch.Tensor:
        out, logsum = kernels.attention(q, k, v, *rest)
        ctx.save_for_backward(q, k, v, out, logsum)
        ctx.kernels, ctx.rest = kernels, rest
        return out

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, logsum = ctx.saved_tensors
        made = ctx.kernels.attention_backward((q, k, v), (out, logsum), given.contiguous(), *ctx.rest)
        return (*made, None, None, None, None)


def _tokens(heads: torch.Tensor) -> torch.Tensor:
    """(B, H, T, D) as (B x T, H, D), side by side in the last dimension."""
    flat = heads.transpose(1, 2).flatten(0, 1)
    # A small part of something large would keep all of it until the backward pass.
    part = flat.untyped_storage().nbytes() > 2 * flat.numel() * flat.element_size()
    return flat.contiguous() if part or flat.stride(-1) != 1 else flat


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, segments: Segments | None,
    window: int, scale: float, dropout: float,
) -> torch.Tensor:  # fmt: skip
    """Torch's attention, for what ours does not compute: a cache of keys while text is written, dropout."""
    length, keys = query.shape[2], key.shape[2]
    after = torch.arange(keys - length, keys)[:, None] - torch.arange(keys)[None]
    seen = (after >= 0) & (after < window) if window else after >= 0
    seen = seen[None, None]
    if mask is not None:
        seen = seen & mask[:, None, None, -keys:].bool()
        seen = seen | ~seen.any(-1, keepdim=True)  # padding that sees nothing would be no number
    elif segments is not None and len(segments.starts) > 1 == len(query):
        numbers = torch.repeat_interleave(torch.arange(len(segments.starts)), torch.tensor(segments.lengths))
        known = torch.eye(len(segments.starts), dtype=torch.bool)
        for at, before in enumerate(segments.before):
            if before >= 0:
                known[at] |= known[before]
        seen = seen & known[numbers][:, numbers]
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, dropout_p=dropout, scale=scale, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous()
