"""Model tab: which model is trained, whether it is here, and what it is.

The embedded model is prepared in the background when the page first wants it, once for all pages, so that the
plan and the rows' tokens can be shown before the first run. A Hub model is described and downloaded by
assets/model/models.js over `ui.routes.models`; without that, fetching it is the first phase of a run.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder
from studio.jobs.store.request import MODEL_KINDS
from studio.models.catalog import hub
from studio.models.catalog.names import confine_model, known_models, resolve_model
from studio.models.inspect.families import family_of
from studio.models.inspect.headers import read_config
from studio.models.inspect.shape import ModelShape
from studio.settings import Settings
from studio.train.runs import whole_runs
from studio.ui.components.choices import choice_cards, markup, piece
from studio.ui.components.selected import base_run, run_of_model
from studio.ui.errors import guard
from studio.ui.form.planline import plan_line
from studio.ui.form.schema import Form
from studio.ui.page import QUIET, Page
from studio.ui.server.services import Services
from studio.ui.tabs.model import remote

PATH, REVISION = "model.path", "model.revision"
# So many of the newest jobs are looked through for whole models, and so many of these have a card.
LOOKED_AT, RUNS = 200, 6
TITLES = {EMBEDDED_MODEL: "SmolLM2-135M-Instruct"}
LICENCES = {EMBEDDED_MODEL: "Apache-2.0"}
FACTS = """
<section class="studio card" aria-label="The chosen model">
  <div class="row-flex wrap-flex"><h3 class="facts-title">Model</h3><span class="facts-state pill">…</span></div>
  <p class="facts-note muted" role="status"></p>
  <dl class="facts"></dl>
  <div class="facts-hub" hidden></div>
</section>
"""
BROWSER = """
<section class="studio models"><details><summary>Browse models</summary>
  <div class="models-tools"><input type="search" class="field-input models-find" aria-label="Find a model"
    placeholder="Part of a name, such as qwen" autocomplete="off" spellcheck="false">
    <button type="button" class="btn models-search">Search the Hub</button></div>
  <p class="models-said muted" role="status"></p>
  <div class="models-list" tabindex="0" role="region" aria-label="Models"></div>
