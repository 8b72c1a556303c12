"""What every tab is given: services, the selected job, the tabs, and a place for its one-line summary.

Components that drive several tabs are made here, outside the tabs, because gradio does not put the content of
an unopened tab into the document. They are hidden by style, not by `visible=False`, for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from studio.ui.server.services import Services

if TYPE_CHECKING:
    from studio.ui.form.schema import Form
    from studio.ui.tabs.chat.tab import ChatTab

# In the order of work. The key is the tab's id: `gr.Tabs(selected="data")` opens it.
TABS: dict[str, str] = {
    "model": "Model",
    "data": "Data",
    "method": "Method",
    "training": "Training",
    "chat": "Chat",
    "export": "Export",
}

# How an event is sent. gradio's queue answers over one stream for each page, and an event that joins while that
# stream is being closed is not answered until the next one comes (6.31: the client keeps no count of what is open).
# So only handlers that yield use the queue; the others are a plain request each.
STREAMED: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
QUIET: dict[str, Any] = {**STREAMED, "queue": False}


@dataclass
class Page:
    """One page while it is being built.

    Attributes:
        services: what handlers call.
        job: id of the selected job, "" for none. An input of handlers; as an output it selects a job. It
            changes when the person picks another job in the list or opens the page with one in the address.
        tabs: give `gr.Tabs(selected="training")` to it to open a tab.
        summaries: one hidden text for each tab; what a handler returns to it appears under the tab's name.
        form: the form of a run, set by the first tab that builds it.
        chat: the Chat tab, to which the Export tab hands a file.
    """

    services: Services
    job: gr.Textbox
    summaries: dict[str, gr.Textbox]
    tabs: gr.Tabs = field(init=False)
    form: Form = field(init=False)
    chat: ChatTab = field(init=False)

    @property
    def selections(self) -> list[Any]:
        """The events at which a job is selected: the page is opened, or `job` changes."""
        return [Context.root_block.load, self.job.change]


def build_page(services: Services) -> Page:
    """Make the hidden components; must be called inside a Blocks."""
    with gr.Column(elem_id="bus", elem_classes=["studio-hidden"]):
        job = gr.Textbox("", label="Selected job", elem_id="job-id", interactive=True)
        summaries = {
            name: gr.Textbox("", label=f"{title} summary", elem_id=f"summary-{name}", interactive=True)
            for name, title in TABS.items()
        }
    for name, box in summaries.items():
        box.change(None, box, None, js=f"text => {{ window.studio.summary('{name}', text) }}", api_visibility="private")
    job.change(None, job, None, js="id => { window.studio.select(id) }", api_visibility="private")
    return Page(services=services, job=job, summaries=summaries)
