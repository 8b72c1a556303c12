"""One GGUF against the trained model, in a process with llama.cpp: same prompts, same answers?

Prompt ids of the run's own rows and of ordinary conversations must be equal (those of rare texts need not: they are
told, with the cause), the chat template carried, the end-of-turn token must end generation, and the next-token
distributions must be close: KL(trained || GGUF) in nats, and how often the most likely token is the same. Equality of
generated text is not asked for: two almost equal candidates swap in any quantisation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studio.export.proof.causes import Cause, Trained, causes
from studio.export.proof.distance import compare_texts, in_words
from studio.export.proof.model import OWN_TEMPLATE, GgufModel
from studio.export.steps import Report, serve_step

SHOWN = 8


def compare_prompts(
    model: GgufModel, prompts: Sequence[dict[str, Any]], trained: Callable[[], Trained]
) -> list[dict[str, Any]]:
    """What differs, one entry for each cause, rare texts last: {"prompts", "rare", "kind", "cause", "example", "fix"}.

    Args:
        model: the file.
        prompts: of cases.json.
        trained: gives the tokenizer of the training; called only where something differs.
    """
    found: dict[tuple[bool, str], tuple[Cause, list[str]]] = {}
    side: Trained | None = None
    whole: list[str] = []
    for prompt in prompts:
        messages = prompt["messages"]
        ids = model.text_ids(prompt["text"]) if messages is None else model.chat_ids(messages)
        if ids == prompt["ids"]:
            continue
        if messages is not None and model.guessed_format:
            ids, usual = model.chat_ids(messages, OWN_TEMPLATE), ids
            guess = _guessed(model.guessed_format, usual, prompt["ids"])
            found.setdefault((True, guess.what), (guess, []))[1].append(prompt["name"])
            if ids == prompt["ids"]:
                continue
        if side is None:
            side, whole = trained(), model.whole_tokens()
        for cause in causes(prompt["text"], side, model.text_ids, whole) or [_rendered(ids, prompt["ids"])]:
            found.setdefault((prompt["rare"], cause.what), (cause, []))[1].append(prompt["name"])
    entries = sorted(found.items(), key=lambda one: one[0][0])
    return [
        {"prompts": names, "rare": rare, "kind": one.kind, "cause": one.what, "example": one.example, "fix": one.fix}
        for (rare, _), (one, names) in entries
    ]


def _guessed(chat_format: str, ids: Sequence[int], trained: Sequence[int]) -> Cause:
    """The file is right and llama-cpp-python does not read its template: it knows the text and has code for it."""
    what = f"llama-cpp-python uses its own format {chat_format} for this chat template, which makes a different prompt"
    lengths = f"{len(ids)} tokens instead of {len(trained)}"
    fix = f'In Python load the file with Llama(…, chat_format="{OWN_TEMPLATE}"); other programs need no change'
    return Cause("chat format", what, lengths, fix)


def _rendered(ids: Sequence[int], trained: Sequence[int]) -> Cause:
    """The text is cut alike and the prompt still differs: another text was made of the messages."""
    place = next((i for i, (a, b) in enumerate(zip(ids, trained, strict=False)) if a != b), min(len(ids), len(trained)))
    what = f"llama-cpp-python renders the same messages differently, from token {place + 1} on"
    lengths = f"{len(ids)} tokens instead of {len(trained)}"
    return Cause("rendering", what, lengths, "Prompt the file with raw text, or set a simpler data.template")


def verify(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compare one file.

    Args:
        request: {"file", "lora" (a GGUF adapter beside it; may be left out), "folder" (of cases.json, tokenizer.json
            and reference.npy), "threads"}.
        report: called with (positions done, positions in all).

    Returns:
        Numbers by name; `studio.export.proof.gates.shortcomings` judges them.

    Raises:
        StudioError: llama.cpp cannot load or run the file.
    """
    folder = Path(request["folder"])
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    trained = np.load(folder / "reference.npy", mmap_mode="r")
    longest = max(len(text["ids"]) for text in cases["texts"])
    model = GgufModel(Path(request["file"]), longest + 8, request["threads"], lora_path=request.get("lora"))
    try:
        differences = compare_prompts(model, cases["prompts"], lambda: Trained(str(folder / "tokenizer.json")))
        differing = {name for one in differences if not one["rare"] for name in one["prompts"]}
        firm = [prompt["name"] for prompt in cases["prompts"] if not prompt["rare"]]
        found = compare_texts(cases["texts"], trained, lambda text: model.logits(text["ids"], text["first"]), report)
        return {
            **found,
            "places": in_words(found["places"], folder / "tokenizer.json"),
            "prompts_compared": len(firm),
            "prompts_equal": len(firm) - len(differing),
            "differences": differences[:SHOWN],
            "template_carried": model.template == cases["template"],
            "end_of_turn_stops": cases["end"] is not None and model.is_end(cases["end"]),
            "adds_start": model.adds_start,
        }
    finally:
        model.close()


if __name__ == "__main__":
    raise SystemExit(serve_step(verify))
