"""The Merge section of the Export tab: models are picked, the recipe is written, checked and started.

The recipe's text is what counts: the fields only write it, and a person may edit or paste one. What comes of it is a
job in the list, whose child is a run for every tab.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.config.describe import options_of
from studio.config.jobs import DEMO_TEST, MergeConfig
from studio.errors import InputError, StudioError
from studio.jobs import FINAL, submit
from studio.jobs.store.folder import free_name
from studio.jobs.store.request import MODEL_KINDS
from studio.merge.asking import prepare
from studio.merge.methods import METHODS, UNLOAD, MergeMethod
from studio.merge.recipe import WHERE, write_recipe
from studio.merge.sweep import in_a_line, prepare_sweep, queue_sweep
from studio.models.catalog.names import known_models
from studio.ui.components.choices import drawn, heading, text_line
from studio.ui.components.selected import rows_choices, rows_path, selected_run
from studio.ui.errors import guard
from studio.ui.page import QUIET, Page
from studio.ui.server.theme import asset_url
from studio.ui.tabs.export.mergemethods import about, choices, whole_models
from studio.ui.tabs.export.mergesweep import SweepFields, offered, wish

START, START_SWEEP = "Merge", "Start the sweep"
REPORT = f"""<div class="studio"><section class="card-block merge-report" hidden aria-label="The selected merge"
  data-plotly="{asset_url("plotly.min.js")}"><div data-merge="sweep"></div>
  <div class="row-flex wrap-flex"><h3 data-merge="name"></h3><span class="muted" data-merge="what" role="status"></span>
  </div><div data-merge="body"></div>
