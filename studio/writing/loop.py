"""One token after the other for a batch of prompts, as transformers' loop, with less around each.

- Equal prompts are read once (GRPO asks for several answers to each), and so is a beginning that all share.
- Keys and values have their memory once (`kept`), and rows that have ended leave the batch.
- An answer that is expected is read in one step, and not written if it is the model's own (`drafts`).
- Settings are transformers' own: its processors change the scores. Random numbers are drawn for all rows in each step,
  also for those that have left, so the same seed draws the same tokens as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional
from transformers import Cache, LogitsProcessor
from transformers.generation import logits_process as processors

from studio.alike import alike
from studio.writing.drafts import as_drafted
from studio.writing.kept import Room, rooms

READ_TOKENS = 2048  # of prompts read in one step: more bring no speed, and take memory
SHARED_TOKENS = 128  # a beginning is read by itself where at least so many tokens need not be read again
STAYING = 7 / 8  # rows that have ended leave when at most this share goes on: their keys and values are copied then
_ROUNDING = 1 + 1e-5  # more than float32 rounds in two steps
HALF_ROWS = 32  # from twice as many on, two halves are written side by side
_BY_ROW = (
    processors.TemperatureLogitsWarper, processors.TopKLogitsWarper, processors.TopPLogitsWarper,
    processors.MinPLogitsWarper, processors.MinLengthLogitsProcessor, processors.MinNewTokensLengthLogitsProcessor,
    processors.SuppressTokensLogitsProcessor,
)  # fmt: skip


@dataclass
class Places:
    """Which rows of a batch these are, where several processes write it, each some of its rows.

    Random numbers are drawn for all rows, so that every row has the same tokens whoever writes it. A process that is
    done early has drawn fewer than others, and goes on to where they are.

    Attributes:
        rows: their places among all, (R,).
        count: all rows.
        generator: of the numbers, in the same state in all processes.
        steps, width: how often numbers were drawn, and how many for each row.
    """

    rows: torch.Tensor
    count: int
    generator: torch.Generator
    steps: int = 0
    width: int = 0

    def draw(self, likely: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`draw` for these of the rows, (R,), with probabilities (R, V)."""
        self.steps, self.width = self.steps + 1, likely.shape[1]
        return draw(likely, self.rows[rows], self.count, self.generator)

    def catch_up(self, steps: int, width: int) -> None:
        """Draw, and forget, until numbers were drawn so many times for each row."""
        for _ in range(steps - self.steps):
            torch.empty(self.count, width, dtype=torch.float64).uniform_(generator=self.generator)
        self.steps, self.width = max(steps, self.steps), width


class Drawn(LogitsProcessor):  # type: ignore[misc]
    """Draws the tokens in place of transformers' own loop, and leaves it one choice for each row.

    Args:
        places: which rows they are.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) that are 0 at the tokens that were drawn."""
        chosen = self._places.draw(torch.softmax(scores.float(), -1), torch.arange(len(scores)))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


@dataclass(frozen=True)
class Writing:
    """How a batch is continued.

    Attributes:
        model: the causal language model, which keeps keys and values of each layer.
        layers: how many it has.
        longest: tokens of prompt and answer, where an answer is cut.
        ends: ids of the tokens that end an answer, (E,); None if none does.
        pad: id that fills an answer that has ended.
        sample: draw tokens; else the likeliest.
        processors: transformers', which change the scores (B, V) of each step.
        places: of the rows among those that other processes write; None where these are all.
        drafts: what is expected of each row, B lists of token ids; empty for none. They change the time only.
        on_end: called with the number of rows that have ended since the last call, by any thread.
    """

    model: Any
    layers: int
    longest: int
    ends: torch.Tensor | None
    pad: int
    sample: bool
    processors: Sequence[Any]
    places: Places | None = None
    drafts: Sequence[Sequence[int]] = ()
    on_end: Callable[[int], None] = lambda count: None

    @property
    def by_row(self) -> bool:
        """Whether each row is looked at by itself, so that rows can leave."""
        return all(isinstance(one, _BY_ROW) for one in self.processors)


