"""The selected run's settings, to read; **Use as draft** fills the form with them (assets/training/settings.js)."""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import drawn

_SETTINGS = """<div class="studio"><details class="card run-settings" hidden>
  <summary><b>Settings of this run</b> <span class="muted num" data-settings="count"></span></summary>
  <p class="muted" data-settings="note" role="status"></p>
  <div class="scroll-x" tabindex="0" role="region" aria-label="Settings of this run"><table>
    <thead><tr><th scope="col">Option</th><th scope="col">Value</th></tr></thead></table></div>
  <button type="button" class="btn small" data-settings="take">Use as draft</button>
</details></div>"""


def settings_card() -> gr.HTML:
    """Make the fold with the selected run's settings."""
    return drawn(_SETTINGS, "settings", "training/settings.js")
