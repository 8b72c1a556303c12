"""Method tab: what is taught, which of the model's numbers change, the settings, the memory, and the run as a file.

The last of the set-up tabs, so it also connects the form with the plan line (`planline.wire`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.config import RunConfig
from studio.config.describe import OptionSpec
from studio.config.load import dump_run, load_run
from studio.config.presets import load_named, preset_names
from studio.errors import InputErrors, StudioError
from studio.methods import METHODS
from studio.models.catalog.available import ENGINE
from studio.tunings import TUNINGS
from studio.ui.components.choices import choice_cards, markup, piece
from studio.ui.errors import guard
from studio.ui.form.origin import known, origin_of, switched
from studio.ui.form.planline import memory_bar, plan_line, wire
from studio.ui.form.schema import METHOD, TUNING, Form, applies_classes, field_id
from studio.ui.page import QUIET, Page
from studio.ui.tabs.method.interop import InteropCard
from studio.ui.tabs.method.rewardcode import reward_code
from studio.ui.tabs.method.sweep import sweep_rows

FILE = """
<div class="studio yaml">
  <div class="row-flex wrap-flex">
    <button type="button" class="yaml-show btn small" aria-expanded="false">Show as YAML</button>
    <span class="yaml-said muted" role="status"></span></div>
  <ul class="yaml-problem wrong" role="alert"></ul>
  <div class="yaml-body" hidden>
    <div class="row-flex wrap-flex"><span class="muted">The same run without a browser: studio train run.yaml</span>
      <span class="grow"></span><button type="button" class="yaml-copy btn small">Copy</button>
      <button type="button" class="yaml-save btn small">Download</button></div>
    <pre class="yaml-text log" tabindex="0" role="region" aria-label="The run as YAML"></pre>
  </div>
