"""Ollama's grammar of a Modelfile, as its documentation and parser have it: how each value is read."""

from __future__ import annotations


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Return (instruction, value) in order; a parameter's instruction is "parameter NAME".

    Raises:
        ValueError: a word that is no instruction, or a quote that is never closed.
    """
    found: list[tuple[str, str]] = []
    rest = text
    while rest.strip():
        rest = rest.lstrip()
        if rest.startswith("#"):
            rest = rest.partition("\n")[2]
            continue
        name, _, rest = rest.partition(" ")
        name = name.lower()
        if name not in ("from", "template", "system", "license", "adapter", "requires", "parameter"):
            raise ValueError(f"no instruction: {name}")
        if name == "parameter":
            word, _, rest = rest.partition(" ")
            name = f"parameter {word}"
        value, rest = _value(rest)
        found.append((name, value))
    return found


def _value(text: str) -> tuple[str, str]:
    """A value ends at a line's end outside of quotes; what cannot be printed is dropped."""
    kept = ""
    for place, letter in enumerate(text):
        if letter in "\r\n":
            closed = _unquoted(kept.strip(" \t\r\n"))
            if closed is not None:
                return closed, text[place + 1 :]
        kept += letter if letter.isprintable() or letter in " \t\r\n" else ""
    closed = _unquoted(kept.strip(" \t\r\n"))
    if closed is None:
        raise ValueError("a quote is not closed")
    return closed, ""


def _unquoted(text: str) -> str | None:
    for quote in ('"""', '"'):
        if text.startswith(quote):
            whole = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if whole else None
    return text
