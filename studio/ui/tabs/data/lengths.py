"""Tokens per row as a histogram with the limit drawn in.

An SVG drawn by assets/data/tokens.js from `DataReport.lengths`. It needs no chart library, so the tab opens at once.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import piece

TEMPLATE = """
<section class="studio card" aria-label="Tokens per row">
  <div class="row-flex wrap-flex"><h3>Tokens per row</h3><span class="grow"></span>
    <span class="lengths-figures muted num"></span></div>
  <div class="lengths-plot"></div>
</section>
"""


def length_chart() -> gr.HTML:
    """Make the histogram; it draws what topic "data" of the page's bus brings."""
    return piece(TEMPLATE, "lengths", elem_id="lengths")
