"""The Model tab's way to OpenAI: rows are checked and priced, and sent once the price was pressed.

The button that starts names the price; it appears with a check and goes with any change of the fields. What comes of
it is a job in the list, followed in the Training tab.
"""

from __future__ import annotations

import datetime
from typing import Any

import gradio as gr

from studio.config.describe import options_of
from studio.config.load import build as build_config
from studio.config.remote import PREFIX, OpenAIConfig
from studio.errors import InputError, StudioError
from studio.jobs.store.folder import free_name
from studio.remote.asking import adopt, start
from studio.remote.checking import check
from studio.remote.prepare import Checked, dollars
from studio.remote.table import read_table
from studio.settings import Settings
from studio.ui.components.choices import text_line
from studio.ui.components.selected import rows_choices, rows_path
from studio.ui.errors import guard
from studio.ui.page import QUIET, Page

TRAIN_ROWS = "demo/train.jsonl"
CHECK = "Check and show the price"
_FIELDS = ("model", "data", "validation_share", "method", "n_epochs", "suffix")
_MORE = ("validation", "batch_size", "learning_rate_multiplier", "beta", "grader", "seed")
NO_ROWS = ("No file", "")


def build(page: Page) -> None:
    """Build the section; called inside the Model tab."""
    RemoteCard(page)


class RemoteCard:
    """The section's components and handlers."""

    def __init__(self, page: Page) -> None:
        specs = self.specs = {spec.path: spec for spec in options_of(OpenAIConfig)}
        self.settings = page.services.settings

        def about(name: str) -> dict[str, Any]:
            spec = specs[name]
            shared = {"label": spec.title, "info": spec.help, "interactive": True, "min_width": 240}
            return {**shared, "elem_id": f"openai-{name}", "elem_classes": ["field"]}

        with gr.Accordion("Train at OpenAI", open=False, elem_id="openai"):
            self.note = text_line(told_of(self.settings), "openai-note", look="muted")
            with gr.Row(elem_classes=["export-row"]):
                model = gr.Dropdown(
                    models_of(self.settings), value=str(specs["model"].default), allow_custom_value=True, scale=2,
                    **about("model"),
                )  # fmt: skip
                data = gr.Dropdown(
                    self.offered(), value=TRAIN_ROWS, allow_custom_value=True, scale=2, **about("data")
                )  # fmt: skip
            with gr.Row(elem_classes=["export-row"]):
                method = gr.Dropdown(list(specs["method"].choices), value="supervised", **about("method"))
                epochs = gr.Textbox("auto", **about("n_epochs"))
                share = gr.Textbox("0.1", **about("validation_share"))
            with gr.Row(elem_classes=["export-row"]):
                suffix = gr.Textbox("", **about("suffix"))
                self.name = gr.Textbox(
                    "", label="Name", placeholder="openai", interactive=True, elem_id="openai-name",
                    elem_classes=["field"],
                )  # fmt: skip
                self.check = gr.Button(CHECK, scale=0, min_width=220, elem_id="openai-check")
            with gr.Accordion("More options", open=False, elem_id="openai-more"), gr.Row(elem_classes=["export-row"]):
                more = [self._more(name, about(name)) for name in _MORE]
            self.said = text_line("", "openai-said", look="muted")
            self.go = gr.Button("Start", variant="primary", visible=False, elem_id="openai-start")
            self.checked = gr.State("")
            with gr.Row(elem_classes=["export-row"]):
                earlier = gr.Textbox("", placeholder="ftjob-…", **about("adopt"))
                follow = gr.Button("Follow it here", scale=0, min_width=160, elem_id="openai-follow")
        self.fields = [model, data, share, method, epochs, suffix, *more]
        shown = [self.said, self.go, self.checked]
        begun = self.check.click(guard(self.begin), None, shown, **QUIET)
        begun.then(guard(self.look), self.fields, shown, **QUIET)
        gr.on(
            [field.change for field in self.fields], guard(self.forget), self.fields, shown, trigger_mode="always_last",
            **QUIET,
        )  # fmt: skip
        self.go.click(guard(self.send), [self.checked, self.name, *self.fields], [*shown, page.job], **QUIET)
        limited = [field for name, field in zip(_MORE, more, strict=True) if specs[name].needs]
        # Of two handlers of one event only one may wait for the last change (gradio would repeat both without end).
        method.change(guard(self.fitting), method, limited, trigger_mode="multiple", **QUIET)
        follow.click(guard(self.follow), [earlier, self.name], [self.said, page.job], **QUIET)
        gr.on(None, guard(self.offer), page.job, [data, more[0]], **QUIET)

    def _more(self, name: str, about: dict[str, Any]) -> gr.Dropdown | gr.Textbox:
        """The field of an option that most people leave alone."""
        if name == "validation":
            return gr.Dropdown([NO_ROWS, *self.offered()], value="", allow_custom_value=True, **about)
        spec = self.specs[name]
        lines = 4 if name == "grader" else 1
        return gr.Textbox(str(spec.default or ""), lines=lines, visible=self._fits(name, "supervised"), **about)

    def _fits(self, name: str, method: str) -> bool:
        needs = self.specs[name].needs
        return needs is None or method in needs[1]

    def fitting(self, method: str) -> list[Any]:
        """Show the options that a method reads, and hide those that it does not.

        Args:
            method: supervised, dpo or reinforcement.
        """
        return [gr.Textbox(visible=self._fits(name, method)) for name in _MORE if self.specs[name].needs]

    def offer(self, job_id: str) -> list[Any]:
        """Offer the rows that there are now.

        Args:
            job_id: of the selected job; only its change matters.
        """
        rows = self.offered()
        return [gr.Dropdown(choices=rows), gr.Dropdown(choices=[NO_ROWS, *rows])]

    def follow(self, id: str, name: str) -> list[Any]:
        """Follow a job that was started elsewhere, and select it in the list.

        Args:
            id: of the job at the service.
            name: for it here; empty for the id.

        Raises:
            InputError: the service has no such job, or it is followed already.
        """
        wanted = (id or "").strip()
        if not wanted:
            raise InputError("no job is named", where="Earlier job", fix="Give its id at the service, ftjob-…")
        job = adopt(self.settings, wanted, (name or "").strip())
        return [f"'{job.name}' is followed in the Training tab.", job.id]

    def offered(self) -> list[tuple[str, str]]:
        """Labels and paths of the rows that can be sent."""
        return [("Demo training rows", TRAIN_ROWS), *rows_choices(self.settings, None, "demo/test.jsonl")]

    def begin(self) -> list[Any]:
        """Say that a check has begun, which takes a minute or more with a large file."""
        return ["Checking the rows …", gr.Button(visible=False), ""]

    def look(self, *values: Any) -> list[Any]:
        """Say what a check of the rows found, and offer the start where nothing is wrong.

        Args:
            values: of the fields.
        """
        try:
            found = self._checked(values)
        except StudioError as error:
            return [error.sentence, gr.Button(visible=False), ""]
        if found.problems:
            return [" ".join(f"{text}." for text in found.problems), gr.Button(visible=False), ""]
        closing = read_table(self.settings).closing
        return [in_words(found, closing), gr.Button(start_label(found), visible=True), found.config.key]

    def forget(self, *values: Any) -> list[Any]:
        """A field has changed: what was checked is no longer what would be sent.

        Args:
            values: of the fields.
        """
        return ["", gr.Button(visible=False), ""]

    def send(self, checked: str, name: str, *values: Any) -> list[Any]:
        """Queue the job of the rows that were checked, and select it in the list.

        Args:
            checked: key of the check whose price was shown.
            name: of the job, as typed; empty for the next free one.
            values: of the fields.

        Raises:
            InputError: the rows are others now, or were sent before.
        """
        found = self._checked(values)
        if not checked or found.config.key != checked:
            raise InputError("the rows or the options have changed since they were checked", fix=f"Press {CHECK} again")
        wanted = (name or "").strip() or free_name(self.settings.jobs, "openai")
        job = start(found, self.settings, wanted)
        return [f"'{wanted}' is queued: it is followed in the Training tab.", gr.Button(visible=False), "", job.id]

    def _checked(self, values: tuple[Any, ...]) -> Checked:
        given = {name: value.strip() if isinstance(value, str) else value
                 for name, value in zip((*_FIELDS, *_MORE), values, strict=True)}  # fmt: skip
        kept = {name: value for name, value in given.items() if value not in ("", None)}
        for name in ("data", "validation"):
            if name in kept:
                kept[name] = rows_path(self.settings, kept[name])
        return check(build_config(OpenAIConfig, kept), self.settings)


