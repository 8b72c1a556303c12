"""Sign out: a plain form below the list of jobs, where the page asks for a password."""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import markup
from studio.ui.gate import SIGN_OUT_PATH

FORM = f"""<form class="studio sign-out" method="post" action="{SIGN_OUT_PATH}">
<button class="btn quiet small">Sign out</button></form>"""


def sign_out() -> gr.HTML:
    """Make the button."""
    return markup(FORM)
