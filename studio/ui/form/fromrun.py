"""The form filled with the settings of a job: of one that waits, to change them, or of any run, to start another one.

The browser (assets/training/queue.js) puts what it wants into a hidden box, as JSON; the reply goes into a second
one. What the form had before travels back with the reply, so that the way out can restore it; the server keeps nothing.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from studio.config import RunConfig
from studio.config.load import build
from studio.config.presets import load_named
from studio.errors import InputError
from studio.jobs import JobFolder
from studio.jobs.actions.queue import require_unbegun, rewrite
from studio.jobs.store.finding import job_of_id
from studio.jobs.store.folder import free_name
from studio.settings import Settings
from studio.ui.errors import guard
from studio.ui.form.origin import known, origin_of
from studio.ui.form.schema import Form, outside_tabs
from studio.ui.page import QUIET

# A draft without data, which the plan asks for.
EMPTY = RunConfig().model_copy(update={"data": RunConfig().data.model_copy(update={"train": []})})


def wire(form: Form, settings: Settings) -> Any:
    """Make the boxes and connect them; returns the event after which the plan is to be made again."""
    with outside_tabs(), gr.Column(elem_classes=["studio-hidden"]):
        asked = gr.Textbox("", label="Fill the form", elem_id="form-fill", interactive=True)
        reply = gr.Textbox("", label="What the form was filled with", elem_id="form-filled", interactive=True)

    def fill(text: str, *values: Any) -> list[Any]:
        wanted = json.loads(text)
        *shown, reply = filled(form, settings, wanted, form.raw(values[:-1]))
        told = json.loads(reply)
        if told["job"]:
            told["kept"]["origin"] = known(form, values[-1])
            return [*shown, origin_of(form, form.raw(shown), told["title"]), json.dumps(told)]
        if wanted.get("preset"):
            return [*shown, origin_of(form, form.raw(shown), told["title"]), reply]
        draft = wanted.get("back")
        return [*shown, known(form, draft.get("origin") if isinstance(draft, dict) else None), reply]

    inputs = [*form.inputs, form.origin]
    event = asked.change(guard(fill), [asked, *inputs], [*inputs, reply], **QUIET)
    return event.success(None, reply, None, js="text => { window.studio.queue.filled(text) }", **QUIET)


def filled(form: Form, settings: Settings, asked: dict[str, Any], values: dict[str, Any]) -> list[Any]:
    """Return the form's new values, and the reply.

    Args:
        form: the form.
        settings: whose jobs.
        asked: {"back": draft} to restore what the form had; {"preset": name} to begin with that preset or, with "",
            with the defaults and no data; or {"job": id, "edit": bool, "step": number} for what a job has, with a step
            for a branch at its checkpoint; with "name", the run name that is typed, and "number", which the reply
            repeats.
        values: what the form has.

    Raises:
        InputError: there is no such training, its settings cannot be read, or it has begun and was to be edited.
    """
    if "back" in asked:
        draft = asked["back"] if isinstance(asked["back"], dict) else {}
        reply = {"number": asked["number"], "job": "", "edit": False, "name": str(draft.get("name", ""))}
        return [*form.restored(draft), json.dumps(reply)]
    if "preset" in asked:
        name = str(asked["preset"])
        reply = {"number": asked["number"], "job": "", "edit": False, "name": "", "title": name}
        return [*form.values(load_named(name) if name else EMPTY), json.dumps(reply)]
    job, edit = training(settings, str(asked["job"])), bool(asked["edit"])
    if edit:
        require_unbegun(job)
    config = build(RunConfig, job.request.config, f"{job.id}/job.yaml")
    kept = {"values": values, "name": str(asked.get("name", ""))}
    step = int(asked.get("step") or 0)
    name = f"{job.request.name}-from-{step}" if step else job.request.name
    reply = {
        "number": asked["number"], "job": job.id, "title": job.request.name, "edit": edit, "step": step,
        "name": "" if edit else free_name(settings.jobs, name), "kept": kept,
    }  # fmt: skip
    return [*form.values(config), json.dumps(reply)]


def training(settings: Settings, job_id: str) -> JobFolder:
    """Look a training up among those that exist.

    Raises:
        InputError: there is none of that id.
    """
    job = job_of_id(settings.jobs, job_id)
    if job is not None and job.request.kind == "train":
        return job
    raise InputError("this training run no longer exists", where=job_id)


def save(settings: Settings, job_id: str, config: RunConfig, steps: int | None) -> str:
    """Give a waiting run other settings, of so many steps where that is known; returns its id.

    Args:
        settings: of the home.
        job_id: of a training run that has not begun.
        config: checked.
        steps: optimizer updates; None until model and data are here and it can be planned.

    Raises:
        InputError: it is gone, has begun meanwhile, or begins with a checkpoint that does not fit them.
    """
    job = training(settings, job_id)
    rewrite(settings, job, config.model_dump(mode="json"), steps)
    return job.id
