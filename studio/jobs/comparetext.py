"""A comparison as text that is taken elsewhere: a Markdown table, and CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io

from studio.jobs.compare import Comparison
from studio.jobs.differences import Row


def as_markdown(comparison: Comparison) -> str:
    """Return the tables as Markdown; the best values are bold and carry the word."""
    names = [_cell(run["name"]) for run in comparison.runs]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines.append("| state | " + " | ".join(_cell(run["word"]) for run in comparison.runs) + " |")
    lines += [_line(f"`{row.key}`", row) for row in comparison.options]
    lines += [_line(row.title, row) for row in comparison.results]
    return "\n".join([*lines, "", *(f"{note}\n" for note in comparison.notes)]).rstrip() + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return one line for each option and result: kind, key, title, a column for each run, names of the best."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    names = [str(run["name"]) for run in comparison.runs]
    writer.writerow(_safe(["kind", "key", "title", *names, "best"]))
    writer.writerow(_safe(["run", "id", "Id", *(str(run["id"]) for run in comparison.runs), ""]))
    for row in comparison.options:
        writer.writerow(_safe(["option", row.key, row.title, *row.values, ""]))
    for row in comparison.results:
        figures = ["" if number is None else f"{number:.10g}" for number in row.numbers]
        best = ", ".join(names[place] for place in row.best)
        writer.writerow([*_safe(["result", row.key, row.title]), *figures, *_safe([best])])
    return stream.getvalue()


def _line(title: str, row: Row) -> str:
    cells = [f"**{_cell(text)}** (best)" if place in row.best else _cell(text) for place, text in enumerate(row.values)]
    return f"| {title} | " + " | ".join(cells) + " |"


def _cell(text: object) -> str:
    return " ".join(str(text).replace("\\", "\\\\").replace("|", "\\|").split())


def _safe(cells: list[str]) -> list[str]:
    """Text that a spreadsheet would take for a formula gets an apostrophe: names come from other people."""
    return [f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell for cell in cells]
