"""A line of text that handlers may set: plain text in the document, unlike a read-only field."""

from __future__ import annotations

import gradio as gr


def text_line(text: str, elem_id: str, *, look: str) -> gr.HTML:
    """Make a line; its value is the text, which is never read as markup.

    Args:
        text: first text.
        elem_id: id of the component.
        look: class of the paragraph.
    """
    return gr.HTML(
        value=text,
        html_template=f'<div class="studio"><p class="{look}" role="status"></p></div>',
        js_on_load="const p = element.querySelector('p'), draw = () => { p.textContent = props.value || '' };"
        "draw(); watch('value', draw)",
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["text-line"],
    )


def heading(title: str, words: str = "") -> gr.HTML:
    """Make a heading with a few words beside it; both are constants of ours."""
    beside = f'<span class="muted">{words}</span>' if words else ""
    return gr.HTML(
        html_template=f'<div class="studio row-flex wrap-flex"><h2>{title}</h2>{beside}</div>', apply_default_css=False
    )
