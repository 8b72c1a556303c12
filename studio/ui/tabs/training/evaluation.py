"""The evaluation card of the Training tab: start an evaluation of the selected run and see what it found.

The handlers only write a job and say which evaluations there are; progress and report come to the browser from
our own routes (assets/training/evaluation.js), so a reload or a restart shows the same.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.config.describe import options_of
from studio.config.jobs import AUTO, DEMO_TEST, HELD_OUT, EvaluateConfig, asked_rows, compares
from studio.config.load import build as build_config
from studio.config.remote import asked_elsewhere
from studio.errors import InputError
from studio.jobs import JobFolder, submit
from studio.settings import Settings
from studio.ui.components.choices import heading
from studio.ui.components.selected import (
    has_model,
    is_elsewhere,
    jobs_of,
    require_model,
    rows_choices,
    rows_path,
    selected_run,
    when,
)
from studio.ui.errors import guard
from studio.ui.page import QUIET, Page
from studio.ui.server.services import Services
from studio.ui.server.theme import script_tags

TEMPLATE = '<div class="studio evaluation-view" role="group" aria-label="Evaluation result"></div>'
# "refresh" is the event by which the browser says that a training run has ended (see __getattr__ of gr.HTML).
ON_LOAD = "window.studioEvaluation.mount(element, props, watch, name => trigger(name)); // 'refresh'"
LIMITS = [("All rows", ""), *((f"First {count}", str(count)) for count in (10, 20, 50, 100))]
HINTS = {
    "none": "Pick a run in the list at the left.",
    "wait": "The evaluation can start when the run is done.",
    "ready": "The base model and the tuned one answer the same rows; an answer counts if it matches exactly.",
    "prefers": "Of two answers, how often do the base model and the tuned one find the better one more likely?",
    "scorer": "A reward model scores answers and writes none: its accuracy on pairs is in the chart above.",
    "empty": "This run has no model, so there is nothing to evaluate.",
}


def build(page: Page) -> None:
    """Build the card; called inside the Training tab."""
    EvaluationCard(page)


class EvaluationCard:
    """The card's components and handlers."""

    def __init__(self, page: Page) -> None:
        self.services, self.settings = page.services, page.services.settings
        specs = {spec.path: spec for spec in options_of(EvaluateConfig)}
        with gr.Column(elem_classes=["card-block", "evaluation-card"], elem_id="evaluation"):
            heading("Evaluate", "before and after")
            with gr.Row(elem_classes=["evaluation-form"]):
                self.data = gr.Dropdown(
                    [("Demo test rows", DEMO_TEST)], value=DEMO_TEST, label=specs["data"].title,
                    info=specs["data"].help, allow_custom_value=True, interactive=True, scale=3,
                    elem_id="evaluate-data", elem_classes=["field"],
                )  # fmt: skip
                # Not gr.Number, which shows 0 where it is empty.
                self.limit = gr.Dropdown(
                    LIMITS, value="", label=specs["limit"].title, info=specs["limit"].help,
                    allow_custom_value=True, interactive=True, scale=2, elem_id="evaluate-limit",
                    elem_classes=["field"],
                )  # fmt: skip
                self.start = gr.Button(
                    "Evaluate", variant="primary", scale=0, min_width=120, interactive=False, elem_id="evaluate-start"
                )
            self.view = gr.HTML(
                value=card_value(page.services, None),
                html_template=TEMPLATE,
                head=script_tags("core/follow.js", "training/evaluation.js"),
                js_on_load=ON_LOAD,
                apply_default_css=False,
                elem_id="evaluation-view",
            )
        fresh = [self.view, self.data, self.start]
        shown = [page.job, self.view]
        gr.on(page.selections, guard(self.refresh), shown, fresh, trigger_mode="multiple", **QUIET)
        self.view.refresh(guard(self.refresh), shown, fresh, **QUIET)
        self.start.click(guard(self.submit), [page.job, self.data, self.limit], self.view, **QUIET)

    def refresh(self, job_id: str, shown: Any = None) -> list[Any]:
        """Show the newest evaluation of the selected run; the rows that a person chose stay while it is the same run.

        Args:
            job_id: of the selected job; empty for none.
            shown: what the page shows now, as `card_value` returned it.
        """
        run = selected_run(self.settings, job_id)
        same = run is not None and isinstance(shown, dict) and shown.get("run") == run.id
        value: dict[str, Any] = {} if same else {"value": usual(run) or None}
        ready = run is not None and has_model(run)
        return [
            card_value(self.services, run),
            gr.Dropdown(choices=offered(self.settings, run), **value),
            gr.Button(interactive=ready),
        ]

    def submit(self, job_id: str, data: str | None, limit: str | None) -> dict[str, Any]:
        """Queue an evaluation of the selected run and show it.

        Args:
            job_id: of a completed run.
            data: file of rows with answers, or the word for the run's own; None or empty for what is usual.
            limit: first rows only, as typed; None or empty for all.

        Raises:
            InputError: nothing is chosen, and the run held out no rows.
        """
        run = require_model(self.settings, job_id)
        rows = _asked(data or AUTO, run)
        rows = rows if rows == HELD_OUT else rows_path(self.settings, rows)
        asked = {"run": run.id, "data": rows, "limit": limit or None}
        config = build_config(EvaluateConfig, asked)
        submit(self.settings, "evaluate", run.request.name, config.model_dump(mode="json"))
        return card_value(self.services, run)


def usual(run: JobFolder | None) -> str:
    """The rows that an evaluation of a run is offered first; "" where it held out none and is none of the demo's."""
    if run is None:
        return DEMO_TEST
    try:
        return _asked(AUTO, run)
    except InputError:  # it held out none
        return ""


def _asked(data: str, run: JobFolder) -> str:
    if is_elsewhere(run):
        return asked_elsewhere(data, run.request.config, run.request.name)
    return asked_rows(data, run.training, run.request.name)


def offered(settings: Settings, run: JobFolder | None) -> list[tuple[str, str]]:
    """All rows that it is offered, with their labels."""
    own = [("Validation rows of this run", HELD_OUT)] if usual(run) == HELD_OUT else []
    return [*own, *rows_choices(settings, run, DEMO_TEST)]


def card_value(services: Services, run: JobFolder | None) -> dict[str, Any]:
    """What the browser needs: which evaluations the run has, newest first, or a hint when there is none."""
    if run is None:
        return {"run": "", "waiting": "", "hint": HINTS["none"], "evaluations": []}
    final = run.state().final
    ready = "prefers" if compares(run.training) else "ready"
    hint = "scorer" if run.scores else ready if has_model(run) else "empty" if final else "wait"
    found = [{"id": job.id, "what": _what(job), "when": when(job)} for job in jobs_of(services, run, "evaluate")]
    return {"run": run.id, "waiting": "" if final else run.id, "hint": HINTS[hint], "evaluations": found}


def _what(job: JobFolder) -> str:
    config = job.request.config
    limit = config.get("limit")
    if config.get("data") == HELD_OUT:
        return f"first {limit} of the run's validation rows" if limit else "the run's validation rows"
    rows = f"first {limit} rows of {config.get('data')}" if limit else f"rows of {config.get('data')}"
    return "rows of the demo's test set" if rows == f"rows of {DEMO_TEST}" else rows
