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
# What some of them say where a conversation has no system prompt; the model's own template may say something else.
_SYSTEMS = {
    "chatml_de": "Du bist ein freundlicher und hilfsbereiter KI-Assistent.",
    "granite4": "You are Granite, developed by IBM. You are a helpful AI assistant.",
    "lfm2": "You are a helpful AI assistant.",
    "mimo": "You are a helpful assistant.",
    "minimax1": "You are a helpful assistant.",
    "moonlight": "You are a helpful assistant provided by Moonshot-AI.",
    "opencoder": "You are OpenCoder, created by OpenCoder Team.",
    "qwen": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "smollm2": "You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
    "zephyr": "You are Zephyr, a helpful assistant.",
}


def read_template(draft: Draft) -> None:
    """Say what becomes of `template`."""
    if not draft.has("template"):
        return
    name = draft.get("template", text).lower()
    system = _SYSTEMS.get(name, "") if "default_system" not in draft.given.values else ""
    if system:
        draft.set("data.system", system, "template")
    if name in _GENERIC:
        why = "Its system prompt is written into data.system" if system else ""
        draft.map("template", "data.template", _GENERIC[name], why)
        return
    near = next((ours for names, ours in _NEAREST if name.startswith(names)), "")
    advice = f"; if it has none, set data.template: {near}" if near else "; if it has none, choose a data.template"
    why = f"The model's own chat template is kept{advice}"
    if system:
        why += ". The system prompt of theirs is written into data.system"
    if name.endswith("_nothink"):
        why += ". Thinking is written as that template writes it"
    draft.say("template", "approximated", "data.template", why)
