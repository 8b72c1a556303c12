"""Findings: what is worth saying about data that can be used.

Each says how many rows, what it means for the result and what to do; nothing here refuses or changes a row. Of a
run's data it sees only equal rows (same tokens); `profile` looks further, on demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from studio.config.data import DataConfig, DataSource
from studio.data.formats.answers import Unread
from studio.data.formats.column_names import meaning_of
from studio.data.prepare.units import Unit
from studio.data.report import DataReport, Finding, Place, ReadAs, SourceReport
from studio.data.sources.locate import Located
from studio.data.sources.reading import COLUMNS_SAY

_NAMED_ROWS = 5
NOTES: dict[str, tuple[str, str]] = {
    "straddling": (
        "the first token of an answer also contains whitespace of the template, so it is not trained on",
        "Start answers without whitespace or a line break",
    ),
    "rewritten": (
        "the model's chat template changes an answer (for example, it drops the reasoning)",
        "Check the row's tokens in the Data tab: the highlighted ones are trained on",
    ),
    "prompt_extra": (
        "the generation prompt has more text before the answer than the training text",
        "Start answers the way the model does (for example, with its reasoning block)",
    ),
    "other_context": (
        "the chat template renders the prompt differently for generation than for training",
        "Fix the template, or set data.template",
    ),
    "header": (
        "the chat template has no generation prompt, so the turn's header is trained on along with the answer",
        "",
    ),
    "no_stop": (
        "no end-of-turn token follows the answers, so the model does not learn to stop",
        "Use a model whose tokenizer has an end-of-turn or EOS token",
    ),
    "lost": (
        "the model's tokenizer has no token for a character and drops it (for example, a control character)",
        "Remove such characters from the rows",
    ),
    "turns": (
        "the roles do not alternate as in a chat (one system prompt first, then user and assistant in turn), an order "
        "that the model does not see in use",
        "Fix the order, or merge consecutive messages of the same role",
    ),
    "no_question": (
        "a user message is empty, so the model learns to answer an empty prompt",
        "Fill it in, or save a cleaned copy without these rows",
    ),
    "control": (
        "the text contains special tokens of the model, which are tokenized as such and not as text",
        "Remove them from the rows unless they are intended",
    ),
}


# What `profile` looks for beside the notes: level, text, what to do.
CHECKS: dict[str, tuple[Literal["info", "warning", "error"], str, str]] = {
    "unusable": ("error", "cannot be used", "Fix them, or save a cleaned copy without them"),
    "empty_answer": ("error", "an empty answer", "Fill it in, or save a cleaned copy without these rows"),
    "control_token": (
        "error",
        "text that spells a special token of the model",
        "Write it another way, or save a cleaned copy without these rows",
    ),
    "too_long": ("warning", "longer than data.max_length", "Raise data.max_length, or choose data.truncation"),
    "answer_is_prompt": ("warning", "an answer that only repeats the prompt", "Drop them"),
    "broken_characters": (
        "warning",
        "broken characters: control characters, U+FFFD, or text in the wrong encoding, such as 'Ã©' for 'é'",
        "Export the data again as UTF-8, or drop the rows",
    ),
    "secret": (
        "warning",
        "what looks like a key, a password or an email address; the model may learn to repeat it",
        "Save a cleaned copy with secrets hidden, or drop the rows",
    ),
    "duplicate": ("info", "identical to an earlier row except for whitespace", "Set data.deduplicate to exact"),
    "near_duplicate": ("info", "nearly identical to an earlier row", "Set data.deduplicate to near"),
    "leak": (
        "warning",
        "validation rows that are also in the training data: the validation loss looks better than it is",
        "Set data.deduplicate to exact",
    ),
    "near_leak": (
        "warning",
        "validation rows that are nearly identical to training rows: the validation loss looks better than it is",
        "Set data.deduplicate to near",
    ),
}  # fmt: skip


def check_finding(check: str, count: int, action: str, places: Sequence[Place] = (), detail: str = "") -> Finding:
    """The finding of a check of `profile`, or of a note of the masks.

    Args:
        check: its name.
        count: rows concerned.
        action: what happens to them.
        places: the first of them.
        detail: what is said beside the check's own text.
    """
    if check in NOTES:
        return note_finding(check, count, action=action, places=tuple(places))
    level, text, fix = CHECKS[check]
    return Finding(level, count, text + (f": {detail}" if detail else ""), fix, (), check, action, tuple(places))


def collect_findings(
    report: DataReport,
    config: DataConfig,
    unread: Unread,
    units: Sequence[Unit],
    train: Sequence[Unit],
    validation: Sequence[Unit],
) -> None:
    """Add the findings and the counts of equal rows to `report`.

    Args:
        report: with its sources and lengths filled in.
        config: section `data`.
        unread: the rows' keys that were not read.
        units: all rows as tokens, before truncation.
        train, validation: the two parts after it.
    """
    add = report.findings.append
    add_length_findings(report, config)
    if doubles := sum(source.duplicates for source in report.sources):
        add(Finding("info", doubles, "identical or nearly identical to an earlier row, dropped", check="duplicate"))
    seen = Counter(one.key for one in train)
    report.duplicates_train = sum(seen.values()) - len(seen)
    report.duplicates_across = sum(one.key in seen for one in validation)
    if report.duplicates_across:
        add(
            Finding(
                "warning",
                report.duplicates_across,
                "the same row in training and validation: the validation loss looks better than it is",
                "Remove the duplicates from the file",
            )
        )
    if report.duplicates_train:
        add(Finding("info", report.duplicates_train, "duplicate rows in training", "Remove the duplicates"))
    report.findings += Notes().add(units).findings()
    report.findings += unused_keys(unread)
    if config.validation != 0 and not validation:
        text = "no rows are left for validation, so there is no validation loss"
        add(Finding("warning", 0, text, "Use more rows, or a validation file"))


def add_length_findings(report: DataReport, config: DataConfig) -> None:
    """Add what happened to the rows over the limit."""
    limit = config.limit
    dropped = sum(source.dropped for source in report.sources)
    empty = sum(source.dropped_unsupervised for source in report.sources)
    fix = f"Set data.max_length to {report.lengths.longest} to train on all of it"
    for count, text in (
        (dropped, f"longer than {limit} tokens, dropped"),
        (report.cut, f"longer than {limit} tokens, truncated: from these rows the model does not learn to stop"),
        (empty, f"dropped because the first {limit} tokens contain no answer"),
    ):
        if count:
            report.findings.append(Finding("warning", count, text, fix))


def limit_findings(lengths: Mapping[str, Any]) -> list[Finding]:
    """A warning about the rows over the limit, from the figures of a file (`LengthSummary`) that was not yet cut."""
    if not (over := lengths["over_limit"]):
        return []
    text = f"longer than {lengths['limit']:,} tokens (data.max_length), the longest has {lengths['longest']:,}"
    fix = (
        f"Set data.max_length to {lengths['longest']}, or data.truncation to drop or cut: otherwise a run refuses them"
    )
    return [Finding("warning", over, text, fix, check="too_long")]


def note_text(note: str) -> str:
    """Return what a note of a mask means, as a sentence for one row."""
    text, fix = NOTES[note]
    return f"{text[:1].upper()}{text[1:]}." + (f" {fix}." if fix else "")


class Notes:
    """What the masks noted of rows that stream by."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._rows: dict[str, list[int]] = {}

    def add(self, units: Iterable[Unit]) -> Notes:
        """Take units; returns itself."""
        for one in units:
            for note in one.notes:
                self._counts[note] += 1
                if len(rows := self._rows.setdefault(note, [])) < _NAMED_ROWS:
                    rows.append(one.row)
        return self

    def findings(self) -> list[Finding]:
        """Return a finding for each, with the first rows."""
        return [note_finding(note, count, rows=tuple(self._rows[note])) for note, count in self._counts.items()]


