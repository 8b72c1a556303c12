"""A padded batch computed as one row of its real tokens.

Whatever a trainer asks of its model, its decoder sees only what counts: padding costs neither time nor memory in any
layer. Its states are put back where the batch has them, zeros where there is padding. Attention keeps the rows apart
(`engine.attention`), and every token keeps the position that it has in the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from studio.train.engine.attention import NAME, mark, segments_of
from studio.train.engine.native.calls import Segments

_KNOWN = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "use_cache", "return_dict", "past_key_values"}


def attach(decoder: nn.Module) -> Callable[[], None]:
    """Let a decoder compute padded batches without their padding; returns what undoes it.

    Args:
        decoder: a model of transformers without its head, whose attention is the engine's.
    """
    original: Callable[..., Any] = decoder.forward

    @functools.wraps(original)
    def forward(*args: Any, **options: Any) -> Any:
        given = {name: value for name, value in options.items() if value is not None}
        mask = given.get("attention_mask")
        if args or not isinstance(mask, torch.Tensor) or not _whole_rows(decoder, given):
            return original(*args, **options)
        batch, length = mask.shape
        segments = segments_of(batch, length, mask, None)
        if segments is None or sum(segments.lengths) == mask.numel():
            return original(**options)
        real = mask.flatten().nonzero()[:, 0]
        flat = {name: given[name].flatten(0, 1)[real][None] for name in ("input_ids", "inputs_embeds") if name in given}
        positions = given.get("position_ids", torch.arange(length, device=mask.device)[None]).expand(batch, length)
        positions = positions.flatten()[real][None]
        mark(positions, joined(segments))
        done = original(**flat, position_ids=positions, attention_mask=None, use_cache=False)
        states = done.last_hidden_state[0]
        spread = states.new_zeros(batch * length, states.shape[-1]).index_put((real,), states)
        done.last_hidden_state = spread.view(batch, length, -1)
        return done

    decoder.forward = forward

    def undo() -> None:
        del decoder.forward

    return undo


def joined(segments: Segments) -> Segments:
    """The segments of a batch one behind the other."""
    starts, total = [], 0
    for length in segments.lengths:
        starts.append(total)
        total += length
    return Segments(tuple(starts), segments.lengths)


def _whole_rows(decoder: Any, given: dict[str, Any]) -> bool:
    """Whether these are whole rows that nothing is kept of, and nothing is asked for but the last states."""
    if not given.keys() <= _KNOWN or "past_key_values" in given or given["attention_mask"].ndim != 2:
        return False
    if given.get("return_dict") is False or ("input_ids" in given) == ("inputs_embeds" in given):
        return False
    positions = given.get("position_ids")
    if positions is not None and positions.ndim != 2:
        return False
    config = decoder.config
    if config._attn_implementation != NAME:  # text is being written, by torch's attention
        return False
    if any(getattr(config, name, False) for name in ("output_hidden_states", "output_attentions")):
        return False
    kept = given.get("use_cache")
    return not kept if kept is not None else decoder.training or not getattr(config, "use_cache", True)
