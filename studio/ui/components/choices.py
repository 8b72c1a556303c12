"""Pieces with own markup: how they are made, lines of text, headings, and cards of which one is chosen.

Every piece is a `gr.HTML` with a constant template; what it shows travels as its value and is put in by
the scripts of assets with textContent, so that no data is ever read as markup or as a template.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from studio.ui.server.theme import script_tags

CARDS = '<div class="choices" role="radiogroup"></div>'


def piece(template: str, mount: str, *, value: Any = None, constants: Any = None, **kwargs: Any) -> gr.HTML:
    """Make a piece.

    Args:
        template: constant markup.
        mount: name of the function of `studioForm` (one of the scripts below) that brings it to life.
        value: first value, anything that JSON can hold.
        constants: what the function is told besides, from our own code only. Not as props of the component:
            gradio loses those when a handler's reply comes before the component's tab was opened.
        kwargs: further arguments of `gr.HTML`.
    """
    return gr.HTML(
        value=value,
        html_template=template,
        head=script_tags(
            "form/form.js",
            "form/plan.js",
            "form/interop.js",
            "model/models.js",
            "data/columns.js",
            "data/tokens.js",
            "data/profile.js",
            "data/batch.js",
            "form/sweep.js",
        ),
        js_on_load=f"studioForm.{mount}({{element, props, trigger, watch}}, {json.dumps(constants or {})})",
        apply_default_css=False,
        elem_classes=["piece", *(kwargs.pop("elem_classes", []))],
        **kwargs,
    )


def drawn(template: str, mounts: str, *scripts: str, elem_id: str | None = None) -> gr.HTML:
    """Make a part of the page that has no value: its scripts draw it from the studio's own routes.

    Args:
        template: constant markup.
        mounts: members of `window.studio` that bring it to life, separated by spaces; each has `mount(element)`.
        scripts: what they are in and what they need, in the order of loading.
        elem_id: id of the component; None for none.
    """
    return gr.HTML(
        value=None,
        html_template=template,
        head=script_tags(*scripts),
        js_on_load="; ".join(f"window.studio.{name}.mount(element)" for name in mounts.split()),
        apply_default_css=False,
        elem_id=elem_id,
    )


def markup(text: str) -> gr.HTML:
    """Make a piece of constant markup, such as a heading."""
    return gr.HTML(text, apply_default_css=False, elem_classes=["piece"])


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
        js_on_load="const p = element.querySelector('p'), draw = () => "
        "p.replaceChildren(...window.studio.linked(props.value));"
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


def choice_cards(label: str, cards: list[dict[str, str]], value: str, elem_id: str, topic: str = "") -> gr.HTML:
    """Make cards of which one is chosen; the component's value is the word of that one.

    Args:
        label: what is chosen, for those who do not see the heading.
        cards: for each its `value`, `title` and `text`.
        value: the word that is chosen at first.
        elem_id: id of the component.
        topic: the option whose texts a plan brings by word, "" for none.
    """
    constants = {"cards": cards, "topic": topic, "legend": label}
    return piece(CARDS, "cards", value=value, constants=constants, elem_id=elem_id)
