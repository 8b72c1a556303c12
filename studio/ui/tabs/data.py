"""Data tab: the files, a row as the model sees it, how long rows are, what was found, and the split.

Every number comes from the data worker; nothing is computed here. A file that cannot be used is a finding with its
sentence, not a failure: what was chosen stays as it was.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from studio.config import RunConfig
from studio.config.data import DataSource
from studio.config.describe import options_of
from studio.data.client import DataWorker
from studio.data.locate import absent_set, sources_of
from studio.errors import InputError, StudioError
from studio.ui.components.choices import markup, piece
from studio.ui.components.firstbatch import batch_card
from studio.ui.components.keepdata import keep_card
from studio.ui.components.lengths import length_chart
from studio.ui.components.meta import READING, WITH_META, Meta
from studio.ui.components.planline import plan_line
from studio.ui.components.planwords import waits_for
from studio.ui.components.profile import profile_card
from studio.ui.components.pushdata import push_card
from studio.ui.components.tokens import problem_value, row_value, token_view
from studio.ui.datafiles import UPLOADED, demo_data, joined, keep_upload, named_source
from studio.ui.errors import guard
from studio.ui.form import METHOD, TRAIN, Values, field_id
from studio.ui.page import QUIET, Page
from studio.ui.services import Services

LIMIT, TRUNCATION, VALIDATION = "data.max_length", "data.truncation", "data.validation"
ACTED = (LIMIT, TRUNCATION)
FETCH_SECONDS = 24 * 3600.0
HEAD = """
<div class="studio row-flex wrap-flex head"><h2 class="data-name">Data</h2><span class="data-state pill">reading</span>
<span class="data-counts muted num" role="status"></span></div>
"""
SOURCES = """
<div class="studio"><table aria-label="Files">
<thead><tr><th>File</th><th>Format</th><th class="num">Rows</th><th><span class="sr">Remove</span></th></tr></thead>
<tbody></tbody></table>
<p class="sources-empty muted">No file yet: upload one, name its path, or take the demo.</p></div>
"""
FINDINGS = """
<section class="studio card" aria-label="Findings"><h3>Findings</h3><ul class="findings">
<li class="muted">Reading the data …</li></ul></section>
"""
SPLIT = """
<div class="studio"><section class="card num" aria-label="Split" hidden><h3>Split</h3><div class="stack"></div>
<div class="legend"></div></section></div>
"""


NOTE = '<p class="studio note-text wrong" role="alert"></p>'


def build(page: Page) -> None:
    """Build the tab."""
    form, services = page.form, page.services
    head = piece(HEAD, "dataHead", elem_id="data-head")
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(elem_classes=["stacked"]):
            view = token_view()
            length_chart()
        with gr.Column(elem_classes=["stacked"]):
            with gr.Column(elem_classes=["card-block"]):
                markup('<div class="studio"><h3>Files</h3></div>')
                sources = piece(
                    SOURCES, "sources", value=form.start[TRAIN], constants=source_options(), elem_id=field_id(TRAIN)
                )
                form.own(TRAIN, sources)
                with gr.Row(elem_classes=["add-data"]):
                    path = gr.Textbox(
                        "", label="Path or set", placeholder="/path/to/rows.jsonl or org/name", show_label=False,
                        lines=1, max_lines=1, elem_id="data-path", interactive=True, scale=3,
                    )  # fmt: skip
                    add = gr.Button("Add", elem_id="data-add", size="sm", scale=0, min_width=70)
                with gr.Row(elem_classes=["add-data"]):
                    upload = gr.UploadButton(
                        "Upload a file", file_types=UPLOADED, file_count="single", type="filepath",
                        elem_id="data-upload", size="sm",
                    )  # fmt: skip
                    demo = gr.Button("Take the demo set", elem_id="data-demo", size="sm")
                problem = piece(NOTE, "note", elem_id="data-problem")
            findings = piece(FINDINGS, "findings", elem_id="findings")
            piece(SPLIT, "split", elem_id="split")
            with gr.Column(elem_classes=["card-block"]):
                markup('<div class="studio"><h3>Limits and split</h3></div>')
                form.place_tiers(form.of_section("data"), "data-advanced")
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(elem_classes=["stacked"]):
            profile_card(page)
            batch_card(page)
        with gr.Column(elem_classes=["stacked"]):
            keep_card(page)
            push_card(page)
    form.lines.append(plan_line())

    def add_path(text: str, current: list[dict[str, Any]], validation: str) -> tuple[Any, Any, Any, str]:
        if not text.strip():
            fix = "Enter a file, a folder, dataset_info.json:NAME, or org/name of a set on the Hub"
            raise InputError("there is no path", where="Path or set", fix=fix)
        try:
            return *joined(current, validation, named_source(text, services.settings)), "", ""
        except StudioError as error:
            return gr.skip(), gr.skip(), gr.skip(), error.sentence

    def take_upload(file: str, current: list[dict[str, Any]], validation: str) -> tuple[Any, Any, str]:
        try:
            return *joined(current, validation, str(keep_upload(Path(file), services.settings))), ""
        except InputError as error:
            return gr.skip(), gr.skip(), error.sentence

    def take_demo(method: str) -> tuple[Any, str, str]:
        train, validation = demo_data(method)
        return train, str(validation), ""

    def act(text: str) -> list[Any]:
        wanted = Meta.read(text).set
        return [wanted.get(option, gr.skip()) for option in ACTED]

    def fetch(*values: Any) -> str:
        config, _ = data_config(form.raw(values), page)
        if config is not None:
            # A process of its own: the warm one goes on showing rows meanwhile.
            with contextlib.closing(DataWorker(services.settings, confined=True)) as worker:
                worker.call("fetch", timeout=FETCH_SECONDS, data=config.data.model_dump())
        return ""

    asked = itertools.count()

    def count(*values: Any) -> tuple[dict[str, Any], str]:
        # Numbered, because an equal answer would not be drawn and the page would go on saying that it counts.
        shown, summary = counted(form.raw(values), page)
        return {**shown, "asked": next(asked)}, summary

    def preview(*values: Any) -> dict[str, Any]:
        return row_again(form.raw(values[:-1]), page, Meta.read(values[-1]))

    def move(*values: Any) -> dict[str, Any]:
        meta = Meta.read(values[-1])
        try:
            return preview_row(form.config(form.raw(values[:-1])), services, meta)
        except StudioError as error:
            return problem_value(error.sentence, meta)

    def connect() -> None:
        # An action of a finding sets options, as the person would in the fields below it.
        targets = [form.components[option] for option in ACTED]
        validation = form.components[VALIDATION]
        files = [sources, validation]
        gr.on([add.click, path.submit], guard(add_path), [path, *files], [*files, path, problem], **QUIET)
        upload.upload(guard(take_upload), [upload, *files], [*files, problem], **QUIET)
        demo.click(guard(take_demo), form.components[METHOD], [*files, problem], **QUIET)
        findings.select(guard(act), form.meta, targets, js=WITH_META, **QUIET)
        view.select(guard(move), [*form.inputs, form.meta], view, js=WITH_META, **QUIET)
        form.count = {"fn": guard(count), "inputs": form.inputs, "outputs": [head, page.summaries["data"]]}
        form.preview = {"fn": guard(preview), "inputs": [*form.inputs, form.meta], "outputs": view}
        fetched = findings.submit(guard(fetch), form.inputs, problem, js=READING, **QUIET)
        fetched.then(**form.count, **QUIET).then(**form.preview, js=WITH_META, **QUIET)

    form.wiring.append(connect)


def counted(values: Values, page: Page) -> tuple[dict[str, Any], str]:
    """Count the whole data: what its head shows, and its summary."""
    config, wrong = data_config(values, page)
    if config is None:
        return failed("Data", wrong), "to be corrected"
    name = data_name(config)
    try:
        if waits := waits_for(config, page.services):
            absent = absent_set(config.data, page.services.settings, confined=True)
            return waiting(name, waits, bool(absent)), name
    except StudioError as error:
        return failed(name, [page.form.problem(error)["sentence"]]), f"{name} · to be corrected"
    shown = whole_count(config, page, name)
    page.services.tasks.warm(config.model.model_dump())
    return shown


def row_again(values: Values, page: Page, place: Meta) -> dict[str, Any]:
    """Return the row that the person looks at as tokens, the first one where it is gone, or why there is none."""
    first = replace(place, row=1, source=0)
    config, _ = data_config(values, page)
    if config is None:
        return problem_value("There is no row to show yet.", first)
    try:
        if waits_for(config, page.services):
            return problem_value("The tokens can be shown as soon as model and data are here.", first)
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
    """Count the data as a run would; where a run would refuse it, show the files as they are and say why."""
    try:
        report = page.services.data.call(
            "lengths", data=config.data.model_dump(), method=config.method.model_dump(),
            model=config.model.model_dump(), seed=config.training.seed,
        )["report"]  # fmt: skip
    except StudioError as error:
        return refused(config, page, name, error), f"{name} · to be corrected"
    rows = report["train_rows"] + report["validation_rows"]
    shown = {
        "name": name,
        "state": f"ready for {config.method.name.upper()}",
        "level": "ok",
        "counts": counts(rows, report["tokens"], report["supervised_tokens"]),
        "sources": [source_value(one) for one in report["sources"]],
        "lengths": report["lengths"],
        "split": {"train": report["train_rows"], "validation": report["validation_rows"]},
        "findings": [finding_value(one, report["lengths"]) for one in report["findings"]] or [NOTHING_FOUND],
    }
    return shown, f"{name} · {rows:,} rows"


def counts(rows: int, tokens: int, supervised: int) -> str:
    """How much there is, in one line."""
    return f"{rows:,} row{'' if rows == 1 else 's'} · {tokens:,} tokens, {supervised:,} of them trained on"


NOTHING_FOUND = {"level": "good", "label": "0", "text": "over-long rows, equal rows, broken or empty answers"}


def refused(config: RunConfig, page: Page, name: str, error: StudioError) -> dict[str, Any]:
    """What is shown of data that a run would refuse: its figures where they can be had, and what to do."""
    shown = failed(name, [page.form.problem(one)["sentence"] for one in getattr(error, "errors", [error])])
    model, data = config.model.model_dump(), config.data
    for source in data.train:
        try:
            one = page.services.data.call(
                "inspect", path=source.path, format=source.format, options=source.model_dump(), data=data.model_dump(),
                model=model, max_length=data.max_length, method=config.method.model_dump(),
            )  # fmt: skip
        except StudioError:
            shown["sources"].append(None)  # its sentence is among the findings already
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
                    "fix": "Now: refused. Raise the limit, leave them out, or cut them.",
                    "actions": length_actions(longest["longest"]),
                }
            ]
    return shown


def length_actions(longest: int) -> list[dict[str, Any]]:
    """The three ways out of over-long rows, as buttons that set the options."""
    return [
        {"label": f"Raise the limit to {longest:,}", "set": {LIMIT: longest}},
        {"label": "Leave them out", "set": {TRUNCATION: "drop"}},
        {"label": "Cut them", "set": {TRUNCATION: "cut"}},
    ]


def failed(name: str, sentences: list[str]) -> dict[str, Any]:
    """What is shown of data that cannot be used at all."""
    return {
        "name": name, "state": "to be corrected", "level": "bad", "counts": "", "sources": [], "lengths": None,
        "split": None,
        "findings": [{"level": "error", "label": "wrong", "text": text, "fix": ""} for text in sentences],
    }  # fmt: skip


def waiting(name: str, why: str, data: bool) -> dict[str, Any]:
    """What is shown while the model, and so its tokenizer, is not here, or a set of the Hub (`data`) is not."""
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
        "actions": length_actions(lengths["longest"])[:1] if long else [],
    }


def source_value(source: dict[str, Any]) -> dict[str, Any]:
    """What the list of files shows beside a path."""
    words = ("format", "reason", "rows", "file", "kept")
    return {word: source[word] for word in words if word in source}


def preview_row(config: RunConfig, services: Services, place: Meta) -> dict[str, Any]:
    """Ask the worker for a row of one of the sources, with what the two answers of a pair have in common."""
    answer = services.data.call(
        "diff", row=place.row, source=place.source, data=config.data.model_dump(), method=config.method.model_dump(),
        model=config.model.model_dump(),
    )  # fmt: skip
    return row_value(answer, place, [short_name(one.path) for one in sources_of(config.data)])


def source_options() -> dict[str, Any]:
    """What the list of files is told of a source's options: the formats, and the others as the schema has them."""
    specs = {spec.name: spec for spec in options_of(DataSource)}
    fields = [
        {"name": name, "title": spec.title, "help": spec.help + (f" ({spec.unit})" if spec.unit else "")}
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
