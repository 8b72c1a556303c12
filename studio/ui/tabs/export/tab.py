"""The Export tab: a run becomes GGUF files, each proven against the trained model.

The handlers only write a job; the report below the form follows it by our own routes. "Chat with it" opens the
Chat tab with the file at the right.
"""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr

from studio.config.describe import options_of
from studio.config.jobs import DEMO_TEST, ExportConfig, GgufType
from studio.config.load import build as build_config
from studio.export.proof.gates import TYPES
from studio.jobs import JobFolder, submit
from studio.ui.components.choices import heading, text_line
from studio.ui.components.selected import jobs_of, require_model, rows_choices, rows_path, selected_run
from studio.ui.errors import guard
from studio.ui.page import QUIET, Page
from studio.ui.tabs.export.report import empty_sentence, export_report, report_value, types_of

NO_ROWS = ("No rows", "")


def build(page: Page) -> None:
    """Build the tab."""
    ExportTab(page)


class ExportTab:
    """The tab's components and handlers."""

    def __init__(self, page: Page) -> None:
        self.page, self.settings = page, page.services.settings
        specs = {spec.path: spec for spec in options_of(ExportConfig)}
        empty = empty_sentence(None)
        with gr.Column(elem_id="export"):
            self.empty = text_line(empty, "export-empty", look="export-empty")
            with gr.Column(elem_classes=["card-block"], elem_id="export-form", visible=False) as self.form:
                heading("Export to GGUF", "for llama.cpp, Ollama and LM Studio")
                self.types = gr.CheckboxGroup(
                    [(type_label(kind), kind) for kind in get_args(GgufType)], value=specs["types"].default,
                    label=specs["types"].title, info=specs["types"].help, interactive=True, elem_id="export-types",
                    elem_classes=["field"],
                )  # fmt: skip
                with gr.Row(elem_classes=["export-row"]):
                    self.rows = gr.Dropdown(
                        [NO_ROWS, ("Demo test rows", DEMO_TEST)], value="", label="Check exact match on rows",
                        info=specs["evaluate"].help, allow_custom_value=True, interactive=True, scale=3,
                        elem_id="export-rows", elem_classes=["field"],
                    )  # fmt: skip
                    self.start = gr.Button(
                        "Export to GGUF", variant="primary", scale=0, min_width=160, elem_id="export-start"
                    )
            self.report = export_report(report_value(page.services, None))
        fresh = [self.empty, self.form, self.rows, self.report, page.summaries["export"]]
        gr.on(None, guard(self.refresh), page.job, fresh, trigger_mode="multiple", **QUIET)
        self.report.refresh(guard(self.refresh), page.job, fresh, **QUIET)
        chat = page.chat

        def chat_with(job_id: str, event: gr.EventData, request: gr.Request) -> list[Any]:
            return chat.open_with(job_id, gguf_key(event), request)

        self.report.chat(guard(chat_with), page.job, chat.opened, **QUIET)
        self.start.click(
            guard(self.submit), [page.job, self.types, self.rows], [self.report, page.summaries["export"]], **QUIET
        )

    def refresh(self, job_id: str) -> list[Any]:
        """Show the form and the exports of the selected run."""
        run = selected_run(self.settings, job_id)
        empty = empty_sentence(run)
        return [
            gr.HTML(value=empty, visible=bool(empty)),
            gr.Column(visible=not empty),
            gr.Dropdown(choices=[NO_ROWS, *rows_choices(self.settings, run, DEMO_TEST)]),
            report_value(self.page.services, run),
            self._summary(run),
        ]

    def submit(self, job_id: str, types: list[str], rows: str | None) -> list[Any]:
        """Queue an export of the selected run and show it.

        Args:
            job_id: of a completed run.
            types: GGUF types, such as q4_k_m.
            rows: file on which each exported model answers too; None or empty for none.
        """
        run = require_model(self.settings, job_id)
        asked = {
            "run": run.id, "types": types, "evaluate": rows_path(self.settings, rows) if rows else None
        }  # fmt: skip
        config = build_config(ExportConfig, asked)
        submit(self.settings, "export", run.request.name, config.model_dump(mode="json"))
        return [report_value(self.page.services, run), self._summary(run)]

    def _summary(self, run: JobFolder | None) -> str:
        jobs = jobs_of(self.page.services, run, "export") if run is not None else []
        if not jobs:
            return "nothing yet"
        state = jobs[0].state()
        words = "" if state.status == "completed" else f": {state.status}" if state.final else ": being made"
        return f"{types_of(jobs[0])}{words}"


def gguf_key(event: gr.EventData) -> str:
    """Key of the chat target that the browser names by job and file; it is looked up, never joined to a path."""
    return f"gguf/{getattr(event, 'job', '')}/{getattr(event, 'file', '')}"


def type_label(kind: str) -> str:
    """What a type is called in the list: 'Q4_K_M · 4.9 bits'."""
    return f"{kind.upper()} · {TYPES[kind].bits:g} bits"
