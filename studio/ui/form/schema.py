"""The form of a run, made from the schema: a component for each option, values in, a config out.

No option is known by name here. An option that the run does not read, with its method, tuning and other values
(`reading`), stays in the document and is hidden by assets/form/form.js, without a request; `config` leaves its value
out. What a draft keeps are the raw values, so that a half-typed number survives a reload too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import Context

from studio.config import RunConfig
from studio.config.describe import OptionSpec, options_of, value_at
from studio.config.load import build
from studio.config.presets import DEMO, load_named
from studio.config.presets import METHOD as METHOD  # by these two others apply or not (`OptionSpec.applies`)
from studio.config.presets import TUNING as TUNING
from studio.config.renamed import by_current_name
from studio.errors import InputError, InputErrors, StudioError
from studio.models.catalog.available import lack
from studio.models.device.machine import device_info
from studio.settings import browser_secret
from studio.ui.components.choices import markup, piece
from studio.ui.components.selected import base_run
from studio.ui.device import offered_devices
from studio.ui.form.fields import SWITCH, from_field, is_number, to_field
from studio.ui.form.reading import reads
from studio.ui.page import Page

TRAIN = "data.train"
RADIO_UP_TO = 4
DRAFT_KEY = "finetune-studio.draft.v1"
ORIGIN_KEY = "finetune-studio.origin.v1"
FOLD = """<button type="button" class="fold" aria-expanded="false"></button>"""

Values = dict[str, Any]


class Form:
    """The components of all options of a run.

    Attributes:
        specs: the options by dotted name, in the order of declaration.
        components: the component of each option that has been placed.
        draft: what the browser keeps: {"values": {path: value}, "name": text}.
        origin: and what brought the values that nobody typed (`components.origin`).
        device: this machine, for the choices that it may not have.
        offers: good words of options whose words only the machine knows: its devices.
        start: the values that the page opens with: the demo's. `changed` compares with them.
        meta: slot of handlers for what assets/form/form.js adds to the values (`planline.Meta`).
        lines: the plan lines of the tabs.
        facts: the card of the chosen model; its `submit` says that it was downloaded.
        sweeps: pieces in which values to try are typed; the plan is made again on their `input`.
        wiring: run once every component exists, for events that take all of them as inputs.
        prepare, count, preview: handlers of the tabs (fn, inputs, outputs) that run when the page opens.
    """

    def __init__(self, page: Page) -> None:
        self.specs: dict[str, OptionSpec] = {spec.path: spec for spec in options_of(RunConfig)}
        self.components: dict[str, Component] = {}
        self.services = page.services
        self.device = device_info(page.services.settings)
        self.offers = {"training.device": offered_devices(page.services.settings)}
        with outside_tabs():
            secret = browser_secret(page.services.settings)
            self.draft = gr.BrowserState(None, storage_key=DRAFT_KEY, secret=secret)
            self.origin = gr.BrowserState(None, storage_key=ORIGIN_KEY, secret=secret)
        self.start: Values = self.raw(self.values(load_named(DEMO)))
        self.meta = gr.Textbox("", visible=False)
        self.facts: gr.HTML
        self.lines: list[gr.HTML] = []
        self.sweeps: list[gr.HTML] = []
        self.wiring: list[Callable[[], None]] = []
        self.prepare: list[dict[str, Any]] = []
        self.count: dict[str, Any] = {}
        self.preview: dict[str, Any] = {}

    # ---- components

    def of_section(self, section: str) -> list[str]:
        """Return the options of a section that are not placed yet."""
        return [path for path, spec in self.specs.items() if spec.section == section and path not in self.components]

    def place(self, paths: Iterable[str]) -> None:
        """Render a component for each option, here."""
        for path in paths:
            spec = self.specs[path]
            self.own(path, make_component(spec, self.start[path], self.lacks(spec), self.offers.get(path)))

    def place_tiers(self, paths: Iterable[str], fold_id: str) -> None:
        """Render the basic options, and the advanced ones behind a fold that says how many were changed."""
        paths = list(paths)
        advanced = [path for path in paths if self.specs[path].tier != "basic"]
        with gr.Column(elem_classes=["fields"]):
            self.place(path for path in paths if path not in advanced)
        if advanced:
            piece(FOLD, "fold", constants={"fields": [field_id(path) for path in advanced], "target": fold_id})
            groups: dict[str, list[str]] = {}
            for path in advanced:
                groups.setdefault(self.specs[path].group, []).append(path)
            with gr.Column(elem_classes=["fields", "folded"], elem_id=fold_id):
                for title, inside in groups.items():
                    if title and len(groups) > 1:
                        markup(f'<div class="studio"><h4>{title}</h4></div>')
                    self.place(inside)

    def lacks(self, spec: OptionSpec) -> dict[str, str]:
        """Say of the words of a choice that this machine cannot take what it lacks."""
        found = {word: lack(spec.path, word, self.device) for word in spec.choices}
        return {word: one.sentence for word, one in found.items() if one is not None}

    def own(self, path: str, component: Component) -> Component:
        """Take a component that was made elsewhere as the one of an option."""
        if path in self.components:
            raise ValueError(f"{path} is placed twice")
        self.components[path] = component
        return component

    @property
    def inputs(self) -> list[Component]:
        """The components in the order of `specs`: inputs and outputs of handlers."""
        return [self.components[path] for path in self.specs]

    # ---- values

    def raw(self, values: Iterable[Any]) -> Values:
        """Name the values of `inputs`."""
        return {path: _sendable(value) for path, value in zip(self.specs, values, strict=True)}

    def config(self, values: Values) -> RunConfig:
        """Turn the form's values into a config; of a run that `model.path` names it has the folder of its model.

        Raises:
            InputErrors: at least one is wrong; each error's `where` is the option's dotted name.
        """
        config = self.typed(values)
        try:
            run = base_run(self.services, config.model.path)
        except InputError as error:
            raise InputErrors([error]) from error
        if run is None:
            return config
        return config.model_copy(update={"model": config.model.model_copy(update={"path": str(run.model)})})

    def typed(self, values: Values) -> RunConfig:
        """Turn the form's values into a config, with names as they were typed.

        Raises:
            InputErrors: at least one is wrong; each error's `where` is the option's dotted name.
        """
        document: dict[str, Any] = {}
        errors: list[InputError] = []
        for path, spec in self.specs.items():
            if path not in values or not reads(self.specs, path, values):
                continue
            try:
                value = from_field(spec, values[path])
            except InputError as error:
                errors.append(error)
                continue
            target = document
            for part in spec.section.split("."):
                target = target.setdefault(part, {})
            target[spec.name] = value
        try:
            config = build(RunConfig, document)
        except InputErrors as wrong:
            # What could not be read is missing above; its default must not add a second sentence.
            errors += [error for error in wrong.errors if error.where not in {known.where for known in errors}]
        if errors:
            raise InputErrors(errors)
        return config

    def values(self, config: RunConfig) -> list[Any]:
        """Return what the components show for a config, in the order of `inputs`."""
        document = config.model_dump(mode="json")
        return [to_field(spec, value_at(document, path)) for path, spec in self.specs.items()]

    def problem(self, error: StudioError) -> dict[str, str]:
        """Return {"sentence", "field", "here"} of an error.

        An option has its label for its dotted name in the sentence, the id of its field, and at that field a sentence
        of its own, without the label.
        """
        spec = self.specs.get(error.where.rpartition(": ")[2])
        if spec is None:
            return {"sentence": error.sentence, "field": "", "here": ""}
        told = StudioError(error.what, where=spec.title, fix=error.fix)
        here = StudioError(f"{error.what[:1].upper()}{error.what[1:]}", fix=error.fix).sentence
        return {"sentence": told.sentence, "field": field_id(spec.path), "here": here}

    def restored(self, draft: Any) -> list[Any]:
        """Return the values of a draft in the order of `inputs`; options that it does not know stay as they are."""
        kept = draft.get("values") if isinstance(draft, dict) else None
        if not isinstance(kept, dict):
            return [gr.skip() for _ in self.specs]
        kept = by_current_name(kept)
        return [kept[path] if path in kept else gr.skip() for path in self.specs]

    def changed(self, values: Values) -> list[str]:
        """Return the options that are read and whose value is another than at the start."""
        return [
            path
            for path, spec in self.specs.items()
            if path in values and reads(self.specs, path, values) and not _same(spec, values[path], self.start[path])
        ]


@contextmanager
def outside_tabs() -> Iterator[None]:
    """Put components beside the tabs: gradio does not store a BrowserState of a tab that was not opened yet."""
    inside = Context.block
    Context.block = Context.root_block
    try:
        yield
    finally:
        Context.block = inside


def make_component(
    spec: OptionSpec, value: Any, lacks: dict[str, str] | None = None, offered: list[tuple[str, str]] | None = None
) -> Component:
    """Make the component of an option: its label, help with unit, choices and where it applies.

    Args:
        spec: the option.
        value: what it shows at first, in the form's terms (`to_field`).
        lacks: words of a choice that this machine cannot take; their labels say so.
        offered: (label, word) of a text for which this machine knows good words; others may be typed.
    """
    common: dict[str, Any] = {
        "label": spec.title,
        "info": linked(spec.help) + (f" ({spec.unit})" if spec.unit else ""),
        "elem_id": field_id(spec.path),
        "elem_classes": ["field", *applies_classes(spec)],
        "interactive": True,
    }
    if offered:
        return gr.Dropdown(offered, value=value, allow_custom_value=True, **common)
    if spec.kind == "choice" or (spec.kind == "flag" and spec.auto):
        words = list(spec.choices) or list(SWITCH)
        if len(words) <= RADIO_UP_TO:
            return gr.Radio(words, value=value, **common)
        labels = [f"{word} (not on this machine)" if word in (lacks or {}) else word for word in words]
        return gr.Dropdown(list(zip(labels, words, strict=True)), value=value, **common)
    if spec.kind == "words":
        return gr.CheckboxGroup(list(spec.choices), value=value, **common)
    if spec.kind == "flag":
        return gr.Checkbox(value=value, **common)
    if is_number(spec):
        # Bounds are left to the schema: gradio would refuse the whole event with a toast, we say it in the plan line.
        # So are fractions of a whole number: gradio would round them, and go on showing what was typed.
        return gr.Number(value=value, step=1 if spec.kind == "integer" else "any", **common)
    return gr.Textbox(value=value, lines=1, max_lines=1, **common)


def linked(text: str) -> str:
    """A help text whose mentions of a page of docs/ are links, in the Markdown that gradio draws."""
    return re.sub(r"docs/([a-z-]+)\.md", r"[docs/\1.md](/api/docs/\1)", text)


def field_id(path: str) -> str:
    """Id of an option's component in the document."""
    return f"f-{path.replace('.', '-')}"


def applies_classes(spec: OptionSpec) -> list[str]:
    """Classes that say where an option applies; assets/form/form.js hides it elsewhere."""
    classes = [f"for-method-{word}" for word in spec.methods] + [f"for-tuning-{word}" for word in spec.tunings]
    return classes + (["by-method"] if spec.methods else []) + (["by-tuning"] if spec.tunings else [])


def _sendable(value: Any, depth: int = 2) -> Any:
    """The value without halves of characters: it is sent back to the page, which no JSON with them can be."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list) and depth:
        return [_sendable(one, depth - 1) for one in value]
    if isinstance(value, dict) and depth:
        return {_sendable(key): _sendable(one, depth - 1) for key, one in value.items()}
    return value


def _same(spec: OptionSpec, value: Any, other: Any) -> bool:
    try:
        return bool(from_field(spec, value) == from_field(spec, other))
    except InputError:
        return False
