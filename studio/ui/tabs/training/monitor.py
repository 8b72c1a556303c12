"""What a job does, live: state, progress, tiles, charts; and below it samples and the log.

Two components with constant markup, filled by assets/training/monitor.js, charts.js and log.js from /api/jobs/ID.
Plotly (4 MB) is fetched by the script after the first numbers are shown, so it delays no page.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import drawn
from studio.ui.server.theme import asset_url
from studio.ui.tabs.training.acts import ACTS, DIALOGS

CHARTS: dict[str, str] = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "tokens_per_second": "Tokens per second",
}
TILES: dict[str, str] = {
    "loss": "Training loss",
    "eval_loss": "Validation loss",
    "learning_rate": "Learning rate",
    "tokens_per_second": "Tokens per second",
    "memory": "Peak memory",
    "grad_norm": "Gradient norm",
}

_TILES = "".join(
    f'<div class="card tile" data-tile="{name}"><small>{title}</small><b>–</b><em></em></div>'
    for name, title in TILES.items()
)
_LOSS_LEGEND = (
    '<span class="legend"><span><i style="background:var(--c1)"></i>training</span>'
    '<span><i style="background:var(--c3)"></i>validation</span></span>'
)
_CHARTS = "".join(
    f'<section class="card chart" aria-label="{title}"><div class="row-flex"><h3>{title}</h3><span class="grow"></span>'
    f"{_LOSS_LEGEND if name == 'loss' else ''}</div>"
    f'<div class="plot" data-chart="{name}" role="img" aria-label="{title}"></div></section>'
    for name, title in CHARTS.items()
)

AXES = """
<label class="muted row-flex">Smoothing
  <input type="range" min="0" max="0.95" step="0.05" value="0.6" data-part="smooth"></label>
<span class="seg" role="group" aria-label="Horizontal axis">
  <button type="button" data-x="step" aria-pressed="true">Step</button>
  <button type="button" data-x="tokens" aria-pressed="false">Tokens</button>
  <button type="button" data-x="time" aria-pressed="false">Time</button>
</span>
<span class="seg" role="group" aria-label="Vertical axis">
  <button type="button" data-y="linear" aria-pressed="true">Linear</button>
  <button type="button" data-y="log" aria-pressed="false">Log</button>
</span>
"""

# One row for each rank of a run, where it has several: assets/training/ranks.js.
DEVICES = """
<section class="card ranks" data-part="ranks" aria-label="Devices" hidden>
  <div class="row-flex wrap-flex"><h3>Devices</h3><span class="muted num" data-part="ranks-about"></span></div>
  <div class="scroll-x" tabindex="0" role="region" aria-label="Table of devices"><table class="num">
    <thead><tr data-part="ranks-head"></tr></thead><tbody data-part="ranks-rows"></tbody></table></div>
</section>
"""

MONITOR = f"""
<div class="studio monitor" data-plotly="{asset_url("plotly.min.js")}">
  <div class="row-flex wrap-flex">
    <span class="pill" data-part="pill"></span>
    <h2 data-part="name"></h2>
    <span class="muted num" data-part="about"></span>
    <span class="grow"></span>
    <span class="muted" data-part="notify-said" role="status"></span>
    <button type="button" class="btn small quiet switch" role="switch" aria-checked="false" data-part="notify"
      title="Notify me when a run ends" hidden>Notify me</button>
    <button type="button" class="btn small primary" data-part="resume" hidden>Resume</button>
    <button type="button" class="btn small" data-part="pause" hidden>Pause</button>
    <button type="button" class="btn small danger" data-part="stop" hidden>Stop and save</button>
    <button type="button" class="btn small danger" data-part="stop-now" hidden>Stop now</button>
  </div>
  <div class="row-flex wrap-flex next-steps" data-part="next" role="group" aria-label="What comes next" hidden>
    <button type="button" class="btn" data-next="evaluate"><b>Evaluate</b><small class="num"></small></button>
    <button type="button" class="btn" data-next="chat"><b>Chat</b><small class="num"></small></button>
    <button type="button" class="btn" data-next="export"><b>Export</b><small class="num"></small></button>
  </div>
  {ACTS}
  <div class="row-flex num progress">
    <div class="bar" data-part="bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100">
      <i></i></div>
    <b data-part="count"></b>
    <span class="muted" data-part="left"></span>
  </div>
  <p class="muted num phases" data-part="phases"></p>
  <dl class="trackers" data-part="trackers" hidden></dl>
  <p class="notice warning" data-part="problem" role="status" hidden></p>
  <div data-part="notices" aria-live="polite"></div>
  <div data-part="training" hidden>
    <div class="tiles num">{_TILES}</div>
    {DEVICES}
    <div class="row-flex wrap-flex controls">
      {AXES}
      <span class="grow"></span>
      <label class="muted row-flex">Compare with
        <select class="field-input" data-part="compare"><option value="">none</option></select></label>
    </div>
    <div class="charts">{_CHARTS}</div>
  </div>
  <dialog class="ask" data-part="ask" aria-labelledby="ask-title">
    <h3 id="ask-title" data-part="ask-title"></h3>
    <p class="muted" data-part="ask-text"></p>
    <div class="row-flex"><span class="grow"></span>
      <button type="button" class="btn" data-part="ask-no">Keep running</button>
      <button type="button" class="btn danger" data-part="ask-yes"></button>
    </div>
  </dialog>
  {DIALOGS}
</div>
"""

LOG = """
<div class="studio joblog">
  <section class="card" data-part="samples" aria-label="Samples while training" hidden>
    <div class="row-flex"><h3>Samples while training</h3><span class="muted num" data-part="sample-step"></span></div>
    <div class="scroll-x" tabindex="0" role="region" aria-label="Table of samples"><table>
      <thead><tr data-part="sample-head"></tr></thead><tbody data-part="sample-rows"></tbody></table></div>
  </section>
  <section class="card" data-part="log-card" aria-label="Log" hidden>
    <div class="row-flex wrap-flex"><h3>Log</h3>
      <select class="field-input" data-part="rank" aria-label="Log of" hidden></select><span class="grow"></span>
      <input type="search" class="field-input" placeholder="Search" aria-label="Search the log" data-part="search">
      <span class="seg" role="group" aria-label="Lines shown">
        <button type="button" data-show="follow" aria-pressed="true">Follow</button>
        <button type="button" data-show="all" aria-pressed="false">All</button>
        <button type="button" data-show="warnings" aria-pressed="false">Warnings <span
        data-part="alerts">0</span></button>
      </span>
      <a class="btn small" data-part="log-link" download>Download</a>
    </div>
    <div class="log" data-part="lines" tabindex="0" role="log" aria-label="Log lines" aria-live="off"></div>
  </section>
</div>
"""


_SCRIPTS = (
    "charts/chartfiles.js", "charts/charts.js", "training/log.js", "training/notices.js", "training/notify.js",
    "training/branch.js", "training/reader.js", "training/tracked.js", "training/ranks.js", "training/monitor.js",
)  # fmt: skip


def job_monitor() -> gr.HTML:
    """Make state, progress, tiles and charts of the selected job."""
    return drawn(MONITOR, "monitor notify", *_SCRIPTS, elem_id="monitor")


def job_log() -> gr.HTML:
    """Make samples and log of the selected job."""
    return drawn(LOG, "log", *_SCRIPTS, elem_id="job-log")
