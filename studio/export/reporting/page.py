"""The report of an export as one page that can be sent to anybody: report/report.html, self-contained.

It holds prompts and answers of the rows, so it lies beside export.json and not in exports/, which is what goes to
a repository or a zip file. Every text of others is escaped; the page loads nothing, and says so to the browser.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from typing import Any

from studio.escaping import for_terminal
from studio.export.cards.facts import name_of, shown_name
from studio.export.files import in_words
from studio.export.origins.origin import Origin
from studio.export.proof.gates import difference
from studio.export.readme import in_percent, short_number
from studio.export.reporting.facts import Check, checks
from studio.export.reporting.style import STYLE
from studio.jobs import JobFolder

PAGE = "report.html"
_DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
# What an export of an older version, whose files are taken, may not have noted.
_UNKNOWN: dict[str, Any] = {
    "type": "", "file": "", "bytes": 0, "sha256": None, "verdict": "", "notes": [], "gate": None, "mean_kl": None,
    "top1": None, "prompts_compared": 0, "prompt_ids_equal": False, "exact_match": None, "places": None,
}  # fmt: skip
NOT_COMPARED = "It was not compared"
NOT_NOTED = "Where the two differ most was not noted"
NOTHING_DIFFERS = "Nothing differs: the same next token everywhere, and no distance above 0.0001 nats"
# Signs for what a token consists of and nobody sees.
_SEEN = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_GOOD = ("as trained", "as the original", "as expected")


def report_page(report: dict[str, Any], origin: Origin, job: JobFolder) -> str:
    """Return the page.

    Args:
        report: as export.json has it; one of an older version may lack the newer parts.
        origin: of what was exported.
        job: the export.
    """
    report = report | {"files": [_UNKNOWN | entry for entry in report["files"]], "trained": report.get("trained")}
    title = f"Export of {report['name']}"
    parts = [
        f"<h1>{_text(title)} {_whole(report['files'])}</h1>",
        _origin(report, origin, job),
        _files(report["files"]),
        *(_checked(entry, report, _base_folder(origin)) for entry in report["files"]),
        _compared(report),
        *(_disagreements(entry, _titled(origin.whole)) for entry in report["files"]),
        _notes(report["files"]),
        _times(report),
    ]
    return _DOCUMENT.format(title=_text(title), style=STYLE, body="\n".join(part for part in parts if part))


def _origin(report: dict[str, Any], origin: Origin, job: JobFolder) -> str:
    began = report.get("began")
    when = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(began)) if began else ""
    return _pairs([
        ("What was exported", f"{report['name']} ({shown_name(origin.id)})"),
        ("Base model", shown_name(str(report.get("base_model") or "not recorded"))),
        ("Its weights", origin.sentence()),
        ("Exported to", str(report.get("to") or "")),
        ("Export", job.id),
        ("When", when),
        ("Made with", _listed(report.get("versions"))),
        ("Trained with", _listed(origin.versions())),
    ])  # fmt: skip


def _files(files: Sequence[dict[str, Any]]) -> str:
    rows = []
    for entry in files:
        what = f"{entry['type']}, {entry['dtype']}" if entry.get("dtype") else entry["type"]
        digest = entry["sha256"] or f"{len(entry.get('parts') or [])} files, below"
        rows.append([_text(entry["file"]), _text(what), in_words(entry["bytes"]), _verdict(entry["verdict"])])
        rows[-1].append(f"<code>{_text(digest)}</code>")
    tables = [_table(["File", "Type", "Size", "Verdict", "SHA-256"], rows)]
    for entry in files:
        if parts := entry.get("parts"):
            listed = [[_text(one["file"]), in_words(one["bytes"]), f"<code>{one['sha256']}</code>"] for one in parts]
            tables.append(f"<h3>Files of {_text(entry['file'])}</h3>{_table(['File', 'Size', 'SHA-256'], listed)}")
    return "<h2>What was made</h2>" + "".join(tables)


def _checked(entry: dict[str, Any], report: dict[str, Any], base: str) -> str:
    rows = [
        [_text(one.what), _text(one.found), _text(one.limit), _mark(one)] for one in checks(entry, report["trained"])
    ]
    notes = "".join(f"<li>{_text(_placeless(note, base))}.</li>" for note in entry["notes"])
    table = _table(["Check", "Measured", "Limit", "Holds"], rows)
    return f"<h2>Checks of {_text(entry['file'])}</h2>{table}" + (f"<ul>{notes}</ul>" if notes else "")


def _compared(report: dict[str, Any]) -> str:
    files, reference = report["files"], report.get("reference") or {}
    conversations = max((entry["prompts_compared"] for entry in files), default=0)
    rows = max(((entry.get("exact_match") or {"total": 0})["total"] for entry in files), default=0)
    greedy = max(((entry.get("greedy") or {"total": 0})["total"] for entry in files), default=0)
    of = "its own rows" if reference.get("own_text") else "built-in text"
    said = [
        ("Next-token probabilities", f"{reference.get('positions', 0):,} positions of {of}"),
        ("Conversations, token by token", f"{conversations:,}"),
        ("Greedy answers", f"{greedy:,}" if greedy else "not compared for this kind of file"),
        ("Rows with an expected answer", f"{rows:,} of {name_of(str(report['data']))}" if rows else "none were given"),
        (f"Arithmetic of {report.get('compared_with', 'the trained model')}", str(reference.get("dtype", ""))),
    ]
    notes = "".join(f"<li>{_text(note)}.</li>" for note in reference.get("notes") or [])
    return f"<h2>What was compared</h2>{_pairs(said)}" + (f"<ul>{notes}</ul>" if notes else "")


def _disagreements(entry: dict[str, Any], whole: str) -> str:
    """The worst of one file, side by side; one sentence where there is nothing."""
    places, rows = entry.get("places") or [], (entry.get("rows") or {}).get("rows") or []
    parted = (entry.get("greedy") or {}).get("parted") or []
    parts = [f"<h2>Largest differences: {_text(entry['file'])}</h2>"]
    if not (places or rows or parted):
        silent = NOT_NOTED if entry["places"] is None else NOTHING_DIFFERS
        return parts[0] + f"<p>{NOT_COMPARED if entry['top1'] is None else silent}.</p>"
    if places:
        parts.append("<h3>Next tokens, farthest apart first</h3>")
        shown = [
            [
                f'<span class="text">{_text(one["context"])}</span>', _chosen(one["trained"]), _chosen(one["exported"]),
                short_number(one["kl"]),
            ]
            for one in places
        ]  # fmt: skip
        parts.append(_table(["After", whole, "Exported", "KL, nats"], shown))
    if parted:
        parts.append("<h3>Greedy answers that part</h3>")
        parts += [
            _side_by_side(
                one["prompt"], one.get("question", ""), None, one["trained"], one["exported"],
                whole, f"{whole}: preferred its token by {one['nats']:.2g} nats where they part.",
            )
            for one in parted
        ]  # fmt: skip
    if rows:
        parts.append(f"<h3>Rows that are answered differently</h3>{_counted(entry['rows'], whole)}")
        parts += [
            _side_by_side(f"row {one['row']}", one["prompt"], one["expected"], one["trained"], one["exported"], whole)
            for one in rows
        ]
    return "".join(parts)


def _counted(rows: dict[str, Any], whole: str) -> str:
    if rows["lost"] is None:
        return "<p>A few of those that were answered wrongly, beside its own answers.</p>"
    return f"<p>Right only here: {whole} {rows['lost']} rows, what was exported {rows['gained']}.</p>"


def _side_by_side(
    name: str, prompt: str, expected: str | None, trained: str, exported: str, whole: str, more: str = ""
) -> str:
    answers = [(whole, trained), ("Exported", exported)]
    answers += [("Expected", expected)] if expected is not None else []
    boxes = "".join(f'<div><h4>{title}</h4><p class="text">{_text(said)}</p></div>' for title, said in answers)
    asked = f'<p class="text prompt"><b>{_text(name)}</b> {_text(prompt)}</p>'
    return f'<article>{asked}<div class="beside">{boxes}</div>{f"<p>{_text(more)}</p>" if more else ""}</article>'


def _notes(files: Sequence[dict[str, Any]]) -> str:
    """How texts are cut into other tokens, once for all files."""
    said = {f"{difference(one)}. {one['fix']}." for entry in files for one in entry.get("differences") or []}
    items = "".join(f"<li>{_text(one[0].upper() + one[1:])}</li>" for one in sorted(said))
    return f"<h2>Texts that are read as other tokens</h2><ul>{items}</ul>" if items else ""


def _times(report: dict[str, Any]) -> str:
    rows = [
        [_text(one["phase"]), f"{one['seconds']:.1f}", in_words(one["peak_bytes"])]
        for one in report.get("phases") or []
    ]
    return f"<h2>Time and memory</h2>{_table(['Phase', 'Seconds', 'Peak memory'], rows)}" if rows else ""


def _chosen(side: dict[str, Any]) -> str:
    beside = "" if side["other"] is None else f"<br><small>the other one: {_share(side['other'])}</small>"
    token = "".join(_SEEN.get(sign, sign) for sign in side["token"])
    shown = token if side["token"].strip() else token.replace(" ", "␣")
    return f'<span class="token">{_text(shown)}</span> {_share(side["probability"])}{beside}'


def _share(value: float | None) -> str:
    return in_percent(value).replace(" ", "\u00a0")


def _whole(files: Sequence[dict[str, Any]]) -> str:
    """The verdict on all of it: the worst of the files, and of how many."""
    found = [entry["verdict"] for entry in files]
    worst = next((one for one in ("differs", "lossy") if one in found), found[0] if found else "nothing was made")
    count = found.count(worst) if worst not in _GOOD else len(found)
    of = f" ({count} of {len(found)} files)" if count < len(found) else ""
    return _verdict(worst) + of


def _verdict(word: str) -> str:
    return f'<span class="{"good" if word in _GOOD else "bad"}">{_text(word)}</span>'


def _mark(check: Check) -> str:
    if check.kept is None:
        return "–"
    return f'<span class="{"good" if check.kept else "bad"}">{"yes" if check.kept else "no"}</span>'


def _titled(whole: str) -> str:
    """The trained model: Trained model."""
    return whole.removeprefix("the ").capitalize()


def _base_folder(origin: Origin) -> str:
    return str(origin.base_model.get("path") or "")


def _placeless(text: str, folder: str) -> str:
    """A text without the folder of this machine in which the base model lies: the page goes to others."""
    return text.replace(folder, name_of(folder)) if folder else text


def _listed(found: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items()) if isinstance(found, dict) else ""


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{title}</dt><dd>{_text(said)}</dd>" for title, said in pairs if said) + "</dl>"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: object) -> str:
    """A text of others as HTML shows it: markup escaped, characters that hide or turn text written out."""
    return html.escape(for_terminal(str(value)))
