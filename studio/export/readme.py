"""The README beside exported files: what they are, and how to run them elsewhere. Short, and only what was checked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from studio.escaping import for_markdown, for_terminal
from studio.export.files import in_words
from studio.export.proof.gates import difference, rare_differences


def readme(name: str, base: str, files: Sequence[dict[str, Any]], end: str, system: str) -> str:
    """Text of README.md.

    Args:
        name: the run's name.
        base: the base model's name.
        files: entries of the report.
        end: text that ends an answer in this template; empty if there is none.
        system: system message that the chat template adds by itself; empty for none.
    """
    rows = "\n".join(
        f"| {for_markdown(file['file'])} | {in_words(file['bytes'])} | {in_percent(file['top1'])} "
        f"| {short_number(file['mean_kl'])} | {matched(file['exact_match'])} | {file['verdict']} | `{file['sha256']}` |"
        for file in files
    )
    first = shlex.quote(files[0]["file"])
    return f"""# {for_markdown(name)} as GGUF

Made by Finetune Studio from {for_markdown(base)}. Each file was loaded with llama.cpp and compared with the
trained model: how often the most likely next token is the same, the mean KL divergence (nats per token), and exact
match on rows where rows were given. The license and limitations of the base model apply.

| File | Size | Same next token | Mean KL | Exact match | Verdict | SHA-256 |
|---|---|---|---|---|---|---|
{rows}
{_notes(files)}
## llama.cpp

    llama-cli -m {first} --jinja -cnv
    llama-server -m {first} --jinja --port 8080

`--jinja` uses the chat template inside the file, which is the one that the model was trained with.

## Ollama

Ollama does not run the template inside the file: it guesses one from a list, and silently uses none when nothing is
near. So write it yourself, in Go's template language, as below, and compare a few answers with those of llama.cpp.
{_modelfile(files[0]["file"], end, system)}
"""


def _notes(files: Sequence[dict[str, Any]]) -> str:
    found = rare_differences(files)
    if not found:
        return ""
    lines = "".join(f"- {for_markdown(difference(one))}. {for_markdown(one['fix'])}.\n" for one in found)
    return f"""
## Notes

Conversations are tokenized exactly as in training, with these exceptions:

{lines}"""


def _modelfile(file: str, end: str, system: str) -> str:
    if end.strip() != "<|im_end|>":
        ending = end.strip()
        stop = f'\n    PARAMETER stop "{ending}"' if ending and '"' not in ending and ending.isprintable() else ""
        return f"""
    FROM ./{file}
    TEMPLATE \"\"\"(this model's chat markup; see tokenizer.chat_template in the file)\"\"\"{stop}
"""
    lines = for_terminal(system).replace("\n", "\n    ")  # a line without indentation would end the block
    said = f'\n    SYSTEM """{lines}"""' if system and '"""' not in system else ""
    return f"""
    FROM ./{file}
    TEMPLATE \"\"\"{{{{- range .Messages }}}}<|im_start|>{{{{ .Role }}}}
    {{{{ .Content }}}}<|im_end|>
    {{{{ end }}}}<|im_start|>assistant
    \"\"\"{said}
    PARAMETER stop "<|im_end|>"

Save these lines without their indentation as `Modelfile`, then `ollama create {file.removesuffix(".gguf")}` and
`ollama run {file.removesuffix(".gguf")}`. (Written from Ollama's documentation and source; not run here.)
"""


def in_percent(value: float | None) -> str:
    """A share in percent; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.1f} %"


def short_number(value: float | None) -> str:
    """A number with two digits; a dash for what was not measured."""
    return "–" if value is None else f"{value:.2g}"


def matched(value: dict[str, Any] | None) -> str:
    """How many rows were right; a dash where none were asked."""
    return "–" if value is None else f"{value['correct']} / {value['total']}"
