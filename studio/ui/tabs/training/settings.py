"""The selected run's settings, to read; **Use as draft** fills the form with them (assets/training/settings.js)."""

from __future__ import annotations

import gradio as gr

from studio.ui.server.theme import script_tags

_SETTINGS = """<div class="studio"><details class="card run-settings" hidden>
  <summary><b>Settings of this run</b> <span class="muted num" data-settings="count"></span></summary>
  <p class="muted" data-settings="note" role="status"></p>
  <div class="scroll-x" tabindex="0" role="region" aria-label="Settings of this run"><table>
    <thead><tr><th scope="col">Option</th><th scope="col">Value</th></tr></thead></table></div>
  <button type="button" class="btn small" data-settings="take">Use as draft</button>
</details></div>"""


def settings_card() -> gr.HTML:
    """Make the fold with the selected run's settings."""
    return gr.HTML(
        value=None,
        html_template=_SETTINGS,
        head=script_tags("training/settings.js"),
        js_on_load="window.studio.settings.mount(element)",
        apply_default_css=False,
    )
