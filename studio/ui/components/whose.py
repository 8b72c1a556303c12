"""The first line of each tab: whether it is about the draft or about the selected job (assets/core/whose.js)."""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import markup
from studio.ui.server.theme import script_tags

# Tabs that describe the next run.
DRAFT_TABS = ("model", "data", "method")
_DRAFT = '<div class="studio"><p class="whose"><b>Draft</b> <span>the settings of your next run</span></p></div>'
_JOB = '<div class="studio"><p class="whose" role="status"><b></b> <span></span></p></div>'


def whose_line(tab: str) -> gr.HTML:
    """Make the first line of a tab, by its id."""
    if tab in DRAFT_TABS:
        return markup(_DRAFT)
    return gr.HTML(
        value=None,
        html_template=_JOB,
        head=script_tags("core/whose.js"),
        js_on_load="window.studio.whose.mount(element)",
        apply_default_css=False,
    )
