"""Several runs over each other: curves, the options that differ, results.

The markup is constant and stands in the Training tab instead of the selected job while runs are compared; it is a
template, so that a page that compares nothing has no second set of charts. assets/charts/compare.js fills it from
/api/compare and the runs' events.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import drawn
from studio.ui.server.theme import asset_url
from studio.ui.tabs.training.monitor import AXES

CHARTS: dict[str, str] = {
    "loss": "Training loss",
    "eval_loss": "Validation loss",
    "learning_rate": "Learning rate",
    "tokens_per_second": "Tokens per second",
}
_CHARTS = "".join(
    f'<section class="card chart" aria-label="{title}"><div class="row-flex"><h3>{title}</h3>'
    '<span class="grow"></span></div>'
    f'<div class="plot" data-chart="{name}" role="img" aria-label="{title} of the compared runs"></div></section>'
    for name, title in CHARTS.items()
)

TEMPLATE = f"""
<div class="studio compare" data-plotly="{asset_url("plotly.min.js")}"><template>
  <div class="row-flex wrap-flex">
    <h2 data-compare="title"></h2>
    <span class="grow"></span>
    <span class="muted" role="status" data-compare="copied"></span>
    <button type="button" class="btn small" data-compare="markdown">Copy as Markdown</button>
    <a class="btn small" download data-compare="csv">Download CSV</a>
    <button type="button" class="btn small" data-compare="close">Close</button>
  </div>
  <ul class="legend" aria-label="Compared runs" data-compare="legend"></ul>
  <p class="notice warning" role="status" data-compare="problem" hidden></p>
  <div data-compare="notes"></div>
  <div class="row-flex wrap-flex controls">{AXES}</div>
  <div class="charts" data-compare="charts">{_CHARTS}</div>
  <section class="card" aria-label="Options and results">
    <div class="scroll-x" tabindex="0" role="region" aria-label="Table of options and results"><table>
      <thead><tr data-compare="head"></tr></thead><tbody data-compare="body"></tbody></table></div>
  </section>
</template></div>
"""


def comparison() -> gr.HTML:
    """Make the comparison; it is hidden while fewer than two runs are compared."""
    return drawn(
        TEMPLATE, "compare", "charts/chartfiles.js", "charts/charts.js", "training/log.js", "training/reader.js",
        "training/monitor.js", "charts/compare.js", elem_id="comparison",
    )  # fmt: skip
