"""What an evaluation measures: exact match where an answer is expected, preference where answers are compared.

A measure asks one model at a time (`ask`), and tells then what both answered (`report`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from studio.config.data import DataConfig
from studio.config.jobs import COMPARED
from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.evaluate.answers import Answer, answer_all
from studio.evaluate.questions import Question, questions_of
from studio.evaluate.ratings import Judged, accuracy, judged, likelihoods
from studio.methods import RowKind

Told = TypeVar("Told")
SPARE_TOKENS = 16


class Measure(ABC, Generic[Told]):
    """Something that can be asked of a model and compared.

    Attributes:
        name: as the report has it.
        count, unit: how much is asked, for progress.
    """

    name: str
    unit: str
    count: int

    @abstractmethod
    def ask(self, model: Any, on_done: Callable[[int], None]) -> list[Told]:
        """Ask a model about every row.

        Args:
            model: in evaluation mode.
            on_done: called with the number of those that are done.
        """

    @abstractmethod
    def report(self, before: list[Told], after: list[Told]) -> dict[str, Any]:
        """Return `before` and `after` with their score, and `rows`.

        Args:
            before: what `ask` returned for the base model.
            after: for the trained model.
        """


class ExactMatch(Measure[Answer]):
    """How many answers are exactly those expected."""

    name, unit = "exact_match", "rows"

    def __init__(self, questions: list[Question], tokenizer: Any, max_new_tokens: int) -> None:
        self.count = len(questions)
        self._questions, self._tokenizer, self._max_new_tokens = questions, tokenizer, max_new_tokens

    def ask(self, model: Any, on_done: Callable[[int], None]) -> list[Answer]:
        """Answer every question greedily."""
        return answer_all(model, self._tokenizer, self._questions, self._max_new_tokens, on_done)

    def report(self, before: list[Answer], after: list[Answer]) -> dict[str, Any]:
        """Count the right answers, and show all."""
        rows = [
            {
                "row": question.row, "prompt": question.prompt, "expected": question.expected,
                "before": base.text, "after": tuned.text, "before_ok": base.right, "after_ok": tuned.right,
            }
            for question, base, tuned in zip(self._questions, before, after, strict=True)
        ]  # fmt: skip
        return {"before": self._score(before), "after": self._score(after), "rows": rows}

    def _score(self, answers: list[Answer]) -> dict[str, Any]:
        right = sum(answer.right for answer in answers)
        return {"exact_match": round(right / self.count, 4), "correct": right, "total": self.count}


class Preference(Measure[float]):
    """How often a good answer is likelier than the bad ones it is compared with, and what the training moved."""

    name, unit = "preference", "answers"

    def __init__(self, answers: list[Judged], pairs: bool) -> None:
        self.count = len(answers)
        self._answers, self._pairs = answers, pairs

    def ask(self, model: Any, on_done: Callable[[int], None]) -> list[float]:
        """Return the log-probability of every answer."""
        return likelihoods(model, self._answers, on_done)

    def report(self, before: list[float], after: list[float]) -> dict[str, Any]:
        """Compare likelihoods by token before and after, and the change of whole answers."""
        sizes = [len(one.answer_ids) for one in self._answers]
        base, tuned = ([sum_ / size for sum_, size in zip(sums, sizes, strict=True)] for sums in (before, after))
        moved = [late - early for early, late in zip(before, after, strict=True)]
        total = self.count // 2 if self._pairs else self.count
        scores = {
            side: {"preference_accuracy": round(accuracy(self._answers, likely), 4), "total": total}
            for side, likely in (("before", base), ("after", tuned))
        }
        rows = self._compared(base, tuned) if self._pairs else self._rated(base, tuned)
        return {**scores, "of": "pairs" if self._pairs else "answers",
                "reward_accuracy": round(accuracy(self._answers, moved), 4), "rows": rows}  # fmt: skip

    def _compared(self, base: list[float], tuned: list[float]) -> list[dict[str, Any]]:
        margins = [[one[at] - one[at + 1] for at in range(0, self.count, 2)] for one in (base, tuned)]
        return [
            {
                "row": chosen.row, "prompt": chosen.prompt, "chosen": chosen.answer, "rejected": rejected.answer,
                "before": round(early, 4), "after": round(late, 4), "before_ok": early > 0, "after_ok": late > 0,
            }
            for chosen, rejected, early, late in zip(self._answers[::2], self._answers[1::2], *margins, strict=True)
        ]  # fmt: skip

    def _rated(self, base: list[float], tuned: list[float]) -> list[dict[str, Any]]:
        return [
            {
                "row": one.row, "prompt": one.prompt, "answer": one.answer, "good": one.good, "before": round(early, 4),
                "after": round(late, 4), "after_ok": late > early if one.good else late < early,
            }
            for one, early, late in zip(self._answers, base, tuned, strict=True)
        ]  # fmt: skip


def measure_of(
    kind: RowKind, examples: Sequence[Example], tokenizer: Any, where: str, data: DataConfig,
    longest: int | None = None,
) -> ExactMatch | Preference:  # fmt: skip
    """Return what rows are good for: preference where answers are compared, else exact match.

    Args:
        kind: what the rows are.
        examples: the rows.
        tokenizer: of the models that are asked.
        where: the file, for errors.
        data: section `data` of the training that the models come from, which says how control tokens are read.
        longest: maximum tokens of an answer; None for the longest expected one and some more.

    Raises:
        InputError: a row cannot be rendered.
    """
    if kind in COMPARED:
        masker = Masker(tokenizer, control_tokens=data.control_tokens)
        return Preference(judged(kind, examples, masker, where), kind == "pairs")
    questions = questions_of(examples, tokenizer, data.control_tokens)
    most = max(len(question.answer_ids) for question in questions) + SPARE_TOKENS
    return ExactMatch(questions, tokenizer, longest or most)
