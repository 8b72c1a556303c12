"""A padded batch computed as one row of its real tokens.

Whatever a trainer asks of its model, its decoder sees only what counts: padding costs neither time nor memory in any
layer. Its states are put back where the batch has them, zeros where there is padding. Attention keeps the rows apart
(`engine.attention`), and every token keeps the position that it has in the batch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from studio.kernels.calls import Segments
from studio.train.engine.attention import NAME, mark, segments_of

_KNOWN = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "use_cache", "return_dict", "past_key_values"}


class Unpadded:
    """A decoder that computes padded batches without their padding, from now on.

    Args:
        decoder: a model of transformers without its head, whose attention is the engine's.

    Attributes:
        used: whether it has done so for a batch. A head may call its decoder in a way that is not known here.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self.used = False
        self._decoder = decoder
        original: Callable[..., Any] = decoder.forward
        first = next(iter(inspect.signature(original).parameters))

        @functools.wraps(original)
        def forward(*args: Any, **options: Any) -> Any:
            given = {name: value for name, value in options.items() if value is not None}
            if len(args) == 1 and first == "input_ids" and first not in given and args[0] is not None:
                given[first] = args[0]  # a model with one score for a row names everything but this
            elif args and args != (None,):
                return original(*args, **options)
            made = self._without(original, given)
            return original(*args, **options) if made is None else made

        decoder.forward = forward

    def undo(self) -> None:
        """Let the decoder compute padding again."""
        del self._decoder.forward

    def _without(self, original: Callable[..., Any], given: dict[str, Any]) -> Any:
        """What `original` returns for this batch, made without padding; None where it cannot be, or has none."""
        mask = given.get("attention_mask")
        if not isinstance(mask, torch.Tensor) or not _whole_rows(self._decoder, given):
            return None
        batch, length = mask.shape
        segments = segments_of(batch, length, mask, None)
        if segments is None or sum(segments.lengths) == mask.numel():
            return None
        real = mask.flatten().nonzero()[:, 0]
        flat = {name: given[name].flatten(0, 1)[real][None] for name in ("input_ids", "inputs_embeds") if name in given}
        positions = given.get("position_ids", torch.arange(length, device=mask.device)[None]).expand(batch, length)
        positions = positions.flatten()[real][None]
        mark(positions, joined(segments))
        done = original(**flat, position_ids=positions, attention_mask=None, use_cache=False)
        states = done.last_hidden_state[0]
        spread = states.new_zeros(batch * length, states.shape[-1]).index_put((real,), states)
        done.last_hidden_state = spread.view(batch, length, -1)
        self.used = True
        return done


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