def models_of(settings: Settings) -> list[tuple[str, str]]:
    """Labels and words of the models in the table; without them where the table is damaged."""
    try:
        known = read_table(settings).models
    except StudioError:
        return []
    return [(f"{one.name} · {', '.join(one.methods)}", f"{PREFIX}{one.name}") for one in known]


def told_of(settings: Settings) -> str:
    """What to know before: where rows go, what the service says of its end, how old the prices are."""
    first = "The rows are sent to OpenAI, it costs money, and the tuned model stays there."
    try:
        table = read_table(settings)
    except StudioError as error:
        return f"{first} {error.sentence}"
    closing = f"{table.closing}. " if table.closing else ""
    return f"{first} {closing}{table.age(datetime.datetime.now().date())}"


def in_words(found: Checked, closing: str = "") -> str:
    """What a check found, as one text.

    Args:
        found: by the check.
        closing: a warning that stands above already.
    """
    held = f" and {found.validation_rows:,} for validation" if found.validation_rows else ""
    size = f"{found.rows:,} rows{held} for {found.config.name}"
    return " ".join([f"{size}: {found.cost()}", *(f"{text}." for text in found.warnings if text != closing)])


def start_label(found: Checked) -> str:
    """What the button says that sends the rows: how many, and the price."""
    rows = found.rows + found.validation_rows
    price = "price unknown" if found.price is None else dollars(found.price)
    if found.hour is not None:
        price = f"${found.hour:,.2f} an hour"
    return f"Send {rows:,} rows and start ({price})"
