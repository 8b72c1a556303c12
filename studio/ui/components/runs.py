"""The left column: brand, New run, the jobs, the device.

The markup is constant; assets/runs.js fills it from /api/jobs, names as text only.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.theme import script_tags

TEMPLATE = """
<aside class="side" aria-label="Runs">
  <div class="side-head">
    <h1 class="brand"><i aria-hidden="true"></i>Finetune Studio</h1>
    <button type="button" class="btn quiet runs-toggle" aria-expanded="false" aria-controls="runs-body">Runs</button>
    <button type="button" class="btn quiet theme-toggle" aria-label="Dark or light" title="Dark or light">
      <svg viewBox="0 0 20 20" width="16" height="16" aria-hidden="true">
        <path d="M10 2a8 8 0 1 0 0 16z" fill="currentColor"/>
        <circle cx="10" cy="10" r="7.25" fill="none" stroke="currentColor" stroke-width="1.5"/>
      </svg>
    </button>
  </div>
  <div id="runs-body" class="runs-body">
    <button type="button" class="btn primary new-run">New run</button>
    <p class="runs-problem" role="status"></p>
    <ul class="runs" aria-label="Jobs: those that run, those that wait in their order, then the newest"></ul>
    <div class="device num"></div>
  </div>
</aside>
"""


def run_list() -> gr.HTML:
    """Make the list of jobs; selecting one sets `Page.job`."""
    return gr.HTML(
        value=None,
        html_template=TEMPLATE,
        head=script_tags("queue.js", "runs.js"),
        js_on_load="window.studio.runs.mount(element)",
        apply_default_css=False,
        elem_id="run-list",
    )
