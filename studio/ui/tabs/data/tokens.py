"""One row as the model sees it: raw, as a conversation, or as coloured tokens with their ids.

Drawn by assets/data/tokens.js with one element a token. gradio's HighlightedText makes three times as many and blocks
the page for a second at 2,000 tokens. Only the first `SHOWN` tokens are sent; how many there are is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.ui.components.choices import piece
from studio.ui.form.meta import Meta

SHOWN = 4000
TEMPLATE = """
<section class="studio card row-view" aria-label="One row as the model sees it">
  <div class="row-flex wrap-flex">
    <h3>Row <input class="row-number" type="number" min="1" value="1" aria-label="Row number">
      <span class="row-total muted num"></span>
      <select class="row-source" aria-label="Source" hidden></select> as the model sees it</h3>
    <span class="grow"></span>
    <span class="seg" role="group" aria-label="View">
      <button type="button" data-view="raw">Raw</button>
      <button type="button" data-view="conversation">Conversation</button>
      <button type="button" data-view="tokens">Tokens</button>
    </span>
    <span class="seg" role="group" aria-label="Rows">
      <button type="button" class="row-back" aria-label="Previous row">‹</button>
      <button type="button" class="row-next" aria-label="Next row">›</button>
    </span>
  </div>
  <div class="row-flex wrap-flex row-counts num" hidden>
    <span class="row-trained pill ok"></span><span class="row-context pill"></span>
    <span class="muted">hover a token for its id</span><span class="row-more muted"></span>
    <span class="row-reason muted"></span>
  </div>
  <div class="row-body" tabindex="0" aria-live="polite"><p class="muted">Reading the first row …</p></div>
</section>
"""


def token_view() -> gr.HTML:
    """Make the view; its `select` event asks for another row ({"row": N}, from 1)."""
    return piece(TEMPLATE, "tokens", elem_id="row-view")


def row_value(preview: dict[str, Any], place: Meta, sources: Sequence[str] = ()) -> dict[str, Any]:
    """Turn the worker's answer to `diff` into what the view draws.

    Args:
        preview: with `tokens` and, of a pair, `rejected` [{text, id, trained, special}], their `count`, `common`,
            `trained`, `context`, `raw`, `messages`, `rows`, `problem`.
        place: of the row that was asked for.
        sources: their names.
    """
    tokens, common = preview["tokens"], preview.get("common") or {"tokens": [], "rejected": []}
    return {
        "index": place.row,
        "source": place.source,
        "asked": place.asked,
        "sources": list(sources),
        "total": preview["rows"],
        "tokens": _drawn(tokens, common["tokens"]),
        "rejected": _drawn(preview["rejected"], common["rejected"]),
        "context": preview["context"],
        "length": preview.get("count", len(tokens)),
        "more": preview.get("count", len(tokens)) > SHOWN,
        "trained": preview["trained"],
        "raw": json.dumps(preview["raw"], ensure_ascii=False, indent=2),
        "messages": [_turn(message) for message in preview["messages"] or []] or None,
        "reason": preview.get("reason", ""),
        "problem": (preview.get("problem") or {}).get("sentence", ""),
    }


def problem_value(sentence: str, place: Meta) -> dict[str, Any]:
    """What the view shows when there is no row to show."""
    nothing = {"tokens": [], "rejected": [], "context": 0, "trained": 0, "raw": "", "messages": None, "reason": ""}
    where = {"index": place.row, "source": 0, "asked": place.asked}
    return {**nothing, **where, "sources": [], "total": place.row, "problem": sentence}


def _drawn(tokens: list[dict[str, Any]], common: Sequence[bool]) -> list[list[Any]]:
    """[text, id, trained, special, differs] of each token; of a pair, whether the other answer has it not."""
    differs = [not same for same in common] or [False] * len(tokens)
    return [
        [one["text"], one["id"], one["trained"], one["special"], apart]
        for one, apart in zip(tokens[:SHOWN], differs, strict=False)
    ]


def _turn(message: dict[str, Any]) -> dict[str, str]:
    """A message for the conversation view; tool calls and reasoning are part of its text."""
    parts = [message.get("reasoning_content") or "", message.get("content") or ""]
    parts += [json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls") or []]
    weight = " (not learned: weight 0)" if message.get("weight", 1) == 0 else ""
    return {"role": message["role"] + weight, "content": "\n".join(part for part in parts if part)}