</div>
"""
HEADINGS = {
    "settings": '<div class="studio row-flex wrap-flex"><h3>Settings</h3><span class="grow"></span>'
    '<span class="muted">the defaults work</span></div>',
    "sweep": '<div class="studio row-flex wrap-flex"><h3>Hyperparameter sweep</h3><span class="grow"></span>'
    '<span class="muted">one run for each combination of values</span></div>',
    "file": '<div class="studio"><h3>Run as a file</h3></div>',
}
YAML_BYTES = 1_000_000
ENGINES = {"studio": "Studio", "unsloth": "Unsloth"}


def build(page: Page) -> None:
    """Build the tab."""
    form = page.form
    with gr.Column(elem_classes=["card-block"]):
        markup('<div class="studio"><h3>Training method</h3></div>')
        form.own(METHOD, option_cards(form.specs[METHOD], form.start[METHOD]))
        form.place_tiers(form.of_section("method"), "method-advanced")
        reward_code()
    with gr.Column(elem_classes=["card-block"]):
        markup('<div class="studio"><h3>Tuning</h3></div>')
        form.own(TUNING, option_cards(form.specs[TUNING], form.start[TUNING]))
    with gr.Column(elem_classes=["card-block"]):
        markup(HEADINGS["settings"])
        engine_cards(form)
        form.place_tiers([*form.of_section("tuning"), *form.of_section("training")], "settings-advanced")
    with gr.Column(elem_classes=["card-block"], elem_id="sweep-card"):
        markup(HEADINGS["sweep"])
        form.sweeps.append(sweep_rows(form.specs))
    memory_bar()
    with gr.Column(elem_classes=["card-block"]):
        markup(HEADINGS["file"])
        with gr.Row(elem_classes=["file-row"]):
            preset = gr.Dropdown(
                preset_names(), value=None, label="Load a preset", elem_id="preset", interactive=True, scale=2
            )
            upload = gr.UploadButton(
                "Load a YAML file", file_types=[".yaml", ".yml"], type="filepath", elem_id="yaml-upload", size="sm"
            )
        file = piece(FILE, "yaml", elem_id="yaml")
        interop = InteropCard()
    form.lines.append(plan_line(form))

    def show(*values: Any) -> dict[str, Any]:
        try:
            return {"text": dump_run(form.typed(form.raw(values)))}
        except InputErrors as wrong:
            return {"text": ""} | problems([form.problem(error)["sentence"] for error in wrong.errors])

    def load_preset(name: str | None) -> list[Any]:
        if not name:
            return [*[gr.skip() for _ in form.inputs], gr.skip(), gr.skip()]
        return filled(load_named(name), name)

    def load_file(path: str) -> list[Any]:
        file, nothing = Path(path), [gr.skip() for _ in (*form.inputs, form.origin)]
        if file.stat().st_size > YAML_BYTES:
            return [*nothing, problems([f"{file.name} is larger than 1 MB. Choose the YAML file of a run."])]
        try:
            notes: list[str] = []
            config, kept_off = untrusting(load_run(file, tell=notes.append))
            return filled(config, file.name, "".join(f"; {note}" for note in notes) + kept_off)
        except StudioError as error:
            return [*nothing, problems(error.sentence.replace(str(file), file.name).splitlines())]

    def filled(config: RunConfig, name: str, kept_off: str = "") -> list[Any]:
        values = form.values(config)
        origin = origin_of(form, form.raw(values), name)
        return [*values, origin, {"said": f"{name} loaded{kept_off}"}]

    def switch(*values: Any) -> list[Any]:
        origin = known(form, values[-1])
        changes, new = switched(form, form.raw(values[:-1]), origin)
        return [*[changes.get(path, gr.skip()) for path in form.specs], gr.skip() if new is origin else new]

    def connect() -> None:
        outputs = [*form.inputs, form.origin]
        for path in (METHOD, TUNING):
            form.components[path].change(guard(switch), outputs, outputs, trigger_mode="multiple", **QUIET)
        # The page asks at each change while the text is shown; the last one must not be lost behind one in progress.
        file.click(guard(show), form.inputs, file, trigger_mode="always_last", **QUIET)
        preset.input(guard(load_preset), preset, [*outputs, file], **QUIET)
        upload.upload(guard(load_file), upload, [*outputs, file], **QUIET)
        interop.wire(form, lambda config, name: filled(untrusting(config)[0], name))

    form.wiring.append(connect)
    wire(page)


def untrusting(config: RunConfig) -> tuple[RunConfig, str]:
    """Turn off what lets code run, in a file that may be somebody else's; the second value says so, if it was on."""
    model = config.model.model_copy(update={"trust_remote_code": False})
    method = config.method.model_copy(update={"trust_reward_code": False})
    if (model, method) == (config.model, config.method):
        return config, ""
    words = "; it asks to run third-party code, which is turned off: read that code, then turn it on here"
    return config.model_copy(update={"model": model, "method": method}), words


def engine_cards(form: Form) -> None:
    """Place the choice of the engine; one that cannot run here is greyed, with the line that installs it."""
    spec = form.specs[ENGINE]
    with gr.Column(elem_classes=["field", "engine", *applies_classes(spec)]):
        markup('<div class="studio"><b>Engine</b></div>')
        form.own(ENGINE, option_cards(spec, form.start[ENGINE], form.lacks(spec)))


def option_cards(spec: OptionSpec, value: str, lacks: dict[str, str] | None = None) -> gr.HTML:
    """Make the cards of a choice; what each means is read from the option's own help ("lora: …; full: …").

    `lacks` says of words that cannot be chosen here why; their cards are greyed.

    Args:
        spec: an option with choices.
        value: the chosen one.
        lacks: by choice; None where all can be chosen.
    """
    titles = ENGINES | {one.name: one.title for one in METHODS.values()}
    titles |= {one.name: one.title for one in TUNINGS.values()}
    meaning = {}
    for part in spec.help.rstrip(".").split(";"):
        word, _, text = part.partition(":")
        meaning[word.strip()] = text.strip()
    cards = [
        {
            "value": word,
            "title": titles.get(word, word),
            "text": meaning.get(word, ""),
            "lacks": (lacks or {}).get(word, ""),
        }
        for word in spec.choices
    ]
    return choice_cards(spec.title, cards, value, field_id(spec.path), topic=spec.path)


def problems(sentences: list[str]) -> dict[str, Any]:
    """What the file's piece shows when something is wrong."""
    return {"errors": sentences}
