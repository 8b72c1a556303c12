"""A padded batch computed as one row of its real tokens.

Whatever a trainer asks of its model, its decoder sees only what counts: padding costs neither time nor memory in any
layer, and prefixes that rows share are computed once (`engine.prefixes`). The states are put back where the batch has
them, zeros where there is padding. Attention keeps the rows apart (`engine.attention`), and every token keeps
the position that it has in the batch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from studio.kernels.calls import Segments
from studio.train.engine.attention import NAME, mark, segments_of
from studio.train.engine.prefixes import Prefixes, prefixes
from studio.writing.quick import drops

_INPUTS = ("input_ids", "inputs_embeds")
_KNOWN = {*_INPUTS, "attention_mask", "position_ids", "use_cache", "return_dict", "past_key_values"}


class Unpadded:
    """A decoder that computes padded batches without their padding, from now on.

    Args:
        decoder: a model of transformers without its head, whose attention is the engine's.
        shares: compute prefixes that rows share once.

    Attributes:
        used: whether it has done so for a batch. A head may call its decoder in a way that is not known here.
        shared: whether rows of a batch shared a prefix that was computed once.
    """

    def __init__(self, decoder: nn.Module, *, shares: bool) -> None:
        self.used = self.shared = False
        self._decoder, self._shares = decoder, shares
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
        if segments is None:
            return None
        real = mask.flatten().nonzero()[:, 0]
        positions = given.get("position_ids", torch.arange(length, device=mask.device)[None]).expand(batch, length)
        positions = positions.flatten()[real]
        shared = self._prefixes(given, real, positions, segments)
        segments, taken = (joined(segments), real) if shared is None else (shared.segments, real[shared.taken])
        if len(taken) == mask.numel():
            return None
        flat = {name: given[name].flatten(0, 1)[taken][None] for name in _INPUTS if name in given}
        positions = (positions if shared is None else positions[shared.taken])[None]
        mark(positions, segments)
        done = original(**flat, position_ids=positions, attention_mask=None, use_cache=False)
        states = done.last_hidden_state[0]
        states = states if shared is None else states.index_select(0, shared.places)
        spread = states.new_zeros(batch * length, states.shape[-1]).index_put((real,), states)
        done.last_hidden_state = spread.view(batch, length, -1)
        self.used, self.shared = True, self.shared or shared is not None
        return done

    def _prefixes(
        self, given: dict[str, Any], real: torch.Tensor, positions: torch.Tensor, segments: Segments
    ) -> Prefixes | None:
        """The prefixes that the rows of a batch share; None where there are none, or each row is to be computed.

        Args:
            given: the batch, (B, T).
            real: places of its real tokens, (R,) of B x T.
            positions: of these, (R,).
            segments: the rows.
        """
        ids = given.get("input_ids")
        if not self._shares or ids is None or not _equal_states(self._decoder, ids.shape[1]):
            return None
        numbers = ids.flatten()[real] * (int(positions.max()) + 1) + positions
        found = prefixes([row.tolist() for row in numbers.split(segments.lengths)])
        return found if len(found.taken) < len(real) else None


def joined(segments: Segments) -> Segments:
    """The segments of a batch one behind the other."""
    return Segments(tuple(accumulate(segments.lengths, initial=0))[:-1], segments.lengths)


def _equal_states(decoder: Any, length: int) -> bool:
    """Whether tokens that stand behind the same ones have the same states, in rows of at most so many tokens.

    Not where each row has numbers dropped at random for itself, nor where a window ends within a row: the kernel
    counts what a token sees from the beginning of its segment.
    """
    window = getattr(decoder.config.get_text_config(), "sliding_window", None)
    return (window is None or length <= window) and not drops(decoder)


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
    # Noise on embeddings (NEFTune) is the smaller the longer a row is.
    if decoder.training and getattr(decoder.get_input_embeddings(), "neftune_noise_alpha", None):
        return False
    if any(getattr(config, name, False) for name in ("output_hidden_states", "output_attentions")):
        return False
    kept = given.get("use_cache")
    return not kept if kept is not None else decoder.training or not getattr(config, "use_cache", True)
