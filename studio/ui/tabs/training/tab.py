"""The Training tab: the selected job live, or, while there is none, the way to the first one.

Everything that moves is drawn by the browser from our GET routes; the only handler here starts the demo.
"""

from __future__ import annotations

import gradio as gr

from studio.config.presets import DEMO, load_named
from studio.jobs import submit
from studio.train import preflight
from studio.ui.errors import guard
from studio.ui.form.planwords import waits_for
from studio.ui.page import QUIET, Page
from studio.ui.server.services import Services
from studio.ui.tabs.training import evaluation
from studio.ui.tabs.training.compare import comparison
from studio.ui.tabs.training.keep import keep_card
from studio.ui.tabs.training.monitor import job_log, job_monitor
from studio.ui.tabs.training.settings import settings_card

START = "Start the demo"
# assets/training/monitor.js fills in what the plan says.
EMPTY = """<div class="studio"><h2>Nothing has been trained yet</h2>
<p>The demo teaches a small model to turn messages into JSON<span data-demo="takes"></span>. It needs no
download.</p></div>"""


def build(page: Page) -> None:
    """Build the tab inside its `gr.Tab`."""
    with gr.Column(elem_id="training-empty", elem_classes=["card", "empty", "only-without-jobs"]):
        gr.HTML(EMPTY)
        with gr.Row(elem_classes=["empty-buttons"]):
            start = gr.Button(START, variant="primary", elem_id="start-demo")
            choose = gr.Button("Choose a model", elem_id="choose-model")
    with gr.Column(elem_id="training-job", elem_classes=["only-with-jobs"]):
        job_monitor()
        evaluation.build(page)
        job_log()
        settings_card()
        keep_card()
    comparison()

    start.click(lambda: gr.Button("Checking data and memory …", interactive=False), None, start, **QUIET).then(
        guard(lambda: start_demo(page.services)), None, page.job, **QUIET
    ).then(lambda: gr.Button(START, interactive=True), None, start, **QUIET)
    choose.click(None, None, None, js="() => { window.studio.openTab('model') }", api_visibility="private")


def start_demo(services: Services) -> str:
    """Check and submit the demo preset; return the id of its job.

    While the model is still to be prepared there is nothing to plan with: the job makes it, plans then, and
    shows both.

    Raises:
        StudioError: it cannot be started, for instance because memory or disk do not suffice.
    """
    config = load_named(DEMO)
    if waits_for(config, services):
        config = preflight.with_absolute_paths(config, services.settings)
    else:
        config = preflight.check(config, services.settings, services.data).config
    return submit(services.settings, "train", "demo", config.model_dump(mode="json")).id
