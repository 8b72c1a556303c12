"""The fields of the Export tab for where an export is put: a repository of the Hub, a folder or a zip file."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.config.describe import OptionSpec
from studio.config.jobs import PLACES, Destination

# What is put there, as people call it.
WHATS = {"merged": "Merged checkpoint", "adapter": "Adapter", "gguf": "GGUF"}


class DeliveryFields:
    """The fields, shown for the destinations that are places.

    Attributes:
        inputs: what a submission reads, in the order of `placed`.

    Args:
        specs: options of an export, by name.
    """

    def __init__(self, specs: dict[str, OptionSpec]) -> None:
        assert set(WHATS) == set(specs["what"].choices)
        look: dict[str, Any] = {"interactive": True, "elem_classes": ["field"]}
        with gr.Column(visible=False, elem_id="export-delivery") as self.column:
            self.what = gr.Radio(
                [(title, word) for word, title in WHATS.items()], value=specs["what"].default,
                label=specs["what"].title, info=specs["what"].help, elem_id="export-what", **look,
            )  # fmt: skip
            with gr.Column(elem_id="export-hub") as self.hub:
                self.repo = gr.Textbox(
                    label=specs["repo"].title, info=specs["repo"].help, placeholder="you/your-model", max_lines=1,
                    elem_id="export-repo", **look,
                )  # fmt: skip
                with gr.Row(elem_classes=["export-row"]):
                    self.private = gr.Checkbox(
                        value=specs["private"].default, label=specs["private"].title, info=specs["private"].help,
                        elem_id="export-private", **look,
                    )  # fmt: skip
                    self.overwrite = gr.Checkbox(
                        value=specs["overwrite"].default, label=specs["overwrite"].title, info=specs["overwrite"].help,
                        elem_id="export-overwrite", **look,
                    )  # fmt: skip
            self.path = gr.Textbox(
                label=specs["path"].title, info=specs["path"].help, placeholder="~/exports/my-model", max_lines=1,
                visible=False, elem_id="export-path", **look,
            )  # fmt: skip
        self.inputs = [self.what, self.repo, self.private, self.overwrite, self.path]
        self.shown = [self.column, self.hub, self.path]

    def show(self, to: Destination) -> list[Any]:
        """Updates of `shown` for a destination."""
        return [gr.Column(visible=to in PLACES), gr.Column(visible=to == "hub"), gr.Textbox(visible=to == "folder")]


def placed(to: str, fields: tuple[Any, ...]) -> dict[str, Any]:
    """Return the options that a destination reads of the fields.

    Args:
        to: the destination.
        fields: values of `DeliveryFields.inputs`; None for one that is hidden.
    """
    if to not in PLACES:
        return {}
    what, repo, private, overwrite, path = fields
    hub = {"repo": (repo or "").strip() or None, "private": private is not False, "overwrite": overwrite is True}
    return {"what": what, **(hub if to == "hub" else {"path": (path or "").strip() or None})}
