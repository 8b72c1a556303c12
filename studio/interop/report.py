"""What an import or an export gives: the values, and one line for each key that says what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.config.run import RunConfig
from studio.methods import MethodConfig

# mapped: it means the same here. approximated: close, `why` says how it differs. ignored: it changes nothing here.
# refused: the studio cannot do it. unknown: the tool has no such key, either.
Status = Literal["mapped", "approximated", "ignored", "refused", "unknown"]
STATUSES: tuple[Status, ...] = ("refused", "unknown", "approximated", "mapped", "ignored")


@dataclass(frozen=True)
class Line:
    """What became of one key.

    Attributes:
        key: as the source names it: theirs in an import, our dotted name in an export.
        status: what became of it.
        to: where it went, a dotted name of ours or a key of theirs; "" for nowhere.
        why: the reason, as a sentence without its full stop; "" where a mapped key needs none.
        line: of the file or text, from 1; 0 where there is none, as for a default that was not given.
    """

    key: str
    status: Status
    to: str = ""
    why: str = ""
    line: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The line for JSON output and for the page."""
        return {"key": self.key, "status": self.status, "to": self.to, "why": self.why, "line": self.line}


def rows_at_a_time(config: RunConfig, sizes: Iterable[int]) -> int:
    """How many rows another tool is told to compute at a time.

    Args:
        config: the run.
        sizes: where the run leaves it to the plan, the first of these that divides the update and is enough for the
            method; the whole update where none is.
    """
    training, method = config.training, config.method
    if training.micro_batch_size != "auto":
        return training.micro_batch_size
    least = method.kind.least_rows(method)
    return next((size for size in sizes if size >= least and training.batch_size % size == 0), training.batch_size)


def by_part(method: MethodConfig, rows: int, micro: int) -> str:
    """How an update differs in a tool that computes each of its micro-batches by itself; "" where it does not.

    Args:
        method: of the run.
        rows: of an update.
        micro: rows that are computed at a time there.
    """
    what = method.kind.by_part(method)
    if not what or micro >= rows:
        return ""
    return f"{what[:1].upper()}{what[1:]} over a whole update here, in each micro-batch there"


@dataclass(frozen=True)
class Imported:
    """A config of another tool, as the studio has it.

    Attributes:
        tool: its title.
        run: the run by sections, as our YAML has it; {} where nothing is trained.
        exports: what is exported afterwards, as values of `ExportConfig` without the run.
        report: a line for each key, in the order of the source.
    """

    tool: str
    run: dict[str, Any]
    exports: list[dict[str, Any]] = field(default_factory=list)
    report: list[Line] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many keys have each status, without those that none has."""
        found = {status: sum(line.status == status for line in self.report) for status in STATUSES}
        return {status: count for status, count in found.items() if count}

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON output."""
        return {
            "tool": self.tool, "run": self.run, "exports": self.exports, "counts": self.counts(),
            "report": [line.as_dict() for line in self.report],
        }  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A run as another tool reads it.

    Attributes:
        tool: its title.
        files: text by relative path; the first one is the config.
        command: what starts the tool with it, in the folder of the files.
        report: a line for each option of ours that is read and does not mean the same by default.
        data: lines of further files by relative path, made when they are asked for; they may be large.
    """

    tool: str
    files: dict[str, str]
    command: str
    report: list[Line] = field(default_factory=list)
    data: dict[str, Callable[[], Iterator[str]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All of it but the data for JSON output."""
        return {
            "tool": self.tool, "files": self.files, "command": self.command,
            "report": [line.as_dict() for line in self.report],
        }  # fmt: skip
