"""Rows computed side by side by llama.cpp: what they begin with in common is read once, and what follows in one batch.

A product of large matrices takes less time than many of small ones. Each row is a sequence of its own, which sees the
common beginning and itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

import llama_cpp

from studio.alike import alike
from studio.export.proof.model import BATCH_TOKENS, GgufModel, Token

AT_ONCE = 32  # rows
# Tokens of rows read at a time: attention goes through those of all rows and leaves out what a row does not see, so
# that more of them cost what larger products save.
READ_TOKENS = 256
CELLS = 2048  # tokens kept at a time, unless one row has more

Row = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt and of what follows it


class Together:
    """A context of several sequences in a loaded file.

    Args:
        model: the file.
        prompts: of all rows, as token ids.
        most: tokens that follow a prompt at most.

    Raises:
        StudioError: there is no memory for it.
    """

    def __init__(self, model: GgufModel, prompts: Sequence[list[int]], most: int) -> None:
        self._model = model
        first, last = min(prompts), max(prompts)  # as words in a dictionary: all others begin as these two do
        # Each prompt keeps a token of its own, which is asked what follows.
        self._shared = max(0, min(alike(first, last), min(map(len, prompts)) - 1))
        longest = max(map(len, prompts)) - self._shared + most
        self._rows = max(1, min(AT_ONCE, len(prompts), CELLS // longest))
        self._stack = ExitStack()
        cells = self._shared + max(self._rows * longest, READ_TOKENS)
        self._context = self._stack.enter_context(model.beside(self._rows + 1, cells))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._stack.callback(llama_cpp.llama_batch_free, self._batch)
        self._ask([(0, at, token, False) for at, token in enumerate(first[: self._shared])])

    def __enter__(self) -> Together:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def chosen(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Yield for each row the tokens that are the likeliest at the places of its answer, read as it stands.

        Args:
            rows: prompts and answers, each of at least one token.
        """
        for group in self._groups(rows, READ_TOKENS):
            found = iter(self._read([([*prompt, *answer[:-1]], len(answer)) for prompt, answer in group]))
            for _, answer in group:
                yield [next(found) for _ in answer]

    def written(self, rows: Sequence[Row], most: int) -> Iterator[tuple[list[int], bool]]:
        """Yield for each row the answer that greedy decoding writes, without its end token, and whether it ended.

        Args:
            rows: prompts, and how their answers begin: at least one token, of which only the last may be an end.
            most: longest answer, tokens.
        """
        for group in self._groups(rows):
            answers = [list(begun) for _, begun in group]

            def going(at: int, answers: list[list[int]] = answers) -> bool:
                return len(answers[at]) < most and not self._model.is_end(answers[at][-1])

            following = self._read([([*prompt, *begun], 1) for prompt, begun in group])
            asked = list(range(len(group)))
            while left := [at for at in asked if going(at)]:
                for at, token in zip(asked, following, strict=True):
                    if at in left:
                        answers[at].append(token)
                asked = [at for at in left if going(at)]
                following = self._ask([
                    (at + 1, len(group[at][0]) + len(answers[at]) - 1, answers[at][-1], True) for at in asked
                ])  # fmt: skip
            for answer in answers:
                ended = self._model.is_end(answer[-1])
                yield answer[:-1] if ended else answer, ended

    def _groups(self, rows: Sequence[Row], tokens: int = 0) -> Iterator[list[Row]]:
        """Cut rows into groups that are computed at a time: of at most so many tokens, if that is not 0."""
        group: list[Row] = []
        filled = 0
        for prompt, answer in rows:
            own = len(prompt) - self._shared + len(answer)
            if group and (len(group) == self._rows or (tokens and filled + own > tokens)):
                yield group
                group, filled = [], 0
            group.append((prompt, answer))
            filled += own
        if group:
            yield group

    def _read(self, rows: Sequence[tuple[list[int], int]]) -> list[int]:
        """Read rows in place of those before; return what is the likeliest after the last places of each.

        Args:
            rows: token ids, and how many of the last places are asked.
        """
        for sequence in range(1, self._rows + 1):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        tokens: list[Token] = []
        for sequence, (ids, asked) in enumerate(rows, 1):
            if self._shared:
                llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
            places = range(self._shared, len(ids))
            tokens += [(sequence, place, ids[place], place >= len(ids) - asked) for place in places]
        return self._ask(tokens)

    def _ask(self, tokens: Sequence[Token]) -> list[int]:
        """Compute tokens; return what is the likeliest after each of those that are asked."""
        found: list[int] = []
        for begin in range(0, len(tokens), BATCH_TOKENS):
            values = self._model.decode_batch(self._context, self._batch, tokens[begin : begin + BATCH_TOKENS])
            found += [int(one.argmax()) for one in values]
        return found