</section></div>"""
RECIPE_FILE = """<div class="studio row-flex wrap-flex recipe-file">
  <button type="button" class="btn small" data-recipe="open">Open a recipe …</button>
  <button type="button" class="btn small" data-recipe="save">Download the recipe</button>
  <input type="file" accept=".yaml,.yml" hidden data-recipe="file" aria-label="Recipe file">
  <span class="muted" data-recipe="said" role="status"></span></div>"""
_OFFERED = 200  # newest jobs that are looked through for models
_NUMBERS = ("t", "density")
NO_ROWS = ("No rows", "")
EACH: dict[str, Any] = {**QUIET, "trigger_mode": "multiple"}


def build(page: Page) -> None:
    """Build the section; called inside the Export tab."""
    MergeCard(page)


class MergeCard:
    """The section's components and handlers."""

    def __init__(self, page: Page) -> None:
        specs = {spec.path: spec for spec in options_of(MergeConfig)}
        self.settings, self.book = page.services.settings, page.services.book
        with gr.Column(elem_classes=["card-block"], elem_id="merge"):
            heading("Merge", "combine several models into one that works like a run")
            self.models = gr.Dropdown(
                [], value=[], multiselect=True, allow_custom_value=True, label="Models", interactive=True,
                info="Runs of the studio, RUN@STEP, folders, or Hub ids such as owner/name.", elem_id="merge-models",
                elem_classes=["field"],
            )  # fmt: skip
            with gr.Row(elem_classes=["export-row"]):
                self.method = gr.Dropdown(
                    choices(False), value="linear", label="Method", info=about(METHODS["linear"]), interactive=True,
                    elem_id="merge-method", elem_classes=["field"], scale=2,
                )  # fmt: skip
                self.all = gr.Checkbox(False, label="All methods", interactive=True, elem_id="merge-all", scale=0)
                self.base = gr.Dropdown(
                    [], value=None, allow_custom_value=True, label="Base model", interactive=True,
                    info="The model that the others come from.", visible=False, elem_id="merge-base",
                    elem_classes=["field"],
                )  # fmt: skip
            with gr.Row(elem_classes=["export-row"]):
                self.weights = gr.Textbox(
                    label="Weights", info="One for each model, separated by commas; empty: 1 each.", interactive=True,
                    elem_id="merge-weights", elem_classes=["field"],
                )  # fmt: skip
                self.number = gr.Textbox(
                    label="Density", interactive=True, visible=False, elem_id="merge-number", elem_classes=["field"]
                )
            self.recipe = gr.Textbox(
                "", label="Recipe", info="mergekit's YAML; it may be edited, or replaced by another one.", lines=8,
                max_lines=24, interactive=True, elem_id="merge-recipe", elem_classes=["field"],
            )  # fmt: skip
            drawn(RECIPE_FILE, "recipeFile", "export/recipe.js")
            self.sweep = SweepFields()
            with gr.Row(elem_classes=["export-row"]):
                self.name = gr.Textbox(
                    label="Name", placeholder="merged", interactive=True, elem_id="merge-name", elem_classes=["field"]
                )
                self.rows = gr.Dropdown(
                    [NO_ROWS, ("Demo test rows", DEMO_TEST)], value="", label="Compare on rows",
                    info=specs["evaluate"].help, allow_custom_value=True, interactive=True, scale=2,
                    elem_id="merge-rows", elem_classes=["field"],
                )  # fmt: skip
                self.check = gr.Button("Check", scale=0, min_width=100, elem_id="merge-check")
                self.start = gr.Button(START, variant="primary", scale=0, min_width=150, elem_id="merge-start")
            self.said = text_line("", "merge-said", look="muted")
        drawn(
            REPORT, "merge", "core/follow.js", "charts/chartfiles.js", "charts/charts.js", "export/mergecurve.js",
            "export/merge.js",
        )  # fmt: skip
        fields = [self.models, self.method, self.base, self.weights, self.number]
        gr.on(
            [one.change for one in fields], guard(self.write), fields, [self.recipe, self.said],
            trigger_mode="always_last", **QUIET,
        )  # fmt: skip
        self.method.change(guard(self.choose), self.method, [self.method, self.base, self.weights, self.number], **EACH)
        gr.on([self.all.change, self.models.change], guard(self.offer), [self.all, self.models], self.method, **EACH)
        gr.on(None, guard(self.refresh), page.job, [self.models, self.base, self.rows], **EACH)
        place = self.sweep.place
        self.recipe.change(guard(offered), [self.recipe, place], place, trigger_mode="always_last", **QUIET)
        place.change(lambda chosen: START_SWEEP if chosen else START, place, self.start, **QUIET)
        asked = [self.recipe, self.rows, *self.sweep.inputs]
        self.check.click(guard(self.look), asked, self.said, **QUIET)
        self.start.click(guard(self.submit), [self.name, *asked], [self.said, page.job], **QUIET)

    def offered(self) -> list[tuple[str, str]]:
        """Labels and words of the models that can be merged: runs with a model, newest first, then base models."""
        runs = [row for row in self.book.rows() if row["kind"] in MODEL_KINDS and row["status"] in FINAL]
        found: dict[str, str] = {}
        for row in runs[:_OFFERED]:
            folder = self.settings.jobs / row["id"] / "model"
            if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
                found.setdefault(row["name"], f"{row['name']} · run")
        models = [model.name for model in known_models(self.settings) if model.ready]
        return [(label, word) for word, label in found.items()] + [(f"{name} · model", name) for name in models]

    def refresh(self, job_id: str) -> list[Any]:
        """Offer the models that there are now, whatever job was selected."""
        offered = self.offered()
        rows = [NO_ROWS, *rows_choices(self.settings, selected_run(self.settings, job_id), DEMO_TEST)]
        return [gr.Dropdown(choices=offered), gr.Dropdown(choices=offered), gr.Dropdown(choices=rows)]

    def choose(self, name: str) -> list[Any]:
        """Show what a method asks for."""
        method = METHODS[name] if name else UNLOAD
        number = next((one for one in _NUMBERS if method.parameter(one) is not None), "")
        return [
            gr.Dropdown(info=about(method)), gr.Dropdown(visible=method.base != "none"),
            gr.Textbox(visible=method.parameter("weight") is not None),
            gr.Textbox(visible=bool(number), label=number.capitalize(), info=_HELP.get(number, "")),
        ]  # fmt: skip

    def write(self, models: list[str], name: str, base: str | None, weights: str, number: str) -> list[Any]:
        """Write the recipe that the fields describe.

        Args:
            models: words of the chosen models.
            name: of the method, empty for none.
            base: word of the base model; empty or None for none.
            weights: one for each model, as typed; empty for 1 each.
            number: t or density, as typed; empty for what the method takes.

        Returns:
            The recipe, and what is wrong: this is asked at each key, so a half-typed field is said and not raised.
        """
        if not models:
            return ["", ""]
        method = METHODS[name] if name else UNLOAD
        try:
            return [write_recipe(written(method, models, base or "", weights or "", number or "")), ""]
        except InputError as error:
            return [gr.skip(), error.sentence]

    def offer(self, wanted: bool, models: list[str]) -> gr.Dropdown:
        """Offer the methods, those that cannot merge the chosen models with the reason.

        Args:
            wanted: all methods, not only the usual ones.
            models: words of the chosen models.
        """
        return gr.Dropdown(choices=choices(wanted, models, whole_models(models, self.settings)))

    def look(self, text: str, rows: str | None = None, *sweep: str) -> str:
        """Say what a check found, in words also where the recipe cannot be merged.

        Args:
            text: of the recipe.
            rows: file that the models and the child answer; None or empty for none.
            sweep: what the sweep's fields hold.
        """
        try:
            path, varied = self._rows(rows), wish(*sweep)
            if varied is not None:
                found = prepare_sweep(self._required(text), *varied, self.settings, WHERE, light=True, evaluate=path)
                return " ".join([in_a_line(found), *(f"{one}." for one in found.first.warnings)])
            asked = prepare(self._required(text), self.settings, light=True, evaluate=path)
        except StudioError as error:
            return error.sentence
        took = "" if asked.seconds is None else f" It takes about {asked.seconds:.0f} s."
        return " ".join(
            [f"{asked.recipe.method.title}: this can be merged.{took}", *(f"{one}." for one in asked.warnings)]
        )

    def submit(self, name: str, text: str, rows: str | None = None, *sweep: str) -> list[Any]:
        """Queue the merge, or those of a sweep, and select the first in the list.

        Args:
            name: of the child, as typed; empty for the next free one.
            text: of the recipe.
            rows: file that the models and the child answer; None or empty for none.
            sweep: what the sweep's fields hold.

        Raises:
            StudioError: it cannot be merged.
        """
        path, varied, settings = self._rows(rows), wish(*sweep), self.settings
        wanted = (name or "").strip() or free_name(settings.jobs, "merged" if varied is None else "sweep")
        if varied is not None:
            found = prepare_sweep(self._required(text), *varied, settings, WHERE, light=True, evaluate=path)
            jobs = queue_sweep(found, settings, wanted)
            return [f"{len(jobs)} merges are queued: their curve grows below.", jobs[0].id]
        asked = prepare(self._required(text), settings, light=True, evaluate=path)
        job = submit(settings, "merge", wanted, asked.config.model_dump(mode="json"))
        return [f"'{wanted}' is queued: its progress and its report are below.", job.id]

    def _rows(self, rows: str | None) -> str | None:
        return rows_path(self.settings, rows) if rows else None

    def _required(self, text: str) -> str:
        if not (text or "").strip():
            raise InputError("there is no recipe", fix="Pick models above, or paste a recipe")
        return text


