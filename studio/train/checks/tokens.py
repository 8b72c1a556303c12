"""The model's tokenizer: that it can end and pad a text, and that the model has a row for each token of the run.

Before the start it is read from its files, as far as they tell; once it is loaded, `require_rows` looks at the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio.data.prepare.compact import largest_id
from studio.data.prepare.units import Unit
from studio.errors import InputError
from studio.foreign import read_json_file
from studio.models.inspect.vocabulary import ids_in
from studio.train.checks.known import Known

# Classes that bring no tokens of their own: what their files do not name is not there.
_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")


def largest_token(folder: Path) -> int | None:
    """Return the largest id that the tokenizer of a model can give; None where tokenizer.json does not tell."""
    return ids_in(folder / "tokenizer.json", "")[0]


def require_rows(tokenizer: Any, rows: Iterable[Unit], vocabulary: int, folder: Path) -> None:
    """Refuse a tokenizer without end and padding, and tokens that the model's embedding has no row for.

    Args:
        tokenizer: the model's, loaded.
        rows: of training and validation.
        vocabulary: rows of the embedding.
        folder: the model's, for errors.

    Raises:
        InputError: one of the two.
    """
    if tokenizer.eos_token_id is None and tokenizer.pad_token_id is None:
        raise _no_end(folder)
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if padding >= vocabulary:
        raise _no_row("the padding token", padding, vocabulary, folder)
    largest = max(map(largest_id, rows), default=-1)
    if largest >= vocabulary:
        raise _no_row(f"'{tokenizer.convert_ids_to_tokens(largest)}' in the data", largest, vocabulary, folder)


def _tokens(known: Known) -> None:
    settings = _read(known.folder / "tokenizer_config.json")
    given = {**_read(known.folder / "special_tokens_map.json"), **settings}
    if settings.get("tokenizer_class") not in _PLAIN:
        return
    padding = given.get("pad_token") or given.get("eos_token")
    if not padding:
        raise _no_end(known.folder)
    padding = str(padding.get("content") if isinstance(padding, dict) else padding)
    number = ids_in(known.folder / "tokenizer.json", padding)[1] or 0
    if number >= known.shape.vocab:
        raise _no_row(f"'{padding}', used for padding,", number, known.shape.vocab, known.folder)


def _no_end(folder: Path) -> InputError:
    return InputError(
        "the tokenizer has neither an eos_token nor a pad_token",
        where=f"model.path: {folder}",
        fix='Add "eos_token" to its tokenizer_config.json, as in its base model',
    )


def _no_row(what: str, number: int, vocabulary: int, folder: Path) -> InputError:
    return InputError(
        f"{what} is token {number:,}, but the model's embedding has only {vocabulary:,} rows",
        where=f"model.path: {folder}",
        fix="Use the tokenizer that was saved with the model, or set another pad_token in tokenizer_config.json",
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json_file(file)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


TOKEN_CHECKS = (_tokens,)
