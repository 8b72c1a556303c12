"""Which model of a run is exported: its result, or one of its checkpoints."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.jobs import JobFolder
from studio.jobs.store.checkpoints import whole_steps

RESULT = ("Result of the run", "")


def checkpoint_choice(run: JobFolder | None, shown: Any, chosen: str | None) -> gr.Dropdown:
    """Offer the result and the checkpoints of a run. What is chosen stays while it is there and the run is the same.

    Args:
        run: the selected one; None where none is, or a model is exported.
        shown: the report that the page shows now, as `report_value` returned it.
        chosen: step of the chosen checkpoint; None or empty for the result.
    """
    steps = [str(step) for step in whole_steps(run.checkpoints)] if run is not None else []
    same = run is not None and isinstance(shown, dict) and shown.get("id") == run.id and (chosen or "") in ("", *steps)
    # The value is left out, not sent back: another one may have been chosen since this was asked.
    value: dict[str, Any] = {} if same else {"value": ""}
    return gr.Dropdown(choices=[RESULT, *((f"Step {step}", step) for step in steps)], visible=bool(steps), **value)
