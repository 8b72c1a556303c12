"""Configs of other tools in the Method tab: one comes in and fills the form, the form goes out as one; and the command.

What is read and written is `studio.interop`; this only shows it (assets/form/interop.js).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputErrors, StudioError
from studio.interop.reading import Given, read_file, read_text
from studio.interop.tools import READ, TOOLS, WRITERS, export_to, import_given
from studio.ui.components.choices import piece
from studio.ui.errors import guard
from studio.ui.form.schema import Form
from studio.ui.page import QUIET

COMMAND = """
<div class="studio command-line">
  <div class="row-flex wrap-flex"><b>Command</b><span class="grow"></span>
    <button type="button" class="command-copy btn small" aria-label="Copy the command">Copy</button></div>
  <pre class="command-text log" tabindex="0" role="region" aria-label="The run as a command"></pre>
</div>
"""
IMPORTED = """
<div class="studio imported">
  <p class="imported-said muted" role="status"></p>
  <ul class="imported-problem wrong" role="alert"></ul>
  <div class="imported-body" hidden><table class="imported-table" aria-label="What became of each key">
    <thead><tr><th>Key</th><th>Status</th><th>Where it went</th><th>Why</th></tr></thead><tbody></tbody></table></div>
</div>
"""
EXPORTED = """
<div class="studio exported">
  <button type="button" class="exported-make btn small">Export config</button>
  <ul class="exported-problem wrong" role="alert"></ul>
  <div class="exported-body" hidden></div>
</div>
"""
Filled = Callable[..., list[Any]]


class InteropCard:
    """The pieces, below the run as a file."""

    def __init__(self) -> None:
        tools = [(TOOLS[name].title, name) for name in WRITERS]
        self.command = piece(COMMAND, "command", elem_id="train-command")
        with gr.Row(elem_classes=["file-row"]):
            self.text = gr.Textbox(
                label="Import a config of another tool", elem_id="import-text", lines=2, max_lines=12, scale=3,
                info=f"Paste the YAML, JSON or command line of {', '.join(READ[:-1])} or {READ[-1]}.",
            )  # fmt: skip
            self.go = gr.Button("Import", elem_id="import-go", size="sm")
            self.file = gr.UploadButton(
                "Import a file", file_types=[".yaml", ".yml", ".json", ".sh", ".txt"], type="filepath",
                elem_id="import-file", size="sm",
            )  # fmt: skip
        self.imported = piece(IMPORTED, "imported", elem_id="imported")
        self.tool = gr.Dropdown(tools, value=tools[0][1], label="Export for", elem_id="export-tool", interactive=True)
        self.exported = piece(EXPORTED, "exported", elem_id="exported")

    def wire(self, form: Form, filled: Filled) -> None:
        """Connect the pieces.

        Args:
            form: whose values go in and out.
            filled: (config, name) to what the form and its origin are given, and a note for the file.
        """
        nothing = [gr.skip() for _ in (*form.inputs, form.origin)]

        def read(read_it: Callable[[], Given], name: str) -> list[Any]:
            try:
                found = import_given(read_it())
                if not found.run:
                    return [*nothing, {**found.as_dict(), "said": "This config trains nothing; it only exports"}]
                *values, _ = filled(build(RunConfig, found.run), name or found.tool)
                return [*values, {**found.as_dict(), "said": f"Imported from {found.tool}"}]
            except StudioError as error:
                return [*nothing, {"errors": _sentences(error)}]

        def paste(text: str) -> list[Any]:
            return read(lambda: read_text(text), "")

        def load(path: str) -> list[Any]:
            # Nothing lies beside what a browser has sent, so nothing is looked for there.
            name = Path(path).name
            return read(lambda: replace(read_file(Path(path)), folder=None, where=name), name)

        def write(tool: str, *values: Any) -> dict[str, Any]:
            try:
                return export_to(form.config(form.raw(values)), tool).as_dict()
            except InputErrors as wrong:
                return {"errors": [form.problem(error)["sentence"] for error in wrong.errors]}
            except StudioError as error:
                return {"errors": [form.problem(error)["sentence"]]}

        outputs = [*form.inputs, form.origin, self.imported]
        self.go.click(guard(paste), self.text, outputs, **QUIET)
        self.file.upload(guard(load), self.file, outputs, **QUIET)
        self.exported.click(guard(write), [self.tool, *form.inputs], self.exported, **QUIET)


def _sentences(error: StudioError) -> list[str]:
    return error.sentence.splitlines()
