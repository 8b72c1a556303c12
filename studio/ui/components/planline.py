"""The plan of a run: one line above Start on the tabs where a run is set up, and the memory it needs.

The line is computed from the form's values after every change, by the same check that Start and the command line
use. There is one line for each of those tabs, because gradio renders a component once; all get the same value.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from studio.config import RunConfig
from studio.config.model import EMBEDDED_MODEL
from studio.config.tuning import TITLES
from studio.data.locate import absent_set, confine_sources, is_hub_source, locate, sources_of
from studio.data.sources import confine
from studio.errors import InputError, InputErrors, StudioError
from studio.jobs import submit
from studio.models import embedded, hub
from studio.models.catalogue import confine_model
from studio.models.plan import Plan
from studio.train import preflight
from studio.ui.components.choices import piece
from studio.ui.components.rewardcode import code_of
from studio.ui.errors import UNEXPECTED, guard, logger
from studio.ui.form import METHOD, TUNING, Form, Values, field_id
from studio.ui.page import QUIET, Page
from studio.ui.services import Services

LINE = """
<div class="studio">
  <div class="plan num">
    <div class="plan-said grow"><b class="plan-what"></b> <span class="plan-text muted" role="status"></span>
      <span class="plan-busy muted"></span>
      <button type="button" class="plan-more btn quiet" hidden></button>
      <ul class="plan-errors" hidden></ul></div>
    <label class="plan-named"><span class="sr">Run name</span>
      <input class="plan-name field-input" type="text" maxlength="60" autocomplete="off" spellcheck="false"></label>
    <button type="button" class="plan-start btn primary">Start training</button>
  </div>
</div>
"""
MEMORY = """
<section class="studio card num" aria-label="Memory plan">
  <div class="row-flex wrap-flex"><h3>Memory plan</h3><span class="grow"></span>
    <span class="memory-total muted"></span></div>
  <p class="memory-empty muted">It is made as soon as the model is here and the settings are valid.</p>
  <div class="memory-body" hidden><div class="stack"></div><div class="legend"></div></div>
