"""The first line of each tab: whether it is about the draft or about the selected job (assets/core/whose.js)."""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import drawn, markup

# Tabs that describe the next run.
DRAFT_TABS = ("model", "data", "method")
_DRAFT = '<div class="studio"><p class="whose"><b>Draft</b> <span>the settings of your next run</span></p></div>'
_JOB = '<div class="studio"><p class="whose" role="status"><b></b> <span></span></p></div>'


def whose_line(tab: str) -> gr.HTML:
    """Make the first line of a tab, by its id."""
    if tab in DRAFT_TABS:
        return markup(_DRAFT)
    return drawn(_JOB, "whose", "core/whose.js")
