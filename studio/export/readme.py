"""The README beside exported files: what they are, and how to run them elsewhere. Short, and only what was checked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from studio.escaping import for_markdown
from studio.export.files import in_words
from studio.export.proof.gates import difference, rare_differences


def readme(
    name: str, base: str, files: Sequence[dict[str, Any]], told: dict[str, Any] | None,
    matrix: dict[str, Any] | None = None, whole: str = "the trained model",
) -> str:  # fmt: skip
    """Text of README.md.

    Args:
        name: the run's name.
        base: the base model's name.
        files: entries of the report.
        told: what `write_modelfile` returned; None before there is a Modelfile.
        matrix: what the report says of the importance matrix; None for none.
        whole: what they were compared with.
    """
    first = shlex.quote(files[0]["file"])
    return f"""# {for_markdown(name)} as GGUF

Made by Finetune Studio from {for_markdown(base)}. Each file was loaded with llama.cpp and compared with
{whole}: how often the most likely next token is the same, the mean KL divergence (nats per token), and exact
match on rows where rows were given. The license and limitations of the base model apply.

{_table(files)}
{_parts(files)}{_notes(files, whole)}
## llama.cpp

    llama-cli -m {first} --jinja -cnv
    llama-server -m {first} --jinja --port 8080

`--jinja` uses the chat template inside the file, which is the one of {whole}.
{_matrix(matrix)}{_ollama(files[0]["file"], told)}"""


def adapter_readme(name: str, base: str, file: dict[str, Any], whole: str = "the trained model") -> str:
    """Text of README.md beside a GGUF adapter.

    Args:
        name: the run's name.
        base: the base model's name.
        file: its entry of the report.
        whole: what it was compared with.
    """
    path = shlex.quote(file["file"])
    return f"""# {for_markdown(name)} as a GGUF adapter

Made by Finetune Studio for {for_markdown(base)}. It was loaded with llama.cpp beside the base model's GGUF in f16 and
compared with {whole}. The license and limitations of the base model apply.

{_table([file])}
{_notes([file], whole)}
## llama.cpp

    llama-cli -m BASE.gguf --lora {path} --jinja -cnv
    llama-server -m BASE.gguf --lora {path} --jinja --port 8080

`BASE.gguf` is a GGUF of the very base model: of another one, answers would be wrong without a word.

## Ollama

    FROM ./BASE.gguf
    ADAPTER ./{file["file"]}
"""


def _table(files: Sequence[dict[str, Any]]) -> str:
    rows = "\n".join(
        f"| {for_markdown(file['file'])} | {in_words(file['bytes'])} | {in_percent(file['top1'])} "
        f"| {short_number(file['mean_kl'])} | {matched(file['exact_match'])} | {file['verdict']} | `{file['sha256']}` |"
        for file in files
    )
    return f"""| File | Size | Same next token | Mean KL | Exact match | Verdict | SHA-256 |
|---|---|---|---|---|---|---|
{rows}"""


def _parts(files: Sequence[dict[str, Any]]) -> str:
    divided = [part for file in files for part in file.get("shards", [])]
    if not divided:
        return ""
    lines = "\n".join(
        f"| {for_markdown(part['file'])} | {in_words(part['bytes'])} | `{part['sha256']}` |" for part in divided
    )
    return f"""
Divided files: keep the parts of a model in one folder, and give programs the first.

| Part | Size | SHA-256 |
|---|---|---|
{lines}
"""


def _notes(files: Sequence[dict[str, Any]], whole: str) -> str:
    found = rare_differences(files)
    if not found:
        return ""
    lines = "".join(f"- {for_markdown(difference(one))}. {for_markdown(one['fix'])}.\n" for one in found)
    return f"""
## Notes

Conversations are tokenized exactly as by {whole}, with these exceptions:

{lines}"""


def _matrix(made: dict[str, Any] | None) -> str:
    if made is None:
        return ""
    sources, types = (", ".join(for_markdown(one) for one in made[key]) for key in ("sources", "types"))
    rows = f"{made['rows']:,} {made.get('of', 'training rows')}"
    return f"""
## Importance matrix

{types}: rounded with `{made["file"]}` ({in_words(made["bytes"])}, SHA-256 `{made["sha256"]}`). It says how strongly
each column of each weight matrix is used: {rows} ({made["tokens"]:,} tokens of {sources}) were
computed with the f16 file, and the squares of the inputs were added up. `llama-quantize --imatrix` reads it, too.
"""


def _ollama(file: str, told: dict[str, Any] | None) -> str:
    if told is None:
        return ""
    name = shlex.quote(file.removesuffix(".gguf").lower())
    equal = told["compared"] - len(told["blanks"])
    template = (
        f"Its TEMPLATE is the chat template inside the file in Go's template language: the two give the same text for "
        f"{equal} of {told['compared']} conversations.\n"
        if told["template"]
        else ""
    )
    notes = "".join(f"- {for_markdown(note)}.\n" for note in told["notes"])
    return f"""
## Ollama

    ollama create {name} -f {told["file"]}
    ollama run {name}

`{told["file"]}` lies beside this page. {template}
{notes}"""


def in_percent(value: float | None) -> str:
    """A share in percent; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.1f} %"


def short_number(value: float | None) -> str:
    """A number with two digits; a dash for what was not measured."""
    return "–" if value is None else f"{value:.2g}"


def matched(value: dict[str, Any] | None) -> str:
    """How many rows were right; a dash where none were asked."""
    return "–" if value is None else f"{value['correct']} / {value['total']}"