_HELP = {
    "t": "0 is the base model, 1 the other one.",
    "density": "Share of the changes that is kept, from 0 to 1; empty: all.",
}


def written(method: MergeMethod, models: list[str], base: str, weights: str, number: str) -> dict[str, Any]:
    """Return the recipe that the fields describe, as plain values.

    Args:
        method: what is done.
        models: words of the models.
        base: word of the base model; empty for none.
        weights: one for each model, as typed; empty for 1 each.
        number: t or density, as typed; empty for none.

    Raises:
        InputError: there are more or fewer weights than models, or a value is no number.
    """
    values: dict[str, Any] = {"merge_method": method.name} if method.name else {}
    if base and method.base != "none":
        values["base_model"] = base
    each = [_number(part, "Weights") for part in weights.split(",") if part.strip()]
    if method.parameter("weight") is None:
        values["models"] = [{"model": word} for word in models]
    else:
        if each and len(each) != len(models):
            raise InputError(
                f"{len(each)} weight{' is' if len(each) == 1 else 's are'} given for {len(models)} models",
                where="Weights",
                fix="Give one for each model",
            )
        values["models"] = [
            {"model": word, "parameters": {"weight": weight}}
            for word, weight in zip(models, each or [1.0] * len(models), strict=True)
        ]
    name = next((one for one in _NUMBERS if method.parameter(one) is not None), "")
    if name and number.strip():
        values["parameters"] = {name: _number(number, name.capitalize())}
    return values


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"'{text.strip():.40}' is not a number", where=where, fix="Write it like 0.5") from None