def note_finding(
    note: str, count: int, rows: tuple[int, ...] = (), action: str = "", places: tuple[Place, ...] = ()
) -> Finding:
    """The finding that a note of the masks stands for.

    Args:
        note: key of `NOTES`.
        count: of rows it is true of.
        rows: numbers of the first of them, from 1.
        action: what happens to them without a change; empty for nothing.
        places: of the first of them, with their sources.
    """
    level: Literal["info", "warning"] = "info" if note == "header" else "warning"
    text, fix = NOTES[note]
    return Finding(level, count, text, fix, rows, note, action, places)


_LINE_RULE = (
    "plain text of a dataset_info.json: each line is a separate document, as in LLaMA-Factory; blank lines are skipped",
    "Give the file itself if its documents end at a blank line",
)
_TEXT_RULE = (
    "plain text: each block of lines between blank lines is a separate document",
    "Use JSONL rows with text for documents that contain blank lines",
)


def text_findings(sources: Iterable[tuple[Located, SourceReport]]) -> list[Finding]:
    """A finding for each plain text file that says how it is cut into documents."""
    return [
        Finding("info", report.rows, *(_LINE_RULE if located.by_line else _TEXT_RULE))
        for located, report in sources if located.is_text
    ]  # fmt: skip


def reading_findings(sources: Iterable[SourceReport], config: Sequence[DataSource], template: bool) -> list[Finding]:
    """The findings of `reading_finding` for a run's sources, as they were read and as they were asked for.

    Args:
        sources: reports of all sources, those of training first.
        config: the sources as the run names them, in the same order.
        template: whether the model has a chat template.
    """
    found = [
        reading_finding(at, report.read_as, report.reason, report.chosen, config[at], template)
        for at, report in enumerate(sources)
        if report.part == "train"  # rows for validation are read as those that are trained on
    ]
    return [one for one in found if one is not None]


