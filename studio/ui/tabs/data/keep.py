"""A cleaned copy of the data under STUDIO_HOME/data, and the run set to train on it.

What may be dropped is `studio.data.quality.keep.DROPPABLE`; checks with rows in the last profile come first. The copy
is written by the second data worker; nothing is written over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.data.quality.keep import DROPPABLE, FORMATS
from studio.errors import InputError
from studio.ui.components.choices import piece
from studio.ui.errors import guard
from studio.ui.form.schema import TRAIN, Values
from studio.ui.page import QUIET, Page
from studio.ui.tabs.data.taskcard import PROGRESS, Asked, Calls, begin_by_click, buttons, sections_of

VALIDATION = "data.validation"
# What a row has that is dropped by a check.
LABELS = {
    "unusable": "rows that cannot be used",
    "empty_answer": "an empty answer",
    "control_token": "a special token spelled in the text",
    "too_long": "more tokens than the limit",
    "answer_is_prompt": "an answer that repeats the prompt",
    "broken_characters": "broken characters",
    "secret": "a key, password or email address",
    "straddling": "an answer that starts with whitespace",
    "rewritten": "an answer that the chat template changes",
    "prompt_extra": "more text before the answer in generation than in training",
    "other_context": "a prompt that the template renders differently for generation",
    "header": "the turn's header trained on with the answer",
    "no_stop": "no end-of-turn token after the answer",
    "lost": "characters that the tokenizer drops",
    "control": "special tokens in plain text",
    "turns": "turns out of order",
    "no_question": "an empty user message",
}
TEMPLATE = f"""
<section class="studio card keep" aria-label="Cleaned copy">
  <h3>Cleaned copy</h3>
  <p class="muted">Saves a cleaned copy with a list of what was dropped and why. Your files are not changed.</p>
  <div class="keep-fields">
    <label>Name<input class="keep-name field-input" type="text" maxlength="64" autocomplete="off" spellcheck="false">
    </label>
    <label>Format<select class="keep-format field-input"></select></label>
  </div>
  <fieldset class="keep-ticks"><legend>Drop rows with</legend><div class="keep-found"></div>
    <details><summary class="keep-more">more</summary><div class="keep-others"></div></details></fieldset>
  <label class="tick"><input type="checkbox" class="keep-hide"> <span>Hide keys, passwords and email addresses
    (<code>[API key]</code> instead)</span></label>
  <p class="keep-doubles muted"></p>
  <div class="row-flex wrap-flex keep-buttons">
    {buttons("Save a cleaned copy")}</div>
  {PROGRESS}
  <div class="keep-result" hidden>
    <dl class="facts keep-figures num"></dl>
    <button type="button" class="btn small primary keep-train">Train on it</button>
  </div>
</section>
"""


def keep_card(page: Page) -> gr.HTML:
    """Make the card and wire it."""
    checks = [{"check": check, "label": LABELS[check]} for check in DROPPABLE]
    card = piece(TEMPLATE, "keep", constants={"checks": checks, "formats": FORMATS}, elem_id="keep-data")
    form, tasks = page.form, page.services.tasks

    def calls(asked: Asked, raw: Values) -> Calls:
        sections, _, _ = sections_of(page, raw)
        drop = asked.get("drop")
        args = {
            **sections, "name": str(asked.get("name", "")), "format": str(asked.get("format", "")),
            "drop": [str(check) for check in drop] if isinstance(drop, list) else [],
            "hide_secrets": asked.get("hide") is True,
        }  # fmt: skip
        return [("keep", args)]

    def train(text: str) -> list[Any]:
        task = tasks.find(Asked.read(text).page, "keep")
        if task is None or not task.answers:
            raise InputError(
                "this page no longer knows the copy, since the studio was restarted", fix="Add its path to the files"
            )
        return trained_on(task.answers[-1])

    def connect() -> None:
        begin_by_click(page, card, "keep", calls, kept_value)
        targets = [form.components[TRAIN], form.components[VALIDATION]]
        card.select(guard(train), form.meta, targets, js="(text) => [window.studioForm.askingPage(text)]", **QUIET)

    form.wiring.append(connect)
    return card


def kept_value(kept: Values) -> Values:
    """Turn the worker's answer to `keep` into what the card draws."""
    left = [f"{label_of(check)} ({count:,})" for check, count in kept["left_out"].items()]
    files = sorted(kept["files"], key=lambda one: one["part"] != "train")
    figures = [
        ["Saved", f"{kept['kept']:,} of {kept['rows']:,} rows"],
        ["Dropped", "; ".join(left) or "none"],
        ["Files", ", ".join(f"{one['file']} ({one['rows']:,})" for one in files)],
    ]
    if kept["hidden_secrets"]:
        figures.append(["Hidden", f"{kept['hidden_secrets']:,} keys, passwords or addresses"])
    if kept["unread_keys"]:
        figures.append(["Keys not written", ", ".join(sorted(kept["unread_keys"])[:10])])
    return {"figures": [*figures, ["Folder", kept["path"]]], "name": Path(kept["path"]).name}


def label_of(check: str) -> str:
    """What rows have that a check drops; duplicates are dropped by an option."""
    return LABELS.get(check, "a duplicate of an earlier row")


def trained_on(kept: Values) -> list[Any]:
    """Values of data.train and data.validation that train on a cleaned copy; a share for validation stays."""
    files = {one["part"]: str(Path(kept["path"]) / one["file"]) for one in kept["files"]}
    raw = {"reading": "raw"} if kept["reading"] == "raw" else {}
    return [[{"path": files["train"], "format": "auto", **raw}], files.get("validation", gr.skip())]
