"""The first batch: the rows that the trainer takes first, as it gets them, with padding or what packing joins.

Begun by a button, because all rows are prepared for it as in a run (the tokens are kept for the run then). It is made
by the second data worker and drawn by assets/data/batch.js.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from studio.data.masks.overlay import IGNORED
from studio.methods import METHODS
from studio.ui.components.choices import piece
from studio.ui.form.schema import Values
from studio.ui.page import Page
from studio.ui.tabs.data.taskcard import PROGRESS, Asked, Calls, begin_by_click, buttons, grouping_of, sections_of

SHOWN = 600
TEMPLATE = f"""
<section class="studio card first-batch" aria-label="First batch">
  <div class="row-flex wrap-flex"><h3>First batch</h3><span class="batch-said muted num"></span>
    <span class="grow"></span>
    {buttons("Show the first batch")}</div>
  <p class="batch-intro muted">The rows of the first step, token for token as the trainer gets them: their order,
    what is learned, and what is only padding.</p>
  {PROGRESS}
  <div class="batch-body" role="group" aria-label="Rows of the first batch" tabindex="0" hidden></div>
</section>
"""


def batch_card(page: Page) -> gr.HTML:
    """Make the card and wire it."""
    card = piece(TEMPLATE, "firstBatch", elem_id="first-batch")

    def calls(asked: Asked, raw: Values) -> Calls:
        sections, seed, micro = sections_of(page, raw)
        packing = raw.get("training.padding_free") is True and METHODS[sections["method"]["name"]].padding_free
        args = {**sections, **grouping_of(page, raw), "seed": seed, "micro_batch": micro}
        return [("batch", {**args, "packing": packing})]

    page.form.wiring.append(lambda: begin_by_click(page, card, "batch", calls, batch_value))
    return card


def batch_value(answer: Values) -> Values:
    """Turn the worker's answer to `batch` into what the card draws.

    Returns:
        said (how large it is), lines [{title, tokens [[text, id, trained, special]], more (tokens not shown),
        padding (tokens)}] with one line for each sequence.
    """
    if not answer["exact"]:
        many, longest = answer["shapes"]["input_ids"]
        said = f"{many:,} sequences of up to {longest:,} tokens; which rows they are is drawn in training"
        return {"said": said, "lines": []}
    arrays, special = answer["arrays"], set(answer["special"])
    many, width = answer["shapes"]["input_ids"]
    names = [f"{Path(one['path']).name}, row {one['row']:,}" for one in answer["rows"]]
    if "position_ids" in arrays:
        lines = [_line(name, *part, special) for name, part in zip(names, _joined(answer), strict=True)]
        return {"said": f"{len(names):,} rows joined to one sequence of {width:,} tokens, no padding", "lines": lines}
    titles = names if many == len(names) else [f"{name}, {side}" for side in ("chosen", "rejected") for name in names]
    lines = []
    for at, title in enumerate(titles):
        length = sum(arrays["attention_mask"][at])
        trained = _trained(arrays, at)
        parts = (answer["texts"][at][:length], arrays["input_ids"][at][:length], trained[:length])
        lines.append({**_line(title, *parts, special), "padding": width - length})
    empty = sum(line["padding"] for line in lines)
    share = f"{empty:,} of {many * width:,} positions are padding ({empty / (many * width):.0%})"
    if empty and answer["unpadded"]:
        share += ", which is not computed"
    return {"said": f"{many:,} sequences of {width:,} tokens; {share}", "lines": lines}


def _trained(arrays: Values, at: int) -> list[bool]:
    if "labels" in arrays:
        return [label != IGNORED for label in arrays["labels"][at]]
    return [mark == 1 for mark in arrays["completion_mask"][at]]


def _joined(answer: Values) -> list[tuple[list[str], list[int], list[bool]]]:
    """The rows of a packed sequence: texts, ids, trained. A row begins where positions do."""
    (ids,), (positions,), (texts,) = (answer["arrays"]["input_ids"], answer["arrays"]["position_ids"], answer["texts"])
    trained = _trained(answer["arrays"], 0)
    starts = [at for at, position in enumerate(positions) if position == 0]
    ends = [*starts[1:], len(ids)]
    return [(texts[start:end], ids[start:end], trained[start:end]) for start, end in zip(starts, ends, strict=True)]


def _line(title: str, texts: list[str], ids: list[int], trained: list[bool], special: set[int]) -> Values:
    tokens = [list(one) for one in zip(texts, ids, trained, [token in special for token in ids], strict=True)]
    return {"title": title, "tokens": tokens[:SHOWN], "more": max(0, len(tokens) - SHOWN), "padding": 0}
