"""Sign out, here or everywhere: two buttons below the list of jobs, where the page asks who is there.

What they do is in assets/session.js, which has the key that signing out needs too.
"""

from __future__ import annotations

import gradio as gr

from studio.ui.components.choices import markup

BUTTONS = """<div class="studio sign-out">
<button type="button" class="btn quiet small" data-sign-out="here">Sign out</button>
<button type="button" class="btn quiet small" data-sign-out="everywhere"
  title="Ends every session of this login, in every browser and script">Sign out everywhere</button></div>"""


def sign_out() -> gr.HTML:
    """Make the buttons."""
    return markup(BUTTONS)
