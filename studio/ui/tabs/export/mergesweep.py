"""The fields of a sweep in the Merge section: which number of the recipe is varied, from where to where."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.merge.recipe import read_recipe
from studio.merge.sweep import MOST, places, spread

NO_SWEEP = ("One merge, no sweep", "")
Wish = tuple[str, list[float]]


class SweepFields:
    """The fields, in the order of `inputs`: varied value, its ends, number of merges."""

    def __init__(self) -> None:
        with gr.Accordion("Sweep over one number", open=False, elem_id="merge-sweep"):
            self.place = gr.Dropdown(
                [NO_SWEEP], value="", label="Varied number", interactive=True, allow_custom_value=True,
                info="A number of the recipe. Each of its values makes a child, and all of them answer the rows.",
                elem_id="merge-place", elem_classes=["field"],
            )  # fmt: skip
            with gr.Row(elem_classes=["export-row"]):
                self.first = _typed("From", "0", "merge-from")
                self.last = _typed("To", "1", "merge-to")
                self.count = _typed(f"Merges (2 to {MOST})", "5", "merge-count")

    @property
    def inputs(self) -> list[Any]:
        """What handlers read, as `wish` takes it."""
        return [self.place, self.first, self.last, self.count]


def wish(place: str | None = "", first: str = "", last: str = "", count: str = "") -> Wish | None:
    """Return what is varied and its values; None for one merge.

    Args:
        place: in the recipe; empty or None for no sweep.
        first, last, count: the ends and the number of merges, as typed.

    Raises:
        InputError: an end is no number, or there would be too few merges or too many.
    """
    chosen = (place or "").strip()
    return (chosen, spread(first, last, count)) if chosen else None


def offered(text: str, chosen: str | None) -> gr.Dropdown:
    """Return the numbers of a recipe that can be varied; what was chosen stays while the recipe has it.

    Args:
        text: of the recipe, also one that is being written.
        chosen: place in it; empty or None for none.
    """
    try:
        found = places(read_recipe(text)) if (text or "").strip() else {}
    except StudioError:  # the check says why
        return gr.Dropdown()
    kept = chosen if chosen in found else ""
    return gr.Dropdown(choices=[NO_SWEEP, *((title, place) for place, title in found.items())], value=kept)


def _typed(label: str, value: str, elem_id: str) -> gr.Textbox:
    return gr.Textbox(value, label=label, interactive=True, elem_id=elem_id, elem_classes=["field"], min_width=110)