def reading_finding(
    at: int, read_as: ReadAs, reason: str, rows: int, asked: DataSource, template: bool
) -> Finding | None:
    """Say how a source's plain questions and answers are read, with the other way; None where it has none.

    Args:
        at: place of the source, from 0.
        read_as, reason, rows: as it was read (`SourceReport`).
        asked: what the configuration says of it.
        template: whether the model has a chat template.
    """
    if not read_as:
        return None
    by_names = f" ({reason})" if reason.startswith(COLUMNS_SAY) else ""
    level: Literal["info", "warning"] = "info"
    change: dict[str, Any] | None = {"source": at, "reading": "raw" if read_as == "conversation" else "conversation"}
    if read_as == "conversation":
        text = f"prompts and completions are rendered with the model's chat template{by_names}"
        fix = "Set the file's reading to raw if the texts already have the markup, as TRL reads them"
    elif template:
        level = "info" if asked.reading == "raw" else "warning"
        text = f"prompts and completions are read as plain text, without the model's chat template{by_names}"
        fix = "Set the file's reading to conversation to train on them in the chat format"
    else:
        change = None
        text = f"prompts and completions are concatenated as plain text: the model has no chat template{by_names}"
        fix = "Set data.template to render them as conversations"
    action = f"trained on as {'conversations' if read_as == 'conversation' else 'plain text'}"
    return Finding(level, rows, text, fix, check="reading", action=action, change=change)


def unused_keys(unread: Unread) -> list[Finding]:
    """A finding that names the keys of the rows that were not read.

    There are warnings if a rating is among them, or a column that belongs to the prompt by its name.
    """
    found: list[Finding] = []
    if others := {key: count for key, count in unread.counts.items() if key not in unread.lost}:
        found.append(Finding("info", max(others.values()), f"ignored keys: {', '.join(sorted(others)[:10])}"))
    if lost := unread.lost:
        text = "columns are not read although their names say that they belong to the prompt"
        key = min(lost)
        way = f"prompt={{{{ {key} }}}} {{{{ prompt }}}}, or input={key} beside an instruction"
        way = f"system={key}" if meaning_of(key) == "system" else way
        fix = f"To use them, set the file's columns, such as {way}"
        found.append(Finding("warning", max(lost.values()), f"{text}: {', '.join(sorted(lost)[:10])}", fix))
    if rated := unread.rated:
        text = "labeled answers: this method trains on good and bad ones alike"
        found.append(Finding("warning", rated, text, "Set method.name to kto, or remove the bad answers from the file"))
    return found
