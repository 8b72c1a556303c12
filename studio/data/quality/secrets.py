"""Texts that look like keys, passwords or addresses: found, shown in part, and replaced if asked.

A short list of forms that carry their own mark (`AKIA…`, `-----BEGIN … PRIVATE KEY-----`), so that ordinary text is
not taken for one. It is no proof that a text holds none: a password in a sentence looks like any word.
"""

from __future__ import annotations

import re

_FORMS: dict[str, str] = {
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\S]{0,10000}?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?",
    "AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "API key": r"\bsk-[A-Za-z0-9_-]{20,}|\b(?:sk|rk|pk)_live_[A-Za-z0-9]{16,}",
    "Google key": r"\bAIza[A-Za-z0-9_-]{35}",
    "Slack token": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "web token (JWT)": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",
    "password in a URL": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,64}:[^\s/@]{3,128}@",
    # example.com, example.org and the like are reserved for examples (RFC 2606).
    "email address": r"\b[A-Za-z0-9._%+-]{1,64}@(?!(?:[A-Za-z0-9-]+\.)*example\.(?:com|net|org)\b)"
    r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b",
}
KINDS = tuple(_FORMS)
_SECRET = re.compile("|".join(f"(?P<k{number}>{form})" for number, form in enumerate(_FORMS.values())))
# What every form has; most texts have none of it and are passed over at once.
_HINT = re.compile(r"@|-----BEGIN|AKIA|ASIA|gh[pousr]_|github_pat_|hf_|sk-|_live_|AIza|xox|eyJ")


def find_secrets(text: str) -> list[tuple[str, str]]:
    """Return (kind, masked form) of each; the form tells where it is without giving it away."""
    if not _HINT.search(text):
        return []
    return [(_kind(match), _masked(match.group(), _kind(match))) for match in _SECRET.finditer(text)]


def hide_secrets(text: str) -> tuple[str, int]:
    """Return the text with each secret replaced by its kind, such as [API key], and how many there were."""
    if not _HINT.search(text):
        return text, 0
    return _SECRET.subn(lambda match: f"[{_kind(match)}]", text)


def _kind(match: re.Match[str]) -> str:
    return KINDS[int((match.lastgroup or "k0")[1:])]


def _masked(text: str, kind: str) -> str:
    if kind == "email address":
        return f"{text[0]}…@…{text[text.rindex('.') :]}"
    shown = text.split("://")[0] + "://" if "://" in text else "-----BEGIN" if text.startswith("-") else text[:4]
    return f"{shown}… ({len(text)} characters)"
