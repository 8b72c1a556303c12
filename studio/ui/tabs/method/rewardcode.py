"""The file of a Python reward, shown before a person says that it may run."""

from __future__ import annotations

import gradio as gr

from studio.config import RunConfig
from studio.errors import StudioError
from studio.train.rewards.python import read_reference
from studio.ui.components.choices import piece

SHOWN_BYTES = 100_000
CODE = """
<section class="studio code-shown" aria-label="The Python reward" hidden>
  <p><b class="code-title"></b> <span class="muted code-said"></span></p>
  <pre class="code-text log" tabindex="0" role="region" aria-label="Code of the Python reward"></pre>
</section>
"""


def reward_code() -> gr.HTML:
    """Make the piece; it draws what `code_of` put into the plan."""
    return piece(CODE, "code", elem_id="reward-code")


def code_of(config: RunConfig) -> dict[str, str] | None:
    """Return {"title", "said", "text"} of the reward's file, or None where there is none to read.

    The caller has checked that the page may read the file. A file that is too long to be read by a person is cut, and
    that is said.
    """
    method = config.method
    if not method.kind.online or "python" not in method.rewards or not method.reward_python:
        return None
    try:
        path, name, text = read_reference(method.reward_python)
    except StudioError:
        return None  # the plan line says what is wrong with it
    said = f"calls {name} for every completion, with your permissions: read it, then turn on Trust reward code"
    if len(text) > SHOWN_BYTES:
        said = f"its first {SHOWN_BYTES:,} of {len(text):,} characters are shown; {said}"
    return {"title": path.name, "said": said, "text": text[:SHOWN_BYTES]}
