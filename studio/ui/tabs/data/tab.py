"""Data tab: the files, a row as the model sees it, how long rows are, what was found, and the split.

What is shown of them comes from `studio.ui.tabs.data.values`. A file that cannot be used is a finding with its
sentence, not a failure: what was chosen stays as it was.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import gradio as gr

from studio.data.worker.client import DataWorker
from studio.errors import InputError, StudioError
from studio.ui.components.choices import markup, piece
from studio.ui.errors import guard
from studio.ui.form.meta import READING, WITH_META, Meta
from studio.ui.form.planline import plan_line
from studio.ui.form.schema import METHOD, TRAIN, field_id
from studio.ui.page import QUIET, Page
from studio.ui.tabs.data.files import UPLOAD_BYTES, UPLOADED, demo_data, joined, keep_upload, named_source
from studio.ui.tabs.data.firstbatch import batch_card
from studio.ui.tabs.data.keep import keep_card
from studio.ui.tabs.data.lengths import length_chart
from studio.ui.tabs.data.profile import profile_card
from studio.ui.tabs.data.push import push_card
from studio.ui.tabs.data.tokens import problem_value, token_view
from studio.ui.tabs.data.values import (
    LIMIT,
    TRUNCATION,
    acted,
    counted,
    data_config,
    preview_row,
    row_again,
    source_options,
)

VALIDATION = "data.validation"
ACTED = (LIMIT, TRUNCATION, METHOD)
HEAD = """
<div class="studio row-flex wrap-flex head"><h2 class="data-name">Data</h2><span class="data-state pill">reading</span>
<span class="data-counts muted num" role="status"></span></div>
"""
SOURCES = f"""
<div class="studio" data-upload-bytes="{UPLOAD_BYTES}"><table aria-label="Files">
<thead><tr><th>File</th><th>Format</th><th class="num">Rows</th><th><span class="sr">Remove</span></th></tr></thead>
<tbody></tbody></table>
<p class="sources-empty muted">No file yet: upload one, enter its path, or use the demo.</p></div>
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
                        "", label="Path or dataset", placeholder="/path/to/rows.jsonl or org/name", show_label=False,
                        lines=1, max_lines=1, elem_id="data-path", interactive=True, scale=3,
                    )  # fmt: skip
                    add = gr.Button("Add", elem_id="data-add", size="sm", scale=0, min_width=70)
                with gr.Row(elem_classes=["add-data"]):
                    upload = gr.UploadButton(
                        "Upload a file", file_types=UPLOADED, file_count="single", type="filepath",
                        elem_id="data-upload", size="sm",
                    )  # fmt: skip
                    demo = gr.Button("Use the demo dataset", elem_id="data-demo", size="sm")
                    only = gr.Button("", visible=False, elem_id="data-only", size="sm")
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
    form.lines.append(plan_line(form))

    def alone(files: list[dict[str, Any]], path: str) -> Any:
        """The button that leaves only a file, where others are there."""
        return gr.Button(f"Use only {Path(path).name}", visible=len(files) > 1)

    def leave(current: list[dict[str, Any]]) -> tuple[Any, Any]:
        return current[-1:], gr.Button(visible=False)

    def add_path(text: str, current: list[dict[str, Any]], validation: str) -> tuple[Any, ...]:
        if not text.strip():
            fix = "Enter a file, a folder, dataset_info.json:NAME, or org/name of a Hub dataset"
            raise InputError("the path is empty", where="Path or dataset", fix=fix)
        try:
            path = named_source(text, services.settings)
        except StudioError as error:
            return gr.skip(), gr.skip(), gr.skip(), error.sentence, gr.skip()
        files, validation = joined(current, validation, path)
        return files, validation, "", "", alone(files, path)

    def take_upload(file: str, current: list[dict[str, Any]], validation: str) -> tuple[Any, ...]:
        try:
            path = str(keep_upload(Path(file), services.settings))
        except InputError as error:
            return gr.skip(), gr.skip(), error.sentence, gr.skip()
        files, validation = joined(current, validation, path)
        return files, validation, "", alone(files, path)

    def take_demo(method: str) -> tuple[Any, ...]:
        train, validation = demo_data(method)
        return train, str(validation), "", gr.Button(visible=False)

    def act(current: list[dict[str, Any]] | None, text: str) -> list[Any]:
        return acted(text, current, ACTED)

    def fetch(*values: Any) -> str:
        config, _ = data_config(form.raw(values), page)
        if config is not None:
            # A process of its own: the warm one goes on showing rows meanwhile.
            with contextlib.closing(DataWorker(services.settings, confined=True)) as worker:
                try:
                    worker.call("fetch", data=config.data.model_dump())
                except StudioError as error:  # it stays beside the field until the next attempt
                    return error.sentence
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
        targets = [*(form.components[option] for option in ACTED), sources]
        validation = form.components[VALIDATION]
        files = [sources, validation]
        gr.on([add.click, path.submit], guard(add_path), [path, *files], [*files, path, problem, only], **QUIET)
        upload.upload(guard(take_upload), [upload, *files], [*files, problem, only], **QUIET)
        demo.click(guard(take_demo), form.components[METHOD], [*files, problem, only], **QUIET)
        only.click(guard(leave), sources, [sources, only], **QUIET)
        findings.select(guard(act), [sources, form.meta], targets, js=WITH_META, **QUIET)
        view.select(guard(move), [*form.inputs, form.meta], view, js=WITH_META, **QUIET)
        form.count = {"fn": guard(count), "inputs": form.inputs, "outputs": [head, page.summaries["data"]]}
        form.preview = {"fn": guard(preview), "inputs": [*form.inputs, form.meta], "outputs": view}
        fetched = findings.submit(guard(fetch), form.inputs, problem, js=READING, **QUIET)
        fetched.then(**form.count, **QUIET).then(**form.preview, js=WITH_META, **QUIET)

    form.wiring.append(connect)
