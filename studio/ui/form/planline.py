"""The plan of a run: one line above Start on the tabs where a run is set up, and the memory it needs.

The line is computed from the form's values after every change, by the same check that Start and the command line
use. There is one line for each of those tabs, because gradio renders a component once; all get the same value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from studio.config import RunConfig
from studio.config.command import train_command
from studio.data.sources.locate import confine_sources, is_hub_source, locate, sources_of
from studio.data.worker.pool import asker
from studio.errors import InputError, InputErrors, StudioError
from studio.jobs import submit
from studio.jobs.actions.branching import branch, check_changes, find_checkpoint, require_length
from studio.jobs.run.devices import require_devices
from studio.jobs.store.folder import free_name, require_free
from studio.methods import METHODS
from studio.models.catalog.names import confine_folder, confine_model
from studio.models.plan.making import Plan
from studio.train import preflight
from studio.tunings import title_of
from studio.ui.components.choices import piece
from studio.ui.errors import UNEXPECTED, guard, logger
from studio.ui.form import fromrun
from studio.ui.form.meta import COUNTED, READING, WITH_META, Meta
from studio.ui.form.origin import Origin, kept_by_person, known, went_back
from studio.ui.form.planwords import cost, memory_value, plain, values_of, waits_for
from studio.ui.form.reading import left_out, reads, rules
from studio.ui.form.schema import METHOD, TUNING, Form, Values, field_id
from studio.ui.page import QUIET, Page
from studio.ui.server.services import Services
from studio.ui.tabs.method import sweep
from studio.ui.tabs.method.rewardcode import code_of

LINE = """
<div class="studio">
  <div class="plan-from row-flex wrap-flex" hidden><span class="grow" role="status"></span>
    <button type="button" class="plan-back btn small"></button></div>
  <div class="plan num">
    <div class="plan-said grow"><b class="plan-what"></b> <span class="plan-text muted" role="status"></span>
      <span class="plan-busy muted"></span>
      <button type="button" class="plan-more btn quiet" hidden></button>
      <ul class="plan-errors" hidden></ul><div class="plan-limits" hidden></div></div>
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
  <p class="memory-empty muted">It appears as soon as the model is available and the settings are valid.</p>
  <div class="memory-body" hidden><div class="stack"></div><div class="legend"></div></div>
