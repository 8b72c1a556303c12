"""The ids and patterns that a tokenizer.json names, read without transformers.

That of Gemma 3 has 33 MB and takes 250 MB to read: a file of more than some megabytes is read by a process of its own.
"""

from __future__ import annotations

import functools
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.foreign import TOKENIZER, Limits, read_json_file
from studio.patterns import PatternError, require_plain_repeats
from studio.processes import child_environment, module_command

_HERE = Limits(bytes=4 * 1024**2, nodes=2_000_000)
_SECONDS, _MEMORY = 120.0, 4 * 1024**3


Facts = tuple[int | None, int | None, list[str] | None]


def ids_in(file: Path, token: str) -> tuple[int | None, int | None]:
    """Return the largest id that a tokenizer.json gives, and that of a token; None for what it does not tell."""
    return _facts(file, token)[:2]


def require_linear_splits(file: Path) -> None:
    """See that the patterns by which a tokenizer cuts a text do not take it exponential time.

    Oniguruma, which matches them, gives up one try after ten million steps, a second, and goes on with the next
    character. Patterns of models look ahead, which RE2 cannot, but none repeats a repeat.

    Raises:
        InputError: one may.
    """
    patterns = _facts(file, "")[2]
    if patterns is None:
        raise InputError(
            "this is not a valid tokenizer: its file cannot be read or is too large", where=str(file),
            fix="Download the model from its original source",
        )  # fmt: skip
    for pattern in patterns:
        try:
            require_plain_repeats(pattern)
        except PatternError as error:
            raise InputError(
                f"the tokenizer splits text by '{pattern:.80}', which is not accepted: {error}", where=str(file),
                fix="Download the model from its original source",
            ) from error  # fmt: skip


def _facts(file: Path, token: str) -> Facts:
    try:
        stat = file.stat()
    except OSError:
        return None, None, None
    return _kept(str(file.absolute()), token, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _kept(file: str, token: str, _changed: int, size: int) -> Facts:
    if size <= _HERE.bytes:
        return _read(Path(file), token, _HERE)
    try:
        done = subprocess.run(
            module_command("studio.models.inspect.vocabulary", file, token), capture_output=True, text=True,
            check=False, timeout=_SECONDS, env=child_environment(),
        )  # fmt: skip
        largest, number, patterns = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError, TypeError):
        return None, None, None
    return largest, number, patterns


def _read(file: Path, token: str, limits: Limits) -> Facts:
    try:
        values: Any = read_json_file(file, limits)
    except (OSError, ValueError):
        return None, None, None
    if not isinstance(values, dict):
        return None, None, None
    return *_ids(values, token), _patterns([values.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")])


def _patterns(parts: list[Any]) -> list[str]:
    found = []
    for part in parts:
        if isinstance(part, dict):
            found += [part["Regex"]] if isinstance(part.get("Regex"), str) else []
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return found


def _ids(values: dict[str, Any], token: str) -> tuple[int | None, int | None]:
    try:
        vocabulary = values["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of a token and its likelihood, in the order of the ids
            vocabulary = {str(pair[0]): number for number, pair in enumerate(vocabulary)}
        added = {str(one["content"]): int(one["id"]) for one in values.get("added_tokens") or []}
        ids = {name: number for name, number in {**vocabulary, **added}.items() if type(number) is int}
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        return None, None
    return max(ids.values(), default=None), ids.get(token)


def _main() -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    print(json.dumps(_read(Path(sys.argv[1]), sys.argv[2], TOKENIZER)))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
