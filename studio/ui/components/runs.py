"""The left column: brand, New run, the jobs with search, filters and choice, the device, and who signs out.

The markup is constant; assets/runs/runs.js and organise.js fill it from /api/jobs, names as text only. Signing out is
done by assets/session/session.js, which has the key that it needs.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import drawn, markup
from studio.ui.components.newrun import dialog

TEMPLATE = f"""
<aside class="side" aria-label="Runs">
  <div class="side-head">
    <h1 class="brand"><i aria-hidden="true"></i>Finetune Studio</h1>
    <button type="button" class="btn quiet runs-toggle" aria-expanded="false" aria-controls="runs-body">Runs</button>
    <button type="button" class="btn quiet theme-toggle" aria-label="Toggle dark mode" title="Toggle dark mode">
      <svg viewBox="0 0 20 20" width="16" height="16" aria-hidden="true">
        <path d="M10 2a8 8 0 1 0 0 16z" fill="currentColor"/>
        <circle cx="10" cy="10" r="7.25" fill="none" stroke="currentColor" stroke-width="1.5"/>
      </svg>
    </button>
  </div>
  <div id="runs-body" class="runs-body">
    <button type="button" class="btn primary new-run">New run</button>
    <p class="runs-problem" role="status"></p>
    <div class="runs-tools" data-runs="tools" hidden>
      <div class="row-flex">
        <input type="search" class="field-input" placeholder="Search" aria-label="Search jobs" data-runs="search">
        <button type="button" class="btn small" aria-pressed="false" data-runs="choose">Select</button>
      </div>
      <details><summary>Filter and sort</summary>
        <label>Status <select class="field-input" data-runs="status"><option value="">any</option>
          <option>running</option><option>waiting</option><option>done</option><option>stopped</option>
          <option>failed</option></select></label>
        <label>Tag <select class="field-input" data-runs="tag"><option value="">any</option></select></label>
        <label>Sort by <select class="field-input" data-runs="order"><option value="newest">newest first</option>
          <option value="best">best loss first</option><option value="size">largest first</option></select></label>
        <label><input type="checkbox" data-runs="archived"> Show archived</label>
      </details>
    </div>
    <button type="button" class="draft-entry"><b>Draft</b><small></small></button>
    <ul class="runs" aria-label="Jobs: running, then waiting in queue order, then newest first"></ul>
    <p class="runs-none" hidden>No matching jobs. <button type="button" class="btn quiet small"
      data-runs="all">Show all</button></p>
    <div class="runs-acts" role="group" aria-label="Actions for the selected jobs" data-runs="acts" hidden>
      <b data-runs="chosen"></b>
      <div class="row-flex wrap-flex">
        <button type="button" class="btn small primary" data-runs="compare">Compare</button>
        <button type="button" class="btn small" data-runs="archive">Archive</button>
        <button type="button" class="btn small danger" data-runs="delete">Delete</button>
        <button type="button" class="btn small quiet" data-runs="done">Cancel</button>
      </div>
    </div>
    <div class="device num"></div>
  </div>
  {dialog()}
</aside>
"""
SIGN_OUT = """<div class="studio sign-out">
<button type="button" class="btn quiet small" data-sign-out="here">Sign out</button>
<button type="button" class="btn quiet small" data-sign-out="everywhere"
  title="Ends every session of this login, in every browser and script">Sign out everywhere</button></div>"""


def run_list() -> gr.HTML:
    """Make the list of jobs; selecting one sets `Page.job`."""
    return drawn(
        TEMPLATE, "runs", "charts/compare.js", "training/keep.js", "training/queue.js", "runs/organise.js",
        "core/whose.js", "runs/newrun.js", "runs/runs.js", elem_id="run-list",
    )  # fmt: skip


def sign_out() -> gr.HTML:
    """Make the buttons that sign out, here or everywhere; only where the page asks who is there."""
    return markup(SIGN_OUT)
