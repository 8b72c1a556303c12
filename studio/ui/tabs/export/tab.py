"""The Export tab: a run becomes GGUF files, one checkpoint or an adapter, each proven and put where it is wanted.

The handlers only write a job; the report below the form follows it by our own routes. "Chat with it" opens the
Chat tab with the file at the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import gradio as gr

from studio.config.describe import options_of
from studio.config.jobs import DEMO_TEST, DESTINATIONS, SERVERS, Destination, ExportConfig, GgufType, made_for
from studio.config.load import build as build_config
from studio.errors import InputError
from studio.export.adapter import require_exportable
from studio.export.delivery.wishes import settled
from studio.export.proof.gates import TYPES
from studio.export.source import Source, open_source, source_of
from studio.foreign import as_path
from studio.jobs import JobFolder, submit
from studio.models.catalog.names import known_models
from studio.ui.components.choices import heading, text_line
from studio.ui.components.selected import (
    exports_of,
    is_elsewhere,
    jobs_of,
    require_model,
    rows_choices,
    rows_path,
    selected_model,
    selected_run,
)
from studio.ui.errors import guard
from studio.ui.page import QUIET, Page
from studio.ui.tabs.chat.targets import export_key, served_key, short_name
from studio.ui.tabs.export import merge
from studio.ui.tabs.export.checkpoint import RESULT, checkpoint_choice
from studio.ui.tabs.export.delivery import DeliveryFields, placed
from studio.ui.tabs.export.report import TITLES, empty_sentence, export_report, model_value, report_value, types_of

NO_ROWS, RUN = ("No rows", ""), ("The selected run", "")
SOURCE_HELP = (
    "The run that is selected at the left, a model of this computer, or a folder: a Hugging Face checkpoint or a PEFT "
    "adapter."
)
STARTS = {
    "gguf": "Export to GGUF", "ollama": "Export to Ollama", "llama-server": "Export for llama.cpp",
    "lmstudio": "Export to LM Studio", "gguf-lora": "Export GGUF adapter", "merged": "Export checkpoint",
    "adapter": "Export adapter", "vllm": "Export for vLLM", "sglang": "Export for SGLang", "tgi": "Export for TGI",
    "hub": "Upload to the Hub", "folder": "Export to a folder",
}  # fmt: skip
# The types by where they stand: those that most people choose first.
SMALL = [kind for kind in get_args(GgufType) if kind.startswith("iq")]
OLDER = [kind for kind in get_args(GgufType) if kind in ("q5_0", "q3_k_l", "q3_k_s")]
USUAL = [kind for kind in get_args(GgufType) if kind not in (*SMALL, *OLDER)]
SMALL_HELP = (
    "Rounded with an importance matrix of the training rows, or of the rows below. Making one takes several times as "
    "long as a usual type; with two bits and less, answers get worse visibly."
)
IMATRIX = {"auto": "Automatic", "on": "For all types", "off": "None"}
SIZES = [(f"{size:g} GB", f"{size:g}") for size in (0.5, 1, 2, 5, 10)]


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
            with gr.Column(elem_classes=["card-block"], elem_id="export-from"):
                self.source = gr.Dropdown(
                    [RUN], value="", allow_custom_value=True, label="What is exported", info=SOURCE_HELP,
                    interactive=True, elem_id="export-source", elem_classes=["field"],
                )  # fmt: skip
            self.empty = text_line(empty, "export-empty", look="export-empty")
            with gr.Column(elem_classes=["card-block"], elem_id="export-form", visible=False) as self.form:
                heading("Export", "each compared with the model that it is made of")
                self.to = gr.Radio(
                    [(TITLES[word], word) for word in specs["to"].choices], value=specs["to"].default,
                    label=specs["to"].title, info=about("gguf"), interactive=True, elem_id="export-to",
                    elem_classes=["field"],
                )  # fmt: skip
                self.delivery = DeliveryFields(specs)
                usual = specs["types"]
                self.types = self._group("types", USUAL, usual.title, usual.help, usual.default)
                with gr.Accordion("More types, importance matrix", open=False, elem_id="export-more") as self.more:
                    self.small = self._group("small", SMALL, "Smaller types", SMALL_HELP)
                    self.older = self._group(
                        "older", OLDER, "Other types", "An older one, and the neighbors of Q3_K_M."
                    )
                    self.imatrix = gr.Radio(
                        [(IMATRIX[word], word) for word in specs["imatrix"].choices], value=specs["imatrix"].default,
                        label=specs["imatrix"].title, info=specs["imatrix"].help, interactive=True,
                        elem_id="export-imatrix", elem_classes=["field"],
                    )  # fmt: skip
                    self.divided = gr.Textbox(
                        label=f"{specs['shard_size'].title} (GB)", info=specs["shard_size"].help, value="",
                        placeholder="one file", interactive=True, elem_id="export-divided", elem_classes=["field"],
                    )  # fmt: skip
                with gr.Row(elem_classes=["export-row"], elem_id="export-merged", visible=False) as self.merged:
                    self.dtype = gr.Dropdown(
                        list(specs["dtype"].choices), value=specs["dtype"].default, label=specs["dtype"].title,
                        info=specs["dtype"].help, interactive=True, elem_id="export-dtype", elem_classes=["field"],
                    )  # fmt: skip
                    self.shard = gr.Dropdown(
                        SIZES, value=f"{specs['shard_gb'].default:g}", label=f"{specs['shard_gb'].title} (GB)",
                        info=specs["shard_gb"].help, allow_custom_value=True, interactive=True,
                        elem_id="export-shard", elem_classes=["field"],
                    )  # fmt: skip
                with gr.Row(elem_classes=["export-row"], elem_id="export-served", visible=False) as self.served:
                    self.serve = gr.Radio(
                        [("Merged checkpoint", "merged"), ("Adapter", "adapter")], value=specs["serve"].default,
                        label=specs["serve"].title, info=specs["serve"].help, interactive=True,
                        elem_id="export-serve", elem_classes=["field"],
                    )  # fmt: skip
                self.context = gr.Textbox(
                    label=f"{specs['context'].title} (tokens)", info=specs["context"].help,
                    value=str(specs["context"].default), interactive=True, visible=False, elem_id="export-context",
                    elem_classes=["field"],
                )  # fmt: skip
                self.base = gr.Textbox(
                    label=specs["base"].title, info=specs["base"].help, placeholder="as it was trained from",
                    interactive=True, visible=False, elem_id="export-base", elem_classes=["field"],
                )  # fmt: skip
                self.checkpoint = gr.Dropdown(
                    [RESULT], value="", label=specs["checkpoint"].title, info=specs["checkpoint"].help,
                    interactive=True, visible=False, elem_id="export-checkpoint", elem_classes=["field"],
                )  # fmt: skip
                with gr.Row(elem_classes=["export-row"]):
                    self.rows = gr.Dropdown(
                        [NO_ROWS, ("Demo test rows", DEMO_TEST)], value="", label="Check exact match on rows",
                        info=specs["evaluate"].help, allow_custom_value=True, interactive=True, scale=3,
                        elem_id="export-rows", elem_classes=["field"],
                    )  # fmt: skip
                    self.start = gr.Button(
                        STARTS["gguf"], variant="primary", scale=0, min_width=160, elem_id="export-start"
                    )
            self.report = export_report(report_value(page.services, None))
            merge.build(page)
        fresh = [self.empty, self.form, self.rows, self.checkpoint, self.report, page.summaries["export"]]
        now = [self.report, self.checkpoint]
        asked, shown = [page.job, *now], [self.source, *fresh]
        gr.on(page.selections, guard(self.select), asked, shown, trigger_mode="multiple", **QUIET)
        shown = [page.job, self.source, *now]
        self.source.change(guard(self.refresh), shown, fresh, trigger_mode="always_last", **QUIET)
        self.report.refresh(guard(self.refresh), shown, fresh, **QUIET)
        chat = page.chat

        def chat_with(job_id: str, event: gr.EventData, request: gr.Request) -> list[Any]:
            return chat.open_with(job_id, chat_key(event), request)

        self.report.chat(guard(chat_with), page.job, chat.opened, **QUIET)
        shown = [self.to, self.types, self.more, self.merged, self.served, self.context, self.base, self.start]
        chosen = [self.to, self.serve, self.delivery.what]
        gr.on([one.change for one in chosen], guard(self.choose), chosen, shown, **QUIET)
        # Of two handlers of one event only one may wait for the last change (gradio would repeat both without end).
        self.to.change(
            guard(self.delivery.show), self.to, self.delivery.shown, trigger_mode="multiple", **QUIET
        )  # fmt: skip
        asked = [
            page.job, self.types, self.rows, self.to, self.dtype, self.shard, self.base, self.serve, self.context,
            self.checkpoint, self.small, self.older, self.imatrix, *self.delivery.inputs,
        ]  # fmt: skip
        self.start.click(
            guard(self.queue_export),
            [self.source, self.divided, *asked],
            [self.report, page.summaries["export"], page.job],
            **QUIET,
        )

    def _group(
        self, name: str, kinds: Sequence[str], title: str, about: str, chosen: Sequence[str] = ()
    ) -> gr.CheckboxGroup:
        return gr.CheckboxGroup(
            [(type_label(kind), kind) for kind in kinds], value=list(chosen), label=title, info=about, interactive=True,
            elem_id=f"export-{name}", elem_classes=["field", "export-group"],
        )  # fmt: skip

    def choose(self, to: Destination, serve: str, what: str | None = None) -> dict[Any, Any]:
        """Show what a destination asks for, by component.

        Args:
            to: destination.
            serve: what a server is given: merged or adapter.
            what: what is put there, where it is a place.
        """
        kind = made_for(to, what)
        alone = kind == "adapter" or (to in SERVERS and serve == "adapter")
        return {
            self.to: gr.Radio(info=about(to)),
            self.types: gr.CheckboxGroup(visible=_reads(kind, "types")),
            self.more: gr.Accordion(visible=_reads(kind, "types")),
            self.merged: gr.Row(visible=_reads(kind, "dtype") and not alone),
            self.served: gr.Row(visible=_reads(kind, "serve")),
            self.context: gr.Textbox(visible=_reads(kind, "context")),
            self.base: gr.Textbox(visible=alone),
            self.start: gr.Button(STARTS[to]),
        }

    def select(self, job_id: str, *now: Any) -> list[Any]:
        """Show what is exported where a job is selected: its run, or the model of which it is an export."""
        model = selected_model(self.settings, job_id)
        models = [(f"{short_name(one.name)} · model", one.name) for one in known_models(self.settings) if one.ready]
        return [gr.Dropdown(choices=[RUN, *models], value=model), *self.refresh(job_id, model, *now)]

    def refresh(
        self, job_id: str, source: str | None = None, report: Any = None, checkpoint: str | None = None
    ) -> list[Any]:
        """Show the form and the exports of the selected run, or of a model.

        Args:
            job_id: of the selected job; empty for none.
            source: name or folder of the model, as typed; None or empty for the run.
            report, checkpoint: what the page shows of them now.
        """
        if model := (source or "").strip():
            return [
                gr.HTML(value="", visible=False), gr.Column(visible=True),
                gr.Dropdown(choices=[NO_ROWS, *rows_choices(self.settings, None, DEMO_TEST)]),
                checkpoint_choice(None, report, checkpoint),
                model_value(self.page.services, self._id(model), job_id),
                self._summary(exports_of(self.page.services, self._id(model))),
            ]  # fmt: skip
        run = selected_run(self.settings, job_id)
        empty = empty_sentence(run)
        return [
            gr.HTML(value=empty, visible=bool(empty)),
            gr.Column(visible=not empty),
            gr.Dropdown(choices=[NO_ROWS, *rows_choices(self.settings, run, DEMO_TEST)]),
            checkpoint_choice(run, report, checkpoint),
            report_value(self.page.services, run),
            self._summary(jobs_of(self.page.services, run, "export") if run is not None else []),
        ]

    def queue_export(self, source: str | None, divided: str | None, job_id: str, *asked: Any) -> list[Any]:
        """Queue an export of the selected run, or of a model, and show it; that of a model is selected in the list.

        Args:
            source: name or folder of the model, as typed; None or empty for the run.
            divided: as `_queued`.
            job_id: of the selected job; empty for none.
            asked: as `submit`.
        """
        model = (source or "").strip()
        if not model:
            return [*self.submit(job_id, *asked, divided=divided), gr.skip()]
        job = self._queued(open_source(self.settings, model, None), *asked, divided=divided)
        found = exports_of(self.page.services, str(job.request.config["run"]))
        return [gr.skip(), self._summary(found), job.id]

    def submit(self, job_id: str, *asked: Any, **named: Any) -> list[Any]:
        """Queue an export of the selected run and show it.

        Args:
            job_id: of a completed run.
            asked, named: values of the fields, as `_queued`.
        """
        run = require_model(self.settings, job_id)
        if is_elsewhere(run):
            raise InputError(f"the model of '{run.name}' is at OpenAI", fix="Export a run that was trained here")
        self._queued(source_of(run), *asked, **named)
        return [report_value(self.page.services, run), self._summary(jobs_of(self.page.services, run, "export"))]

    def _queued(
        self, source: Source, types: list[str], rows: str | None, to: str = "gguf", dtype: str = "auto",
        shard: str = "1", base: str | None = None, serve: str = "merged", context: str | None = None,
        checkpoint: str | None = None, small: list[str] | None = None, older: list[str] | None = None,
        imatrix: str = "auto", *delivery: Any, divided: str | None = None,
    ) -> JobFolder:  # fmt: skip
        """Queue an export.

        Args:
            source: what is exported.
            types: GGUF types, such as q4_k_m.
            rows: file on which each exported model answers too; None or empty for none.
            to: destination.
            dtype: precision of a checkpoint.
            shard: maximum GB of one of its files, as typed.
            base: name of an adapter's base model; None (a hidden field) or empty for that of the run.
            serve: what a server is given: merged or adapter.
            context: maximum tokens of a conversation on a server, as typed; None (a hidden field) or empty for auto.
            checkpoint: step of one of the run's checkpoints; None (a hidden field) or empty for its result.
            small, older: more GGUF types; None where the field is hidden.
            imatrix: for which types an importance matrix is used.
            delivery: values of the fields of a place.
            divided: maximum GB of a GGUF file, as typed; None (a hidden field) or empty for one file.
        """
        place = placed(to, delivery)
        asked = {"run": source.origin.id, "to": to, "evaluate": rows_path(self.settings, rows) if rows else None}
        asked["checkpoint"] = checkpoint or None
        given = {
            "types": [kind for group in (types, small, older) for kind in group or []], "imatrix": imatrix,
            "shard_size": (divided or "").strip() or None, "dtype": dtype, "shard_gb": shard, "serve": serve,
            "base": (base or "").strip() or None, "context": (context or "").strip() or "auto",
        }  # fmt: skip
        kind = made_for(to, place.get("what"))
        own = {name: value for name, value in given.items() if _reads(kind, name)}
        config = build_config(ExportConfig, asked | place | own)
        if config.checkpoint is not None:
            source = open_source(self.settings, source.origin.id, config.checkpoint)
        require_exportable(source, config)
        config = settled(config, source, self.settings)
        return submit(self.settings, "export", source.origin.name, config.model_dump(mode="json"))

    def _id(self, model: str) -> str:
        """What exports of a model keep of it: the path of a folder, or the name as it is."""
        path = as_path(model)
        return str(path.absolute()) if path.is_absolute() else model

    def _summary(self, jobs: list[JobFolder]) -> str:
        if not jobs:
            return "nothing yet"
        state = jobs[0].state()
        words = "" if state.status == "completed" else f": {state.status}" if state.final else ": being made"
        return f"{types_of(jobs[0])}{words}"


def _reads(to: str, option: str) -> bool:
    """Whether a destination has a use for an option."""
    spec = next(spec for spec in options_of(ExportConfig) if spec.path == option)
    return spec.needs is None or to in spec.needs[1]


def about(to: Destination) -> str:
    """What is made for a destination, as a sentence."""
    made = DESTINATIONS[to]
    return f"{made[0].upper()}{made[1:]}."


def chat_key(event: gr.EventData) -> str:
    """Key of the chat target that the browser names by job and file, or by the job whose export is on a server."""
    if getattr(event, "served", False):
        return served_key(str(getattr(event, "job", "")))
    return export_key(str(getattr(event, "job", "")), str(getattr(event, "file", "")))


def type_label(kind: str) -> str:
    """What a type is called in the list: 'Q4_K_M · 4.9 bits'."""
    return f"{kind.upper()} · {TYPES[kind].bits:g} bits"
