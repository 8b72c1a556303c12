"""What the cards share that let the second data worker do something: their buttons, what they ask with, refusals.

A card begins its work by a request of gradio's, with the form's values and what assets/data/profile.js adds to them,
and polls for it at /api/data (`DataTasks`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.config import RunConfig
from studio.data.wire import SECTIONS, run_sections
from studio.errors import InputError, InputErrors, StudioError
from studio.foreign import parse_json
from studio.models.plan.batches import by_length
from studio.models.plan.fit import grouping
from studio.ui.errors import guard
from studio.ui.form.planwords import waits_for
from studio.ui.form.schema import Form, Values
from studio.ui.page import QUIET, Page

# What the profile depends on besides the sections.
BESIDE = ("training.seed", "training.batch_size", "training.micro_batch_size", "training.padding_free")
MICRO_BATCH = 8
PROGRESS = """<div class="row-flex task-progress" hidden><div class="bar"><i></i></div>
    <span class="task-text muted num" role="status"></span></div>
  <p class="task-note" role="status"></p>"""


def buttons(label: str) -> str:
    """Markup of the button that begins the work and of the one that ends it."""
    return f"""<button type="button" class="btn small task-begin">{label}</button>
    <button type="button" class="btn small task-cancel" hidden>Cancel</button>"""


class Asked(dict[str, Any]):
    """What assets/data/profile.js adds to the form's values: `page` (its id), `number`, and what the card asks for."""

    @classmethod
    def read(cls, text: Any) -> Asked:
        """Read it.

        Raises:
            InputError: it is not what the script sends.
        """
        try:
            given = cls(parse_json(str(text)))
            given["page"] = str(given["page"])[:40]
            given["number"] = int(given["number"])
        except (TypeError, ValueError, KeyError) as error:
            raise InputError("the page is outdated", fix="Reload the page") from error
        return given

    @property
    def page(self) -> str:
        """Id of the page that asks."""
        return str(self["page"])

    @property
    def number(self) -> int:
        """Number of the request."""
        return int(self["number"])


Calls = list[tuple[str, Values]]


def begin_by_click(
    page: Page, card: gr.HTML, kind: str, calls: Callable[[Asked, Values], Calls], show: Callable[[Values], Values]
) -> None:
    """Let a card's click begin its work; what cannot be begun is said in the card.

    Args:
        page: the page, whose form is whole by the time this is called.
        card: the card.
        kind: name of the work, for the page's script and `DataTasks`.
        calls: turns what is asked and the form's values into operations of the data worker with their arguments.
        show: turns an answer into what the card draws.
    """
    form = page.form

    def begin(*values: Any) -> Values:
        asked = Asked.read(values[-1])
        try:
            work = calls(asked, form.raw(values[:-1]))
        except StudioError as error:
            return refusal(form, error)
        page.services.tasks.begin(asked.page, kind, work, show)
        return {"number": asked.number, "error": ""}

    card.click(guard(begin), [*form.inputs, form.meta], card, js=asking(kind, form), **QUIET)


def is_seen(path: str) -> bool:
    """Whether the profile depends on an option."""
    return path.split(".")[0] in SECTIONS or path in BESIDE


def places(form: Form) -> list[int]:
    """Places of the options that the profile depends on among the form's inputs."""
    return [at for at, path in enumerate(form.specs) if is_seen(path)]


def asking(mount: str, form: Form) -> str:
    """The script before a request of a card: it adds what `Asked.read` reads."""
    return f"(...values) => window.studioForm.asking('{mount}', values, {json.dumps(places(form))})"


def sections_of(page: Page, values: Values) -> tuple[Values, int, int]:
    """Return the sections for the data worker, the seed and the rows of a micro-batch.

    Options that the data does not depend on may be wrong.

    Raises:
        InputErrors: the data, the method or the model is wrong.
        StudioError: the model is not here yet.
    """
    config = _config(page, values)
    if waits_for(config, page.services):
        raise StudioError("the rows can be counted as soon as the model is here", fix="Wait until it is ready")
    return run_sections(config), config.training.seed, micro_batch_of(config)


def grouping_of(page: Page, values: Values) -> Values:
    """How rows of like length are put together, as the data worker's `profile` and `batch` take it; else nothing.

    Raises:
        InputErrors: the data, the method or the model is wrong.
    """
    return grouping(_config(page, values), page.form.device)


def _config(page: Page, values: Values) -> RunConfig:
    try:
        return page.form.config(values)
    except InputErrors as wrong:
        if ours := [error for error in wrong.errors if is_seen(error.where)]:
            raise InputErrors(ours) from wrong
        names = {error.where for error in wrong.errors}
        return page.form.config({path: value for path, value in values.items() if path not in names})


def micro_batch_of(config: RunConfig) -> int:
    """Rows at a time: as set; where the plan is to choose, all of an update that its tokens allow, or eight."""
    micro, batch = config.training.micro_batch_size, config.training.batch_size
    if micro != "auto":
        return micro
    return batch if by_length(config) else min(MICRO_BATCH, batch)


def refusal(form: Form, error: StudioError) -> Values:
    """What a card shows of a request that cannot be begun."""
    sentences = [form.problem(one)["sentence"] for one in getattr(error, "errors", [error])]
    return {"number": 0, "error": "\n".join(sentences)}