</details></section>
"""


def build(page: Page) -> None:
    """Build the tab, and the form that the next tabs go on with."""
    services = page.services
    form = page.form = Form(page)
    preparation = services.preparation
    with gr.Column(elem_classes=["card-block"]) as column:
        markup('<div class="studio"><h3>Base model</h3></div>')
        cards = choice_cards("Model", [], form.start[PATH], "model-cards", topic="models")
        browser = piece(BROWSER, "browser", elem_id="model-browser")
        form.place_tiers(form.of_section("model"), "model-advanced")
        markup(HUB_NOTE)
    facts = form.facts = piece(FACTS, "facts", elem_id="model-facts")
    remote.build(page)
    form.lines.append(plan_line(form))

    path, revision = form.components[PATH], form.components[REVISION]

    def describe(path: str, revision: str) -> dict[str, Any]:
        facts = run_facts(path, services) or model_facts(path, revision, services.settings)
        return facts | {"cards": [*model_cards(services.settings), *run_cards(services)]}

    def show(path: str, revision: str) -> tuple[Any, Any, Any]:
        run = run_of_model(services.settings, path.strip())
        named = short_name(path if run is None else run.shown)
        return describe(path, revision), path.strip().encode(errors="replace").decode(), named

    def begin(path: str, revision: str) -> tuple[Any, Any, Any]:
        shown = show(path, revision)
        if path.strip() == EMBEDDED_MODEL and preparation.needed:
            preparation.begin()
            shown = (preparing(shown[0]), *shown[1:])
        return shown

    def finish(path: str, revision: str) -> tuple[Any, Any, Any]:
        if path.strip() == EMBEDDED_MODEL:
            preparation.wait()
        shown = show(path, revision)
        if preparation.error:
            shown = ({**shown[0], "state": "not ready", "level": "bad", "note": preparation.error}, *shown[1:])
        return shown

    outputs = [facts, cards, page.summaries["model"]]
    # The card is only another way to fill the path: the path is the option. Not on `change`: each reply while a path is
    # typed brings the cards an older text, which would be written over what was typed since.
    cards.input(None, cards, path, js="value => value", **QUIET)
    browser.input(None, browser, path, js="value => value.name", **QUIET)
    gr.on(
        [path.change, revision.change], guard(show), [path, revision], outputs,
        trigger_mode="multiple", **QUIET,
    )  # fmt: skip
    # Models are made while the page is open: opening the tab shows those of now.
    column.parent.select(guard(show), [path, revision], outputs, **QUIET)
    form.prepare = [
        {"fn": guard(step), "inputs": [path, revision], "outputs": outputs} for step in (begin, finish)
    ]  # fmt: skip


HUB_NOTE = (
    '<p class="studio muted small">A folder must hold a Hugging Face checkpoint with .safetensors weights. '
    "A Hub id such as Qwen/Qwen3-0.6B can be downloaded here, or in the first phase of the training.</p>"
)


def model_cards(settings: Settings) -> list[dict[str, str]]:
    """Cards of the models that are known here, the embedded one first."""
    cards = []
    for info in known_models(settings):
        facts = [f"{info.parameters / 1e6:,.0f} M parameters"] if info.parameters else []
        if info.path is not None:
            facts.append(f"{_folder_bytes(info.path) / 1e6:,.0f} MB")
        if info.name in LICENCES:
            facts.append(LICENCES[info.name])
        here = {"embedded": "included", "local": "on this computer", "hub": "downloaded"}[info.source]
        if info.problem:
            here = f"{info.problem:.200}"
        elif not info.ready and info.source != "embedded":
            here = "download incomplete"
        cards.append(
            {
                "value": info.name,
                "title": TITLES.get(info.name, info.name.rsplit("/", 1)[-1]),
                "text": " · ".join([*facts, here]),
                "badge": "cannot be used" if info.problem else "ready" if info.ready else "not prepared yet",
                "level": "bad" if info.problem else "ok" if info.ready else "info",
            }
        )
    return cards


def run_cards(services: Services) -> list[dict[str, str]]:
    """Cards of the newest runs and merges whose model is whole, by the names under which they are trained further."""
    rows = [row for row in services.book.rows()[:LOOKED_AT] if not row["archived"]]
    known = {row["id"]: row for row in rows}
    cards: list[dict[str, str]] = []
    for run in whole_runs((JobFolder(services.settings.jobs / row["id"]) for row in rows), RUNS):
        name = run.name
        taken = any(card["value"] == name for card in cards) or any(
            row["name"] == name and row["kind"] in MODEL_KINDS and row["id"] > run.id for row in rows
        )
        size = f"{_folder_bytes(run.model) / 1e6:,.0f} MB"
        cards.append({
            "value": run.id if taken else name, "title": name, "text": f"{known[run.id]['line']} · {size} · made here",
            "badge": "ready", "level": "ok",
        })  # fmt: skip
    return cards


def run_facts(path: str, services: Services) -> dict[str, Any] | None:
    """What is known of the run or merge that `model.path` names, by its name or its folder; None where it names none.

    Args:
        path: as typed.
        services: whose jobs.
    """
    text = path.strip()
    try:
        run = base_run(services, text) or run_of_model(services.settings, text)
    except InputError as error:
        refused = {"state": "cannot be used", "level": "bad", "note": error.sentence, "facts": []}
        return {"title": short_name(text), **refused}
    if run is None:
        return None
    facts = model_facts(str(run.model), "main", services.settings)
    return facts | {"title": run.name, "facts": [["Made by", services.book.row(run)["line"]], *facts["facts"]]}


def short_name(path: str) -> str:
    """What a model is called in little room."""
    text = path.strip().encode(errors="replace").decode()  # half a character cannot be sent
    return TITLES.get(text, text.rstrip("/").rsplit("/", 1)[-1])[:60]


def model_facts(path: str, revision: str, settings: Settings) -> dict[str, Any]:
    """What is known of a model, for the facts' card; a model that cannot be used is said, not raised.

    Args:
        path: folder, file or Hub id, as typed.
        revision: branch, tag or commit; empty for main.
        settings: home and readable folders; nothing is downloaded.
    """
    text = path.strip()
    shown: dict[str, Any] = {"title": short_name(text) or "Model", "state": "ready", "level": "ok"}
    shown |= {"note": "", "facts": []}
    try:
        confine_model(text, settings)
        found = resolve_model(text, settings, revision=revision.strip() or "main", fetch=False)
        shape = ModelShape.from_folder(found.path)
    except StudioError as error:
        if text == EMBEDDED_MODEL:
            return {**shown, "state": "not prepared yet", "level": "", "note": "", "facts": []}
        if hub.is_hub_id(text):
            hub_model = {"name": text, "revision": revision.strip() or "main"}
            return {**shown, "state": "not downloaded", "level": "warn", "note": HUB_ABSENT, "hub": hub_model}
        return {**shown, "state": "cannot be used", "level": "bad", "note": error.sentence}
    family = family_of(read_config(found.path))
    heads = f"{shape.heads}" + ("" if shape.heads == shape.kv_heads else f", {shape.kv_heads} for keys and values")
    shown["facts"] = [
        ["Parameters", f"{shape.parameters:,}"],
        ["Family", shape.family if family is None else f"{family.name} ({shape.family})"],
        ["Layers", f"{shape.layers}"],
        ["Hidden size", f"{shape.hidden:,}"],
        ["Attention heads", heads],
        ["Context length", f"{shape.context:,} tokens" if shape.context else "unknown"],
        ["Vocabulary size", f"{shape.vocab:,} tokens" + (", tied to the output" if shape.tied else "")],
        ["Data type", shape.dtype],
        ["On disk", f"{shape.file_bytes / 1e6:,.0f} MB"],
        ["Folder", str(found.path)],
        ["Usual target modules", ", ".join(family.targets) if family is not None else "all-linear"],
    ]
    if text in LICENCES:
        shown["facts"].insert(1, ["License", LICENCES[text]])
    return shown


HUB_ABSENT = "It is not on this computer yet. The plan and the token view appear once it is downloaded."


def preparing(shown: dict[str, Any]) -> dict[str, Any]:
    """The facts' card while the embedded model is being prepared; the browser asks how far it is."""
    return {**shown, "state": "preparing", "level": "live", "note": "Preparing the model (only once) …"}


def _folder_bytes(folder: Any) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
