"""A cleaned copy put on the Hugging Face Hub; offered when `keepdata` has written one.

The upload is done by the second data worker with the token of the studio's environment (HF_TOKEN), which no page sees.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from studio.errors import InputError
from studio.ui.components.choices import piece
from studio.ui.form.schema import Values
from studio.ui.page import Page
from studio.ui.tabs.data.taskcard import PROGRESS, Asked, Calls, begin_by_click, buttons

TEMPLATE = f"""
<section class="studio card keep push" aria-label="Push to the Hub" hidden>
  <h3>Push to the Hugging Face Hub</h3>
  <p class="muted">Uploads <code class="push-name"></code> as a dataset, with the token in HF_TOKEN.</p>
  <div class="keep-fields">
    <label>Dataset ID<input class="push-repo field-input" type="text" maxlength="96" placeholder="you/your-set"
      autocomplete="off" spellcheck="false"></label>
  </div>
  <label class="tick"><input type="checkbox" class="push-public"> <span>Public</span></label>
  <div class="row-flex wrap-flex keep-buttons">
    {buttons("Upload")}</div>
  {PROGRESS}
</section>
"""


def push_card(page: Page) -> gr.HTML:
    """Make the card and wire it."""
    card = piece(TEMPLATE, "push", elem_id="push-data")

    def calls(asked: Asked, raw: Values) -> Calls:
        kept = page.services.tasks.find(asked.page, "keep")
        if kept is None or not kept.answers:
            raise InputError(
                "this page no longer knows the copy, since the studio was restarted",
                fix="Write it again, or use `studio data keep --push`",
            )
        name = Path(kept.answers[-1]["path"]).name
        repo, public = str(asked.get("repo", "")).strip(), asked.get("public") is True
        return [("push", {"name": name, "repo": repo, "private": not public})]

    page.form.wiring.append(lambda: begin_by_click(page, card, "push", calls, push_value))
    return card


def push_value(pushed: Values) -> Values:
    """Turn the worker's answer to `push` into what the card draws."""
    return {"said": f"{pushed['repo']} has it now: {', '.join(pushed['splits'])}."}