</section>
"""
# Names that say what a file is for, not what it is about: its folder names the run then.
_PLAIN_NAMES = {"train", "training", "data", "dataset", "examples"}


def plan_line() -> gr.HTML:
    """Make a plan line. Events: `submit` (Start was pressed), `input` (the name was changed)."""
    return piece(LINE, "planline", elem_classes=["plan-block"])


def memory_bar() -> gr.HTML:
    """Make the bar of the memory plan."""
    return piece(MEMORY, "memory", elem_id="memory-plan")


@dataclass(frozen=True)
class Meta:
    """What the page adds to the form's values.

    Attributes:
        name: of the run, "" for ours.
        sequence: number of the request, so that an old reply is not shown over a newer one.
        row: the row that is wanted in the token view, from 1.
        source: of which source, from 0.
        asked: number of the person's request for a row, so that a reply to an earlier one is not shown over it.
        set: options that a button of a finding sets.
    """

    name: str = ""
    sequence: int = 0
    row: int = 1
    source: int = 0
    asked: int = 0
    set: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: Any) -> Meta:
        """Read what assets/form.js sends; anything else counts as nothing."""
        try:
            given = json.loads(text)
            wanted = given["set"] if isinstance(given["set"], dict) else {}
            return cls(
                str(given["name"]).strip()[:60],
                int(given["sequence"]),
                max(1, int(given["row"])),
                max(0, int(given.get("source", 0))),
                int(given.get("asked", 0)),
                wanted,
            )
        except (TypeError, ValueError, KeyError):
            return cls()


@dataclass(frozen=True)
class Planner:
    """Makes plans and starts runs from the form's values."""

    form: Form
    services: Services

    def confined(self, values: Values) -> RunConfig:
        """Return the config, with every path in it checked to lie where the page may read.

        Raises:
            InputErrors: a value or a path is wrong.
        """
        config = self.form.config(values)
        # The data worker confines them too, but what names a file that is not there lists the ones beside it.
        confine_sources(config.data, self.services.settings)
        confine_model(config.model.path, self.services.settings)
        for path in preflight.named_paths(config):
            confine(path, self.services.settings)
        return config

    def payload(self, values: Values, meta: Meta) -> dict[str, Any]:
        """Return what the plan lines show; a wrong value is part of it, never an exception."""
        method, tuning = str(values.get(METHOD)), str(values.get(TUNING))
        shown: dict[str, Any] = {
            "sequence": meta.sequence, "method": method, "tuning": tuning, "errors": [], "notes": {}, "cards": {},
            "what": f"{TITLES.get(tuning, tuning)} · {method.upper()}", "line": "", "memory": None,
            "changed": [field_id(path) for path in self.form.changed(values)], "name": "", "waits": "",
            "code": None,
        }  # fmt: skip
        try:
            config = self.confined(values)
            shown["name"] = self.default_name(config)
            shown["code"] = code_of(config)
            shown["waits"] = waits_for(config, self.services)
            if shown["waits"]:
                shown["line"] = shown["waits"]
                return shown
            self._add_plan(shown, config)
        except InputErrors as wrong:
            shown["errors"] = [self.form.problem(error) for error in wrong.errors]
        except StudioError as error:
            shown["errors"] = [self.form.problem(error)]
        except Exception:
            logger.exception("the plan could not be made")
            shown["errors"] = [{"sentence": UNEXPECTED, "field": ""}]
        return shown

    def _add_plan(self, shown: dict[str, Any], config: RunConfig) -> None:
        try:
            plan = preflight.check(config, self.services.settings, self.services.data).plan
        except preflight.DoesNotFitError as error:
            shown["memory"] = memory_value(error.plan)
            raise
        head, _, rest = plan.line().partition(" · ")
        shown["what"], shown["line"] = f"{head} · {config.method.name.upper()}", rest
        shown["memory"] = memory_value(plan)
        shown["notes"] = {
            field_id(path): f"now {_plain(choice.value)}: {choice.reason}"
            for path, choice in plan.choices.items()
            if values_of(config, path) == "auto"
        }
        shown["cards"] = {TUNING: self._tunings(config, plan)}

    def _tunings(self, config: RunConfig, plan: Plan) -> dict[str, str]:
        """What each tuning would change and cost, by its word."""
        texts: dict[str, str] = {config.tuning.name: _cost(plan)}
        for word in self.form.specs[TUNING].choices:
            if word in texts:
                continue
            other = config.model_copy(deep=True)
            other.tuning.name = word  # type: ignore[assignment]
            try:
                texts[word] = _cost(preflight.check(other, self.services.settings, self.services.data).plan)
            except StudioError as error:
                texts[word] = error.what
        return texts

    def default_name(self, config: RunConfig) -> str:
        """Return a name from data and tuning that no job of this home has."""
        file = Path(config.data.train[0].path)
        about = file.parent.name if file.stem.lower() in _PLAIN_NAMES and file.parent.name else file.stem
        parts = [about, *([config.method.name] if config.method.name != "sft" else []), config.tuning.name]
        if self.form.specs["tuning.rank"].applies(config.method.name, config.tuning.name):
            parts.append(str(config.tuning.rank))
        return self.free_name("-".join(parts))

    def _require_files(self, config: RunConfig) -> None:
        """Check that the data files are there and may be read by the page; `preflight.check` includes this."""
        for source in sources_of(config.data):
            if not is_hub_source(source.path, self.services.settings):
                locate(source, self.services.settings, confined=True)

    def free_name(self, wanted: str) -> str:
        """Return the wanted name, or the next free one with a number."""
        plain = re.sub(r"[^\w.-]+", "-", wanted).strip("-.")[:52] or "run"
        taken = self._names()
        number = 2
        name = plain
        while name in taken:
            name, number = f"{plain}-{number}", number + 1
        return name

    def _names(self) -> set[str]:
        # A job's folder is named after time and name, so that no job.yaml needs to be read on every key.
        jobs = self.services.settings.jobs
        return {path.name[16:] for path in jobs.iterdir()} if jobs.is_dir() else set()

    def start(self, values: Values, meta: Meta) -> str:
        """Check once more, queue the run and return its id.

        Raises:
            InputError: a value is wrong, or the name is taken.
        """
        config = self.confined(values)
        name = meta.name or self.default_name(config)
        if name in self._names():
            raise InputError(f"there is a run '{name}' already", where="Run name", fix=f"Take '{self.free_name(name)}'")
        if waits_for(config, self.services):
            self._require_files(config)
            config = preflight.with_absolute_paths(config, self.services.settings)
        else:
            config = preflight.check(config, self.services.settings, self.services.data).config
        return submit(self.services.settings, "train", name, config.model_dump(mode="json")).id