</section>
"""
# Names that say what a file is for, not what it is about: its folder names the run then.
_PLAIN_NAMES = {"train", "training", "data", "dataset", "examples"}


def plan_line(form: Form) -> gr.HTML:
    """Make a plan line. Events: `submit` (Start was pressed), `input` (the name was changed)."""
    return piece(LINE, "planline", constants={"needs": rules(form.specs, field_id)}, elem_classes=["plan-block"])


def memory_bar() -> gr.HTML:
    """Make the bar of the memory plan."""
    return piece(MEMORY, "memory", elem_id="memory-plan")


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
        self._confine(config)
        return config

    def _confine(self, config: RunConfig) -> None:
        # The data worker confines them too, but what names a file that is not there lists the ones beside it.
        confine_sources(config.data, self.services.settings)
        with _at("model.path"):
            confine_model(config.model.path, self.services.settings)
        for option, path in preflight.named_paths(config).items():
            with _at(option):
                confine_folder(path, self.services.settings)

    def payload(self, values: Values, meta: Meta, origin: Any = None) -> dict[str, Any]:
        """Return what the plan lines show; a wrong value is part of it, never an exception.

        Args:
            values: by option, as the fields hold them.
            meta: what the page adds; its sequence number is returned.
            origin: where the values come from, as the page keeps it; anything unreadable counts as unknown.
        """
        method, tuning = str(values.get(METHOD)), str(values.get(TUNING))
        shown: dict[str, Any] = {
            "sequence": meta.sequence, "method": method, "tuning": tuning, "errors": [], "notes": {}, "cards": {},
            "what": f"{title_of(tuning)} · {_method(method)}", "line": "", "memory": None,
            "changed": [field_id(path) for path in self.form.changed(values)], "name": "", "waits": "",
            "code": None, "sweep": None, "kept": [], "usual": {}, "limits": [],
            "command": "", "unread": self._unread(values), "left_out": left_out(self.form.specs, values),
        }  # fmt: skip
        try:
            config = self.form.config(values)
            shown["command"] = train_command(config)
            self._confine(config)
            shown["cards"][METHOD] = self._lacking(config)
            shown["name"] = self.default_name(config)
            shown["code"] = code_of(config)
            shown["waits"] = waits_for(config, self.services)
            if shown["waits"]:
                shown["line"] = shown["waits"]
            else:
                steps = self._add_plan(shown, config).steps
                if meta.branch:
                    require_length(meta.step, steps)
            if meta.branch:
                check_changes(fromrun.training(self.services.settings, meta.branch), config)
            elif meta.sweep and not meta.edit:
                name, settings = meta.name or shown["name"], self.services.settings
                shown["sweep"] = sweep.estimate(settings, config, name, meta.sweep, self._seconds)
        except InputErrors as wrong:
            shown["errors"] = [self.form.problem(error) for error in wrong.errors]
        except StudioError as error:
            shown["errors"] = [self.form.problem(error)]
        except Exception:
            logger.exception("the plan could not be made")
            shown["errors"] = [{"sentence": UNEXPECTED, "field": "", "here": ""}]
        self._mark(shown, values, known(self.form, origin))
        return shown

    def _unread(self, values: Values) -> list[str]:
        """Fields of options that the run does not read because of the value of another one."""
        specs = self.form.specs
        return [field_id(path) for path, spec in specs.items() if spec.needs and not reads(specs, path, values)]

    def _mark(self, shown: dict[str, Any], values: Values, origin: Origin) -> None:
        """Say at the fields what stayed and what went back when method or tuning changed."""
        notes, usual = shown["notes"], shown.pop("usual")
        for path, text in went_back(self.form, values, origin).items():
            notes[field_id(path)] = "; ".join(filter(None, (notes.get(field_id(path)), text)))
        for path in kept_by_person(self.form, values, origin):
            shown["kept"].append(field_id(path))
            here = usual.get(path) or f"{plain(origin['values'].get(path))}"
            notes[field_id(path)] = f"kept as you typed it; usual here: {here}"

    def _add_plan(self, shown: dict[str, Any], config: RunConfig) -> Plan:
        try:
            checked = preflight.check(config, self.services.settings, self.services.data)
        except preflight.DoesNotFitError as error:
            shown["memory"] = memory_value(error.plan)
            raise
        unread = map(preflight.sentence, preflight.unread_options(checked.config))
        plan, shown["limits"] = checked.plan, [*unread, *checked.limits]
        head, _, rest = plan.line().partition(" · ")
        shown["what"], shown["line"] = f"{head} · {_method(config.method.name)}", rest
        shown["memory"] = memory_value(plan)
        shown["notes"] = {
            field_id(path): f"now {plain(choice.value)}: {choice.reason}"
            for path, choice in plan.choices.items()
            if values_of(config, path) == "auto"
        }
        for path, choice in plan.usual.items():
            shown["usual"][path] = text = f"{plain(choice.value)}: {choice.reason}"
            if values_of(config, path) not in ("auto", choice.value):
                shown["notes"][field_id(path)] = f"usual here: {text}"
        shown["cards"][TUNING] = self._tunings(config, plan)
        return plan

    def _tunings(self, config: RunConfig, plan: Plan) -> dict[str, str]:
        """What each tuning would change and cost, by its word."""
        texts: dict[str, str] = {config.tuning.name: cost(plan)}
        for word in self.form.specs[TUNING].choices:
            if word in texts:
                continue
            other = config.model_copy(deep=True)
            other.tuning.name = word
            try:
                texts[word] = cost(preflight.check(other, self.services.settings, self.services.data).plan)
            except StudioError as error:
                texts[word] = error.what
        return texts

    def _lacking(self, config: RunConfig) -> dict[str, str]:
        """What each method that cannot learn from these rows needs, by its word; each has a demo set of its own."""
        source = next(iter(config.data.train), None)
        if source is None or source.path.startswith("demo/") or is_hub_source(source.path, self.services.settings):
            return {}
        try:
            kinds = self.services.data.call("kind", source=source.model_dump())["kinds"]
        except StudioError:
            return {}  # the plan says it
        needed = {one.name: one.columns.partition(";")[0] for one in METHODS.values() if one.rows not in kinds}
        return {word: f"Not for this data: it needs {columns}" for word, columns in needed.items()} if kinds else {}

    def default_name(self, config: RunConfig) -> str:
        """Return a name from data and tuning that no job of this home has."""
        file = Path(config.data.train[0].path)
        about = file.parent.name if file.stem.lower() in _PLAIN_NAMES and file.parent.name else file.stem
        usual = RunConfig().method.name
        parts = [about, *([config.method.name] if config.method.name != usual else []), config.tuning.name]
        if self.form.specs["tuning.rank"].applies(config.method.name, config.tuning.name):
            parts.append(str(config.tuning.rank))
        return free_name(self.services.settings.jobs, "-".join(parts))

    def _seconds(self, config: RunConfig) -> float | None:
        """How long a run takes by its plan; None where that is not known."""
        self._confine(config)
        waits = waits_for(config, self.services)
        return None if waits else preflight.check(config, self.services.settings, self.services.data).plan.seconds

    def _require_files(self, config: RunConfig) -> None:
        """Check that the data files are there and may be read by the page; `preflight.check` includes this."""
        for source in sources_of(config.data):
            if not is_hub_source(source.path, self.services.settings):
                locate(source, self.services.settings, confined=True)

    def start(self, values: Values, meta: Meta) -> str:
        """Check once more, queue the run or runs, or give the edited one its settings; return the id of the first.

        Raises:
            InputError: a value is wrong, the name is taken, or the edited run has begun.
        """
        config, settings = self.confined(values), self.services.settings
        self.services.data.count_again(asker.get())
        if meta.edit:
            return fromrun.save(settings, meta.edit, *self._ready(config))
        name = meta.name or self.default_name(config)
        if meta.sweep and not meta.branch:
            return sweep.start(settings, config, name, meta.sweep, lambda one: self._ready(one)[0])
        require_free(settings.jobs, name, "Run name")
        if meta.branch:
            return self._branch(config, meta, name)
        return submit(settings, "train", name, self._ready(config)[0].model_dump(mode="json")).id

    def _branch(self, config: RunConfig, meta: Meta, name: str) -> str:
        settings, job = self.services.settings, fromrun.training(self.services.settings, meta.branch)
        checkpoint = find_checkpoint(job, meta.step)
        checked = preflight.check(config, settings, self.services.data)
        return branch(settings, job, checkpoint, name, checked.config, checked.plan.steps).id

    def _ready(self, config: RunConfig) -> tuple[RunConfig, int | None]:
        """Check a run; returns it as it is submitted, and its steps where a plan can be made already."""
        self._confine(config)
        if waits_for(config, self.services):
            require_devices(config.training, self.services.settings)
            self._require_files(config)
            return preflight.with_absolute_paths(config, self.services.settings), None
        checked = preflight.check(config, self.services.settings, self.services.data)
        return checked.config, checked.plan.steps


@contextmanager
def _at(option: str) -> Iterator[None]:
    """Say what is wrong with a path at the option that names it, whose field holds the path."""
    try:
        yield
    except InputError as error:
        raise InputError(error.what, where=option, fix=error.fix) from error


def _method(name: str) -> str:
    """What the page calls a method; the name itself where none has it."""
    return METHODS[name].title if name in METHODS else name


# Sections whose options decide what the data looks like as tokens.
SEEN = ("data", "method", "model")


def wire(page: Page) -> None:
    """Connect the form with plan, draft and Start; called by the last tab, when every component exists."""
    form = page.form
    planner = Planner(form, page.services)
    inputs = [*form.inputs, form.meta]

    def update(*values: Any) -> list[Any]:
        raw, meta = form.raw(values[:-2]), Meta.read(values[-1])
        shown = planner.payload(raw, meta, values[-2])
        return [*[shown for _ in form.lines], {"values": raw, "name": meta.name, "sweep": meta.sweep}, shown["what"]]

    def restore(draft: Any) -> list[Any]:
        page.services.data.count_again(asker.get())
        known = draft if isinstance(draft, dict) else {}
        return [*form.restored(draft), json.dumps({"restored": known.get("name", ""), "sweep": known.get("sweep")})]

    def start(*values: Any) -> tuple[str, Any]:
        job = planner.start(form.raw(values[:-1]), Meta.read(values[-1]))
        return job, gr.Tabs(selected="training")

    outputs = [*form.lines, form.draft, page.summaries["method"]]
    told = [*form.inputs, form.origin, form.meta]  # the last is what assets/form/form.js fills in
    calculate: dict[str, Any] = {"fn": guard(update), "inputs": told, "outputs": outputs, "js": COUNTED, **QUIET}
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
    named = [piece.input for piece in (*form.lines, *form.sweeps)]
    gr.on([*others, *named], trigger_mode="always_last", **calculate)
    gr.on(seen, trigger_mode="always_last", **calculate).then(**count).then(**preview)

    begin, finish = ({**step, **QUIET} for step in form.prepare)
    opened = Context.root_block.load(guard(restore), form.draft, inputs, **QUIET)
    ready = opened.then(**calculate).then(**begin).then(**finish)
    ready.then(**calculate)
    ready.then(**count).then(**preview)
    filled = fromrun.wire(form, page.services.settings).then(**calculate).then(**begin).then(**finish)
    filled.then(**count).then(**preview)
    another = [form.components["model.path"].change, form.facts.submit]
    changed = gr.on(another, trigger_mode="multiple", **begin)
    changed.then(**finish).then(**calculate).then(**count).then(**preview)