def write(how: Writing, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return prompts and answers, (B, P + A), answers padded on the right.

    Many rows are written as two halves, each by half of the cores: what one thread computes alone (Python itself, and
    what torch does not share among threads) is a fifth of the time on two cores.

    Args:
        how: see `Writing`.
        ids: prompts padded on the left, (B, P).
        mask: (B, P), 0 for padding.
    """
    threads = torch.get_num_threads()
    if how.sample or not how.by_row or threads < 2 or len(ids) < 2 * HALF_ROWS:
        return _write(how, ids, mask)
    cast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def half(first: int) -> torch.Tensor:
        torch.set_num_threads(threads // 2)  # of this thread and those that work for it
        with torch.autocast("cpu", enabled=cast[0], dtype=cast[1]):
            return _write(replace(how, drafts=how.drafts[first::2]), ids[first::2], mask[first::2])

    try:
        with ThreadPoolExecutor(2) as pool:
            halves = list(pool.map(half, range(2)))
    finally:
        torch.set_num_threads(threads)
    written = ids.new_full((len(ids), max(one.shape[1] for one in halves)), how.pad)
    for first, one in enumerate(halves):
        written[first::2, : one.shape[1]] = one
    return written


def _write(how: Writing, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return _continued(how, ids, mask)


def _continued(how: Writing, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count, width = ids.shape
    written = ids.new_full((count, how.longest), how.pad)
    written[:, :width] = ids
    scores, cache, seen = _read(how, ids, mask)
    lengths = mask.sum(1)
    rows = torch.arange(count)
    at = longest = width
    if how.drafts and how.ends is not None and not how.sample and not how.processors:
        expected = as_drafted(how.model, how.drafts, scores, cache, seen, lengths, how.ends, how.longest - width)
        for row in expected:
            longest = max(longest, width + len(how.drafts[row]))
            written[row, width : width + len(how.drafts[row])] = torch.tensor(how.drafts[row])
        how.on_end(len(expected))
        if len(expected) == count:
            return written[:, :longest].clone()
        if expected:
            rows = torch.tensor(sorted(set(range(count)).difference(expected)))
            scores, lengths = scores[rows], lengths[rows]
            for layer in cache.layers:
                layer.choose(rows)
    seen = functional.pad(seen, (0, how.longest - width), value=True)
    padded = not bool(seen.all())
    going = torch.ones(len(rows), dtype=torch.bool)  # of the rows that are still in the batch
    left = len(rows)
    while True:
        chosen = _choose(how, written[rows, :at] if len(rows) < count else written[:, :at], scores, rows, count)
        chosen = torch.where(going, chosen, how.pad)
        written[rows, at] = chosen
        at += 1
        if how.ends is not None:
            going = going & ~torch.isin(chosen, how.ends)
        before, left = left, int(going.sum()) if at < how.longest else 0
        how.on_end(before - left)
        if not left:
            return written[:, : max(at, longest)].clone()
        if how.by_row and left <= STAYING * len(rows):
            staying = going.nonzero()[:, 0]
            rows, going, chosen, lengths = rows[staying], going[staying], chosen[staying], lengths[staying]
            for layer in cache.layers:
                layer.choose(staying)
        output = how.model(
            input_ids=chosen[:, None], position_ids=lengths[:, None], past_key_values=cache, use_cache=True,
            attention_mask=seen[rows, :at] if padded else None, logits_to_keep=1, return_dict=True,
        )  # fmt: skip
        scores = output.logits[:, -1]
        lengths = lengths + 1


def _choose(how: Writing, ids: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """Choose the next token of each row, (R,).

    Args:
        how: see `Writing`.
        ids: of the rows so far, (R, T).
        logits: of the rows, (R, V).
        rows: their places among all, (R,).
        count: all rows.
    """
    if not how.sample and not how.processors:
        return logits.argmax(-1)
    scores = logits.to(torch.float32, copy=True)
    for processor in how.processors:
        scores = processor(ids, scores)
    if not how.sample:
        return scores.argmax(-1)
    likely = torch.softmax(scores, -1)
    return draw(likely, rows, count) if how.places is None else how.places.draw(likely, rows)


def draw(
    likely: torch.Tensor, rows: torch.Tensor, count: int, generator: torch.Generator | None = None
) -> torch.Tensor:  # fmt: skip
    """Draw a token for each row, (R,), as `torch.multinomial` draws for all rows, in a third of its time.

    It takes the largest of p / q with q = -log(1 - u) and uniform u. Since q > u, the logarithm, which takes most of
    its time, is needed only of those tokens whose p / u is large.

    Args:
        likely: probabilities, (R, V).
        rows: their places among all, (R,).
        count: all rows: numbers are drawn for each of them.
        generator: of the numbers; None for torch's own.
    """
    if not bool(likely.sum().isfinite()):
        return torch.multinomial(likely, 1)[:, 0]  # which says what is wrong
    uniform = torch.empty(count, likely.shape[1], dtype=torch.float64).uniform_(generator=generator)
    uniform = uniform if len(rows) == count else uniform[rows]
    most = likely / uniform.float()
    first = torch.arange(len(rows)), most.argmax(-1)
    near = (most * _ROUNDING >= _exactly(likely, uniform, first)[:, None]).nonzero(as_tuple=True)
    return torch.zeros_like(likely).index_put_(near, _exactly(likely, uniform, near)).argmax(-1)


def _exactly(likely: torch.Tensor, uniform: torch.Tensor, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return likely[at] / (-torch.log1p(-uniform[at])).float()


def _read(how: Writing, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Cache, torch.Tensor]:
    """Read the prompts: the logits (B, V) that follow them, what was kept, and which of it is theirs, (B, P)."""
    width = ids.shape[1]
    lengths = mask.sum(1).tolist()
    prompts = [tuple(row[width - length :]) for row, length in zip(ids.tolist(), lengths, strict=True)]
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    different = sorted(rows, key=len)
    shared = _shared(different)
    beginning = rooms(how.layers, shared)
    if shared:
        _step(how, torch.tensor([different[0][:shared]]), torch.ones(1, shared, dtype=torch.long), beginning)
    caches: list[Cache] = []
    targets: list[tuple[torch.Tensor, torch.Tensor]] = []
    scores = seen = None
    for part in _parts(different, shared):
        longest = len(part[-1])
        cache = rooms(how.layers, longest)
        if shared:
            for layer, first in zip(cache.layers, beginning.layers, strict=True):
                layer.update(first.keys.expand(len(part), -1, -1, -1), first.values.expand(len(part), -1, -1, -1))
        some = torch.full((len(part), longest - shared), how.pad)
        theirs = torch.ones(len(part), longest, dtype=torch.long)
        for place, prompt in enumerate(part):
            some[place, longest - len(prompt) :] = torch.tensor(prompt[shared:])
            theirs[place, shared : shared + longest - len(prompt)] = 0
        logits = _step(how, some, theirs, cache)
        to = torch.tensor([row for prompt in part for row in rows[prompt]])
        own = torch.tensor([place for place, prompt in enumerate(part) for _ in rows[prompt]])
        if scores is None or seen is None:
            scores = logits.new_empty(len(ids), logits.shape[1])
            seen = torch.zeros(len(ids), width, dtype=torch.bool)
        scores[to] = logits[own]
        seen[to, width - longest :] = theirs[own].bool()
        caches.append(cache)
        targets.append((to, own))
    assert scores is not None and seen is not None
    joined: list[Room] = []
    for at in range(how.layers):
        joined.append(Room.joined([cache.layers[at] for cache in caches], targets, width, how.longest))
        for cache in caches:
            cache.layers[at] = None  # its memory is free while the next layer is joined
    return scores, Cache(layers=joined), seen


def _step(how: Writing, ids: torch.Tensor, theirs: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Read tokens (B, T), behind what the cache holds; return the logits (B, V) that follow them.

    Args:
        how: see `Writing`.
        ids: of the tokens.
        theirs: (B, all tokens), 0 for padding.
        cache: it grows.
    """
    positions = (theirs.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    mask = None if bool(theirs.all()) else theirs
    output = how.model(
        input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True,
        logits_to_keep=1, return_dict=True,
    )  # fmt: skip
    logits: torch.Tensor = output.logits[:, -1]
    return logits


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens at the beginning of all prompts are worth being read by themselves."""
    first, last = min(prompts), max(prompts)  # in the order of the alphabet: all others begin as these two do
    same = min(alike(first, last), min(map(len, prompts)) - 1)
    return same if same * (len(prompts) - 1) >= SHARED_TOKENS else 0


def _parts(prompts: Sequence[tuple[int, ...]], shared: int) -> Iterator[list[tuple[int, ...]]]:
    """Cut prompts, sorted by length, into parts that are read at once."""
    part: list[tuple[int, ...]] = []
    for prompt in prompts:
        if part and (len(part) + 1) * (len(prompt) - shared) > READ_TOKENS:
            yield part
            part = []
        part.append(prompt)
    yield part