# Put before a handler's request: the last value becomes what `Meta.read` reads. While none of our pieces is in the
# document (another tab is open), the script is not loaded, and there is nothing to add.
COUNTED = "(...values) => window.studioForm ? studioForm.before(values) : values"
WITH_META = "(...values) => window.studioForm ? studioForm.withMeta(values) : values"
# Sections whose options decide what the data looks like as tokens.
SEEN = ("data", "method", "model")
READING = "(...values) => { window.studioForm?.publish('reading', true); return values }"


def wire(page: Page) -> None:
    """Connect the form with plan, draft and Start; called by the last tab, when every component exists."""
    form = page.form
    planner = Planner(form, page.services)
    inputs = [*form.inputs, form.meta]

    def update(*values: Any) -> list[Any]:
        raw, meta = form.raw(values[:-1]), Meta.read(values[-1])
        shown = planner.payload(raw, meta)
        return [*[shown for _ in form.lines], {"values": raw, "name": meta.name}, shown["what"]]

    def restore(draft: Any) -> list[Any]:
        name = draft.get("name", "") if isinstance(draft, dict) else ""
        return [*form.restored(draft), json.dumps({"restored": name})]

    def start(*values: Any) -> tuple[str, Any]:
        job = planner.start(form.raw(values[:-1]), Meta.read(values[-1]))
        return job, gr.Tabs(selected="training")

    outputs = [*form.lines, form.draft, page.summaries["method"]]
    calculate: dict[str, Any] = {"fn": guard(update), "inputs": inputs, "outputs": outputs, "js": COUNTED, **QUIET}
    gr.on(
        [line.submit for line in form.lines], guard(start), inputs, [page.job, page.tabs],
        js=WITH_META, **QUIET,
    ).success(None, None, None, js="() => studioForm.started()", **QUIET).then(**calculate)  # fmt: skip
    for connect in form.wiring:
        connect()

    count: dict[str, Any] = {**form.count, "js": READING, "trigger_mode": "always_last", **QUIET}
    preview: dict[str, Any] = {**form.preview, "js": WITH_META, "trigger_mode": "always_last", **QUIET}
    # One handler that waits for the last change on each event, no more: gradio 6.31 repeats a deferred one by sending
    # the event to all handlers of it, so that two of them keep each other going for ever.
    seen = [form.components[path].change for path, spec in form.specs.items() if spec.section in SEEN]
    others = [form.components[path].change for path, spec in form.specs.items() if spec.section not in SEEN]
    gr.on([*others, *(line.input for line in form.lines)], trigger_mode="always_last", **calculate)
    gr.on(seen, trigger_mode="always_last", **calculate).then(**count).then(**preview)

    begin, finish = ({**step, **QUIET} for step in form.prepare)
    opened = Context.root_block.load(guard(restore), form.draft, inputs, **QUIET)
    ready = opened.then(**calculate).then(**begin).then(**finish)
    ready.then(**calculate)
    ready.then(**count).then(**preview)
    changed = form.components["model.path"].change(trigger_mode="multiple", **begin)
    changed.then(**finish).then(**calculate).then(**count).then(**preview)


def waits_for(config: RunConfig, services: Services) -> str:
    """Say why the plan must wait for model or data ("" if it need not): such a run may be started all the same."""
    path = config.model.path.strip()
    if path == EMBEDDED_MODEL and not embedded.is_ready(services.settings):
        return "the model is made ready first (once, about half a minute), then the plan is shown here"
    if hub.is_hub_id(path) and not Path(path).exists():
        folder = hub.hub_folder(services.settings, path, config.model.revision)
        if hub.hub_name(folder) is None:
            return f"{path} is downloaded when the run starts, and the plan is made then"
    if name := absent_set(config.data, services.settings, confined=True):
        return f"{name} is downloaded when the run starts, and the plan is made then"
    return ""


def values_of(config: RunConfig, path: str) -> Any:
    """Return the value of an option by its dotted name."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def memory_value(plan: Plan) -> dict[str, Any]:
    """Parts of the plan's memory, in bytes, for the bar."""
    parts = [{"name": name, "bytes": value} for name, value in plan.memory.items()]
    return {"parts": parts, "total": plan.total_bytes, "available": plan.available_bytes, "fits": plan.fits}


def _cost(plan: Plan) -> str:
    share = "all " if plan.trainable == plan.parameters else f"{_millions(plan.trainable)} of "
    return f"{share}{_millions(plan.parameters)} parameters · {plan.total_bytes / 1e9:.1f} GB"


def _millions(count: int) -> str:
    if count >= 1_000_000_000:
        return f"{count / 1e9:.2f} B"
    return f"{count / 1e6:.1f} M" if count < 100_000_000 else f"{count / 1e6:.0f} M"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
