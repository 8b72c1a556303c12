"""Ollama's Modelfile: where the file is, the chat template in Go's language, what ends an answer, how to sample.

Words and quoting are those of Ollama's parser: a value in three quotes goes on over lines and blanks, within it nothing
is escaped, and characters that cannot be printed are left out, so that a text with one is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.export.serving.turns import from_values

FILE = "Modelfile"
# From this version on, Ollama runs the template inside the GGUF where the Modelfile has none.
RUNS_JINJA = "0.30.0"
CONTEXT = 4096
# generation_config.json's names, and Ollama's.
SAMPLING = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What a Modelfile says of a model.

    Attributes:
        file: name of the GGUF beside it.
        template: in Go's language; None where it could not be written.
        stops: texts that end an answer.
        context: tokens that the model can read; 0 where it does not say.
        sampling: values of the base model's generation_config.
        system: system message that all of the training's conversations had; "" for none.
        license: of the base model; "" where it is not known.
    """

    file: str
    template: str | None
    stops: Sequence[str]
    context: int
    sampling: Mapping[str, float]
    system: str
    license: str


def write_modelfile(folder: Path, file: str, reference: dict[str, Any], adds_start: bool) -> dict[str, Any]:
    """Write a Modelfile, and return what the report says of it.

    Args:
        folder: where it goes, beside the GGUF.
        file: name of that.
        reference: the answer of `proof.reference`; its "chat" is that of `proof.chat.chat_facts`.
        adds_start: llama.cpp puts the token that begins a text before each prompt by itself.

    Returns:
        {"file", "template": was one written?, "compared": conversations, "blanks": names of those that differ by
        blanks around messages, "notes": sentences}.
    """
    chat, notes = reference["chat"], []
    template = None
    if chat["turns"] is not None:
        template = from_values(chat["turns"]).in_go(start=not adds_start)
        if not holds(template):
            template = None
            notes.append("a Modelfile cannot hold the characters of its chat template")
    if chat["why"]:
        notes.append(chat["why"])
    if template is None and chat["templated"]:
        notes.append(
            f"so the Modelfile has no TEMPLATE, and asks for Ollama {RUNS_JINJA}, which runs the template in the GGUF; "
            "look at `ollama show --modelfile` after creating: if it shows a TEMPLATE, Ollama took one of its own list"
        )
    if not chat["templated"]:
        notes.append("the model has no chat template, so Ollama gives it each prompt as it is")
    if chat["blanks"]:
        notes.append("the model's template removes blanks around a message, which Ollama leaves: send messages without")
    for name, text in (("system message", chat["system"]), *(("stop", stop) for stop in chat["stops"])):
        if not holds(text):
            notes.append(f"a Modelfile cannot hold the characters of the {name}, so it is left out")
    facts = Facts(
        file, template, chat["stops"], chat["context"], chat["sampling"], chat["system"], chat["license"]
    )  # fmt: skip
    (folder / FILE).write_text(modelfile(facts), encoding="utf-8")
    return {
        "file": FILE, "template": template is not None, "compared": chat["compared"], "blanks": chat["blanks"],
        "notes": notes,
    }  # fmt: skip


def modelfile(facts: Facts) -> str:
    """Return the text of a Modelfile; values that its grammar cannot hold are left out (see `holds`)."""
    lines = [f"FROM ./{facts.file}"]
    if facts.template is not None and holds(facts.template):
        lines.append(f"TEMPLATE {_quoted(facts.template)}")
    else:
        lines.append(f"REQUIRES {RUNS_JINJA}")
    if facts.system and holds(facts.system):
        lines.append(f"SYSTEM {_quoted(facts.system)}")
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in facts.stops if holds(stop)]
    lines.append(f"PARAMETER num_ctx {min(facts.context or CONTEXT, CONTEXT)}")
    lines += [f"PARAMETER {SAMPLING[name]} {value:g}" for name, value in facts.sampling.items() if name in SAMPLING]
    if facts.license and holds(facts.license):
        lines.append(f"LICENSE {_quoted(facts.license)}")
    return "\n".join(lines) + "\n"


def holds(text: str) -> bool:
    """Whether a value can stand in a Modelfile and be read as it is."""
    return '"""' not in text and not text.endswith('"') and all(one.isprintable() or one in "\t\n" for one in text)


def _quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text and "\n" not in text else f'"""{text}"""'
