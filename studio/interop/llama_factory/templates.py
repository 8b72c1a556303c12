"""LLaMA-Factory's prompt formats beside the model's own chat template.

Theirs rebuild the template of the model family they are named after; here the model's own is kept. Only where a model
has none does the name matter: it says which of the studio's templates is the nearest.
"""

from __future__ import annotations

from studio.interop.draft import Draft
from studio.interop.values import text

# Beginning of their names, by the studio's template that is nearest to them. First match wins.
_NEAREST = (
    (
        ("chatml", "qwen", "yi", "smollm", "intern", "hermes", "opencoder", "minicpm", "orion", "marco", "dbrx"),
        "chatml",
    ),
    (("llama3", "llama4", "mllama"), "llama3"),
    (("mistral", "ministral", "pixtral", "llama2", "zephyr"), "mistral"),
    (("gemma", "paligemma"), "gemma"),
    (("phi",), "phi"),
    (("empty", "default", "alpaca", "vicuna", "fewshot"), "plain"),
)
# What is written into an export for a template of ours.
NAMES = {
    "chatml": "chatml",
    "llama3": "llama3",
    "mistral": "mistral",
    "gemma": "gemma",
    "phi": "phi",
    "plain": "default",
}
BACK = {theirs: ours for ours, theirs in NAMES.items()}
_GENERIC = {"chatml": "chatml", "chatml_de": "chatml"}


def read_template(draft: Draft) -> None:
    """Say what becomes of `template`."""
    if not draft.has("template"):
        return
    name = draft.get("template", text).lower()
    if name in _GENERIC:
        why = "" if name == "chatml" else "Its system prompt is not written; data.system gives one"
        draft.map("template", "data.template", _GENERIC[name], why, "approximated" if why else "mapped")
        return
    near = next((ours for names, ours in _NEAREST if name.startswith(names)), "")
    advice = f"; if it has none, set data.template: {near}" if near else "; if it has none, choose a data.template"
    why = f"The model's own chat template is kept{advice}"
    if name.endswith("_nothink"):
        why += ". Thinking is written as that template writes it"
    draft.say("template", "approximated", "data.template", why)
