"""A comparison as text to take elsewhere: Markdown, and lines for a spreadsheet."""

from __future__ import annotations

import csv
import io
import re

from studio.escaping import for_markdown, for_spreadsheet
from studio.jobs.views.compare import Comparison
from studio.jobs.views.differences import Row

_OPTION = re.compile(r"[\w.()\- ]+", re.ASCII)


def as_markdown(comparison: Comparison) -> str:
    """Return the tables as Markdown; the best values are bold and carry the word."""
    names = [for_markdown(run["name"]) for run in comparison.runs]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines.append("| state | " + " | ".join(for_markdown(run["word"]) for run in comparison.runs) + " |")
    lines += [_line(_code(row.key), row) for row in comparison.options]
    lines += [_line(for_markdown(row.title), row) for row in comparison.results]
    return "\n".join([*lines, "", *(f"{for_markdown(note)}\n" for note in comparison.notes)]).rstrip() + "\n"


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


def _code(key: str) -> str:
    """An option's name as code; one that another version or person wrote as text, for no sign ends code safely."""
    return f"`{key}`" if _OPTION.fullmatch(key) else for_markdown(key)


def _line(title: str, row: Row) -> str:
    cells = [
        f"**{for_markdown(text)}** (best)" if place in row.best else for_markdown(text)
        for place, text in enumerate(row.values)
    ]
    return f"| {title} | " + " | ".join(cells) + " |"


def _safe(cells: list[str]) -> list[str]:
    return [for_spreadsheet(cell) for cell in cells]  # names come from other people
