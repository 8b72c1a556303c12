"""Torch's tensors handed to the compiled code: each function here is one of `kernels.cpp`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

KINDS = {torch.float32: 0, torch.bfloat16: 1}
WIDTH = 16  # a row must fill whole vectors where nothing else is said
_LONGS = ctypes.c_int64


@dataclass(frozen=True)
class Segments:
    """The sequences of a batch, in tokens of the flattened batch (B x T).

    Attributes:
        starts, lengths: where each begins, and how long it is; no token is in two of them.
        before: the place of the segment that each continues, earlier in the list, or -1; empty where none does. It
            sees all tokens of that one, and what that one continues.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    before: tuple[int, ...] = ()

    def room(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """Room for what is computed of each token, (tokens, …), with zeros for those that no segment has."""
        whole = sum(self.lengths) == shape[0]
        return torch.empty(shape, dtype=dtype) if whole else torch.zeros(shape, dtype=dtype)

    def arrays(self) -> tuple[ctypes.Array[_LONGS], ctypes.Array[_LONGS], ctypes.Array[_LONGS], _LONGS]:
        """The C arrays of these, and how many there are."""
        count = len(self.starts)
        made = _LONGS * count
        return made(*self.starts), made(*self.lengths), made(*(self.before or (-1,) * count)), _LONGS(count)


class Kernels:
    """The compiled functions.

    Args:
        library: what `building.load` returned.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def attention(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments, window: int, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Causal attention within segments.

        Args:
            q: (tokens, heads, size), side by side in the last dimension.
            k, v: (tokens, heads of keys, size).
            segments: of the tokens; what lies outside of all gets zeros.
            window: how many tokens each sees, itself included; 0 for all before it.
            scale: of the products of queries and keys.

        Returns:
            (tokens, heads, size), and the logarithms of the sums of weights, (tokens, heads) in float32.
        """
        out, logsum = segments.room(q.shape, q.dtype), segments.room(q.shape[:2], torch.float32)
        self._library.attention(
            KINDS[q.dtype], *_heads(q, k, v, out), _at(logsum), *segments.arrays(), *_sizes(q, k, window, scale)
        )
        return out, logsum

    def attention_backward(
        self,
        inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        result: tuple[torch.Tensor, torch.Tensor],
        given: torch.Tensor,
        segments: Segments,
        window: int,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of q, k and v.

        Args:
            inputs: q, k, v as they were given.
            result: what `attention` returned.
            given: gradient of the output, (tokens, heads, size).
            segments: as before.
            window: as before.
            scale: as before.
        """
        q, k, v = inputs
        out, logsum = result
        made = tuple(segments.room(one.shape, one.dtype) for one in inputs)
        self._library.attention_backward(
            KINDS[q.dtype], *_heads(q, k, v, out, given, *made), _at(logsum), *segments.arrays(),
            *_sizes(q, k, window, scale),
        )  # fmt: skip
        return made

    def norm(
        self, x: torch.Tensor, weight: torch.Tensor, epsilon: float, *, offset: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """RMSNorm of (rows, size); also the factor of each row, in float32.

        Args:
            x: the rows.
            weight: (size).
            epsilon: added to the mean of squares.
            offset: the weights are what is added to 1.
        """
        out, scales = torch.empty_like(x), torch.empty(x.shape[0], dtype=torch.float32)
        self._library.norm(
            KINDS[x.dtype], _at(x), _at(weight), _at(out), _at(scales), *map(_LONGS, x.shape), ctypes.c_float(epsilon),
            int(offset),
        )  # fmt: skip
        return out, scales

    def norm_backward(
        self, x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, given: torch.Tensor, *,
        offset: bool = False, trained: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
        """Gradients of what was normed, (rows, size), and of the weights.

        Args:
            x, weight, offset: as they were given.
            scales: what `norm` returned.
            given: gradient of the output, (rows, size).
            trained: the gradient of the weights is wanted; None is returned for it else.
        """
        out = torch.empty_like(x)
        slopes = torch.zeros(weight.shape, dtype=torch.float32) if trained else None
        self._library.norm_backward(
            KINDS[x.dtype], _at(x), _at(weight), _at(scales), _at(given), _at(out),
            ctypes.c_void_p(0) if slopes is None else _at(slopes), *map(_LONGS, x.shape), int(offset),
        )  # fmt: skip
        return out, None if slopes is None else slopes.to(weight.dtype)

    def gated(self, gate: torch.Tensor, up: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """act(gate) * up, (rows, size).

        Args:
            gate, up: (rows, size), side by side in each row, and as far from one row to the next.
            gelu: the gate is GELU by tanh, not SiLU.
        """
        out = gate.new_empty(gate.shape)
        self._library.gated(
            KINDS[gate.dtype], _at(gate), _at(up), _LONGS(gate.stride(0)), _at(out), *map(_LONGS, out.shape), int(gelu)
        )
        return out

    def gated_backward(self, both: torch.Tensor, given: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """Gradient of gate and up, (rows, 2 x size).

        Args:
            both, gelu: as they were given.
            given: gradient of the output, (rows, size).
        """
        out = torch.empty_like(both)
        self._library.gated_backward(
            KINDS[both.dtype], _at(both), _at(given), _at(out), *map(_LONGS, given.shape), int(gelu)
        )
        return out

    def cross_entropy(
        self, logits: torch.Tensor, targets: torch.Tensor, *, by_probability: bool, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of each row of (rows, vocabulary), and its most probable token.

        Args:
            logits: become the gradient of the sum of losses where `gradient` is true.
            targets: (rows), int64.
            by_probability: the gradient of a row is weighted by the probability of its target, as in dft.
            gradient: whether it is wanted.
        """
        rows = logits.shape[0]
        losses, best = torch.empty(rows, dtype=torch.float32), torch.empty(rows, dtype=torch.long)
        self._library.cross_entropy(
            KINDS[logits.dtype], _at(logits), _at(targets), _at(losses), _at(best), *map(_LONGS, logits.shape),
            int(by_probability), int(gradient),
        )  # fmt: skip
        return losses, best

    def likely(self, logits: torch.Tensor, targets: torch.Tensor, *, factor: float, gradient: bool) -> torch.Tensor:
        """What is known of each row's next token, (rows, 5) in float32.

        That is the log-probability of its target, the logarithm of the sum of exponentials, the entropy, the mean of
        the logits, and 1 where the target is the first of the largest, else 0.

        Args:
            logits: (rows, vocabulary); become the slope of the negative log-probabilities where `gradient` is true.
            targets: (rows), int64.
            factor: times which the logits count.
            gradient: whether it is wanted.
        """
        known = torch.empty(logits.shape[0], 5, dtype=torch.float32)
        self._library.likely(
            KINDS[logits.dtype], _at(logits), _at(targets), _at(known), *map(_LONGS, logits.shape),
            ctypes.c_float(factor), int(gradient),
        )  # fmt: skip
        return known

    def has_low_rank(self, dtype: torch.dtype) -> bool:
        """Whether `low_rank` and `over_rows` take a number format on this CPU."""
        return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(self._library.multiplies_pairs()))

    def low_rank(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, *, add: bool) -> None:
        """Put the product of (rows, depth) and (depth, width) into `out`, or add it.

        Args:
            left: rows, side by side each; in a number format that `has_low_rank`, as the others.
            right: contiguous; its width, or its depth, is that of an adapter. Both are multiples of 16.
            out: (rows, width), side by side in each row.
            add: to what `out` has.
        """
        sizes = map(_LONGS, (*out.shape, left.shape[1]))
        self._library.low_rank(
            KINDS[out.dtype], _at(left), _LONGS(left.stride(0)), _at(right), _at(out), _LONGS(out.stride(0)), *sizes,
            int(add),
        )  # fmt: skip

    def over_rows(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """The product of the transpose of (rows, few) and of (rows, width), in float32: (few, width).

        Args:
            left: as many numbers in a row as an adapter has, side by side; in a number format that `has_low_rank`.
            right: side by side in each row; the width is a multiple of 16.
        """
        out = torch.zeros(left.shape[1], right.shape[1])
        sizes = map(_LONGS, (left.shape[1], *right.shape))
        self._library.over_rows(
            KINDS[right.dtype], _at(left), _LONGS(left.stride(0)), _at(right), _LONGS(right.stride(0)), _at(out), *sizes
        )
        return out

    def few_rows(
        self, left: torch.Tensor, right: torch.Tensor, adapter: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The product of (rows, depth) and of the transpose of (width, depth): (rows, width).

        Args:
            left, right: side by side in each row, in one number format.
            adapter: (rank, depth) and (width, rank), contiguous, whose product is added to `right`.
        """
        out = left.new_empty(left.shape[0], right.shape[0])
        nothing = ctypes.c_void_p(0)
        down, up = (nothing, nothing) if adapter is None else map(_at, adapter)
        self._library.few_rows(
            KINDS[left.dtype], _at(left), _LONGS(left.stride(0)), _at(right), _LONGS(right.stride(0)), down, up,
            _LONGS(0 if adapter is None else len(adapter[0])), _at(out), _LONGS(out.stride(0)),
            *map(_LONGS, (*out.shape, left.shape[1])),
        )  # fmt: skip
        return out

    def rotary(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, *, back: bool = False) -> torch.Tensor:
        """Rotary positions of (B, H, T, D): each number of a head's first half turned with its place in the second.

        Args:
            x: side by side in the last dimension.
            cosine, sine: (B or 1, T, D), side by side in the last dimension.
            back: the slope of `x` for that of what it became.
        """
        rows, heads, tokens, size = x.shape
        out = x.new_empty(rows, tokens, heads, size)
        steps = [x.stride(0), x.stride(2), x.stride(1)]
        steps += [step for one in (cosine, sine) for step in (one.stride(0) if len(one) > 1 else 0, one.stride(1))]
        self._library.rotary(
            KINDS[x.dtype], (ctypes.c_void_p * 4)(*(one.data_ptr() for one in (x, cosine, sine, out))),
            (_LONGS * len(steps))(*steps), *map(_LONGS, (rows, tokens, heads, size)), int(back),
        )  # fmt: skip
        return out.transpose(1, 2)

    def next_token(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        """Attention of one new token of each row to those that are kept: (B, 1, H, E).

        Args:
            q: (B, H, 1, D), side by side in the last dimension, as are the others.
            k: (B, heads of keys, T, D).
            v: (B, heads of keys, T, E).
            seen: which of the tokens a row sees, (B, T), bool; None for all.
            scale: of the products of queries and keys.
        """
        out = q.new_empty(len(q), 1, q.shape[1], v.shape[3])
        steps = [step for one in (q, k, v) for step in one.stride()[:3]]
        self._library.next_token(
            KINDS[q.dtype], (ctypes.c_void_p * 4)(*(one.data_ptr() for one in (q, k, v, out))),
            (_LONGS * len(steps))(*steps), ctypes.c_void_p(0) if seen is None else _at(seen),
            _LONGS(0 if seen is None else seen.stride(0)),
            *map(_LONGS, (len(q), q.shape[1], *k.shape[1:3], q.shape[3], v.shape[3])), ctypes.c_float(scale),
        )  # fmt: skip
        return out


def _at(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _heads(*tensors: torch.Tensor) -> tuple[ctypes.Array[ctypes.c_void_p], ctypes.Array[_LONGS]]:
    steps = [step for one in tensors for step in one.stride()[:2]]
    return (ctypes.c_void_p * len(tensors))(*(one.data_ptr() for one in tensors)), (_LONGS * len(steps))(*steps)


def _sizes(
    q: torch.Tensor, k: torch.Tensor, window: int, scale: float
) -> tuple[_LONGS, _LONGS, _LONGS, _LONGS, ctypes.c_float]:
    return _LONGS(q.shape[1]), _LONGS(k.shape[1]), _LONGS(q.shape[2]), _LONGS(window), ctypes.c_float(scale)
