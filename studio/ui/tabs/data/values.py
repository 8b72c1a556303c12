"""What the Data tab shows of the files: counts, findings with their ways out, a row as tokens.

Every number comes from the data worker. Data that a run would refuse is shown as it is, with the sentence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from studio.config import RunConfig
from studio.config.data import DataSource
from studio.config.describe import options_of
from studio.data.sources.locate import absent_set, sources_of
from studio.data.wire import run_sections
from studio.errors import StoppedError, StudioError
from studio.methods import METHODS
from studio.ui.form.meta import Meta
from studio.ui.form.planwords import waits_for
from studio.ui.form.schema import METHOD, TRAIN, Values
from studio.ui.page import Page
from studio.ui.server.services import Services
from studio.ui.tabs.data.tokens import problem_value, row_value

READINGS = get_args(DataSource.model_fields["reading"].annotation)
LIMIT, TRUNCATION = "data.max_length", "data.truncation"
NOTHING_FOUND = {"level": "good", "label": "0", "text": "overlong rows, duplicates, broken or empty answers"}


def counted(values: Values, page: Page) -> tuple[dict[str, Any], str]:
    """Count the whole data: what its head shows, and its summary."""
    config, wrong = data_config(values, page)
    if config is None:
        return failed("Data", wrong), "needs fixing"
    name = data_name(config)
    try:
        if waits := waits_for(config, page.services):
            absent = absent_set(config.data, page.services.settings)
            return waiting(name, waits, bool(absent)), name
    except StudioError as error:
        return failed(name, [page.form.problem(error)["sentence"]]), f"{name} · needs fixing"
    shown = whole_count(config, page, name)
    page.services.tasks.warm(config.model.model_dump())
    return shown


def row_again(values: Values, page: Page, place: Meta) -> dict[str, Any]:
    """Return the row that the person looks at as tokens, the first one where it is gone, or why there is none.

    Args:
        values: by option, as the fields hold them.
        page: form and services.
        place: row and source that were shown last.
    """
    first = replace(place, row=1, source=0)
    config, _ = data_config(values, page)
    if config is None:
        return problem_value("No row to show yet.", first)
    try:
        if waits_for(config, page.services):
            return problem_value("Tokens are shown as soon as model and data are available.", first)
        with contextlib.suppress(StudioError):
            return preview_row(config, page.services, place)
        return preview_row(config, page.services, first)
    except StudioError as error:
        return problem_value(error.sentence, first)


def data_config(values: Values, page: Page) -> tuple[RunConfig | None, list[str]]:
    """Return the config and no sentences, or none and what is wrong with the data's options.

    Options of other sections may be wrong: the data is shown all the same.
    """
    try:
        return page.form.config(values), []
    except StudioError as error:
        wrong = [problem for problem in getattr(error, "errors", [error]) if problem.where.startswith("data")]
        if wrong:
            return None, [page.form.problem(one)["sentence"] for one in wrong]
    return page.form.config({path: value for path, value in values.items() if path.startswith("data.")}), []


def whole_count(config: RunConfig, page: Page, name: str) -> tuple[dict[str, Any], str]:
    """Count the data as a run would; where a run would refuse it, show the files as they are and say why.

    Args:
        config: the run.
        page: form and services.
        name: of the data, for the heading.
    """
    try:
        report = page.services.data.call("lengths", **run_sections(config), seed=config.training.seed)["report"]
    except StoppedError as error:
        return failed(name, [error.sentence]), f"{name} · not counted"
    except StudioError as error:
        return refused(config, page, name, error), f"{name} · needs fixing"
    rows = report["train_rows"] + report["validation_rows"]
    shown = {
        "name": name,
        "state": f"ready for {METHODS[config.method.name].title}",
        "level": "ok",
        "counts": counts(rows, report["tokens"], report["supervised_tokens"], report["validation_rows"]),
        "sources": [source_value(one) for one in report["sources"]],
        "lengths": report["lengths"],
        "split": {"train": report["train_rows"], "validation": report["validation_rows"]},
        "findings": [finding_value(one, report["lengths"]) for one in report["findings"]] or [NOTHING_FOUND],
    }
    return shown, f"{name} · {rows:,} rows"


def counts(rows: int, tokens: int, supervised: int, held: int = 0) -> str:
    """How much there is, in one line.

    Args:
        rows, tokens, supervised: totals; supervised tokens are those the loss counts.
        held: how many of the rows are for validation.
    """
    some = f"{rows:,} row{'' if rows == 1 else 's'}"
    if held:
        return f"{some}, {held:,} of them for validation · {tokens:,} tokens in all, {supervised:,} in the loss"
    return f"{some} · {tokens:,} tokens, {supervised:,} of them trained on"


def refused(config: RunConfig, page: Page, name: str, error: StudioError) -> dict[str, Any]:
    """What is shown of data that a run would refuse: its figures where they can be had, and what to do.

    Args:
        config: the run.
        page: form and services.
        name: of the data, for the heading.
        error: what the run would say; one that gathers several shows each.
    """
    shown = failed(name, [page.form.problem(one)["sentence"] for one in getattr(error, "errors", [error])])
    kinds = _kinds(config, page.services)
    shown["findings"][0]["actions"] = switch_actions(config, list(kinds.values()))
    data, sections = config.data, run_sections(config)
    for at, source in enumerate(data.train):
        try:
            one = page.services.data.call(
                "inspect", path=source.path, format=source.format, options=source.model_dump(), **sections
            )  # fmt: skip
        except StudioError:  # which column is which may have to be said
            # By its path: the list may hold another file in its place by then.
            shown["sources"].append({"unread": source.path if at in kinds and kinds[at] is None else ""})
            continue
        shown["sources"].append(source_value(one))
        longest = one["lengths"]
        if shown["lengths"] is None or longest["over_limit"]:
            shown["lengths"] = longest
            shown["counts"] = counts(one["rows"], one["tokens"], one["supervised_tokens"])
        if longest["over_limit"] and data.truncation == "error":
            many = longest["over_limit"]
            shown["findings"] = [
                {
                    "level": "warning",
                    "label": f"{many:,} row{'s' if many > 1 else ''}",
                    "text": f"longer than {longest['limit']:,} tokens",
                    "fix": "Now: refused. Raise the limit, drop them, or cut them.",
                    "actions": length_actions(longest["longest"]),
                }
            ]
    return shown


def switch_actions(config: RunConfig, kinds: Sequence[str | None]) -> list[dict[str, Any]]:
    """A button for the first method that learns from rows like these, where the chosen one does not.

    Args:
        config: the run.
        kinds: of its files that can be read, as `_kinds` tells them.
    """
    kind = next((one for one in kinds if one not in (None, config.method.kind.rows)), None)
    if kind is None:
        return []
    method = next(one for one in METHODS.values() if one.rows == kind)
    return [{"label": f"Switch to {method.title}", "set": {METHOD: method.name}}]


def _kinds(config: RunConfig, services: Services) -> dict[int, str | None]:
    """For which kind of method each file is made, by its place, None where for none; without those nobody can read."""
    found = {}
    for at, source in enumerate(config.data.train):
        with contextlib.suppress(StudioError):  # its sentence is among the findings already
            found[at] = services.data.call("kind", source=source.model_dump())["kind"]
    return found


def length_actions(longest: int) -> list[dict[str, Any]]:
    """The three ways out of over-long rows, as buttons that set the options."""
    return [
        {"label": f"Raise the limit to {longest:,}", "set": {LIMIT: longest}},
        {"label": "Drop them", "set": {TRUNCATION: "drop"}},
        {"label": "Cut them", "set": {TRUNCATION: "cut"}},
    ]


def failed(name: str, sentences: list[str]) -> dict[str, Any]:
    """What is shown of data that cannot be used at all."""
    return {
        "name": name, "state": "needs fixing", "level": "bad", "counts": "", "sources": [], "lengths": None,
        "split": None,
        "findings": [{"level": "error", "label": "wrong", "text": text, "fix": ""} for text in sentences],
    }  # fmt: skip


def waiting(name: str, why: str, data: bool) -> dict[str, Any]:
    """What is shown while the model, and so its tokenizer, is not here, or a set of the Hub (`data`) is not.

    Args:
        name: of the data, for the heading.
        why: sentence about what is missing.
        data: True where a dataset is missing, False for the model.
    """
    # A name keeps its own letters.
    said = why[0].upper() + why[1:] if why.startswith("the ") else why
    finding: dict[str, Any] = {"level": "info", "label": "later", "text": said, "fix": ""}
    if data:
        finding["actions"] = [{"label": "Fetch it now", "fetch": True}]
    return {
        "name": name, "state": f"waiting for the {'data' if data else 'model'}", "level": "", "counts": "",
        "sources": [], "lengths": None, "split": None, "findings": [finding],
    }  # fmt: skip


def finding_value(finding: dict[str, Any], lengths: dict[str, Any]) -> dict[str, Any]:
    """One finding as the list shows it."""
    rows = finding.get("rows") or []
    where = f" Rows {', '.join(map(str, rows))}{' …' if finding['count'] > len(rows) else ''}." if rows else ""
    long = "longer than" in finding["text"]
    return {
        "level": finding["level"],
        "label": f"{finding['count']:,}",
        "text": finding["text"],
        "fix": (f"{finding['fix']}." if finding["fix"] else "") + where,
        "actions": length_actions(lengths["longest"])[:1] if long else change_actions(finding),
    }


def change_actions(finding: dict[str, Any]) -> list[dict[str, Any]]:
    """The button of a finding that another option of a source would turn round."""
    change = finding.get("change")
    if not change:
        return []
    label = {"conversation": "Read them as conversations", "raw": "Read them as plain texts"}[change["reading"]]
    return [{"label": label, "set": {TRAIN: change}}]


def acted(text: str, current: list[dict[str, Any]] | None, options: Sequence[str]) -> list[Any]:
    """What a button of a finding sets: each of `options`, and behind them the list of files.

    Args:
        text: `Meta` as JSON, from the page.
        current: sources the form holds; None for none.
        options: names, in the order of the outputs.
    """
    wanted = Meta.read(text).set
    change = wanted.get(TRAIN)
    values = [wanted.get(option, gr.skip()) for option in options]
    if not isinstance(change, dict) or change.get("reading") not in READINGS:
        return [*values, gr.skip()]
    reading = {"reading": change["reading"]}
    files = [{**one, **reading} if at == change.get("source") else one for at, one in enumerate(current or [])]
    return [*values, files]


def source_value(source: dict[str, Any]) -> dict[str, Any]:
    """What the list of files shows beside a path."""
    words = ("format", "reason", "rows", "file", "kept")
    return {word: source[word] for word in words if word in source}


def preview_row(config: RunConfig, services: Services, place: Meta) -> dict[str, Any]:
    """Ask the worker for a row of one of the sources, with what the two answers of a pair have in common.

    Args:
        config: the run.
        services: with the data worker.
        place: row from 1, source from 0.
    """
    answer = services.data.call("diff", row=place.row, source=place.source, **run_sections(config))
    return row_value(answer, place, [short_name(one.path) for one in sources_of(config.data)])


def source_options() -> dict[str, Any]:
    """What the list of files is told of a source's options: the formats, and the others as the schema has them."""
    specs = {spec.name: spec for spec in options_of(DataSource)}
    fields = [
        {"name": name, "title": spec.title, "help": spec.help + (f" ({spec.unit})" if spec.unit else ""),
         "choices": spec.choices}
        for name, spec in specs.items() if name not in ("path", "format")
    ]  # fmt: skip
    return {"formats": specs["format"].choices, "fields": fields}


def short_name(path: str) -> str:
    """A source's path in little room: the last two parts."""
    return "/".join(path.split("/")[-2:])


def data_name(config: RunConfig) -> str:
    """What the data is called in little room."""
    file = Path(config.data.train[0].path)
    name = file.parent.name if file.parent.name == "demo" else file.stem
    more = len(config.data.train) - 1
    return f"{name} + {more}" if more else name
