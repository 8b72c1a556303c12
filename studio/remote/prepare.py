"""Rows read, checked, split and priced: what a person confirms before anything is sent, and what is then sent."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from studio.config.remote import OpenAIConfig
from studio.data.files.datafiles import resolve_path
from studio.errors import InputError, InputErrors
from studio.remote.checks import Findings, look_at, warnings_of, wrong_with
from studio.remote.client import address_of
from studio.remote.rows import Row, rows_of, split
from studio.remote.sending import request_of
from studio.remote.table import Table, read_table
from studio.remote.tokens import tokens_of
from studio.settings import Settings

_SPLIT_SEED = 42
_SHOWN = 20


def dollars(price: float) -> str:
    """An estimated price as a person reads it."""
    return "less than $0.01" if 0 < price < 0.01 else f"about ${price:,.2f}"


@dataclass(frozen=True)
class Checked:
    """What is known of rows that could be sent, and what it costs.

    Attributes:
        config: completed: address and key.
        training_bytes: of the file of training rows.
        rows, validation_rows: how many there are.
        tokens: of the training rows, once.
        counted: whether tokens were counted, not estimated, as those of images always are.
        epochs: passes; as the service is expected to choose where `epochs_chosen`.
        price: USD; None where the table has none.
        hour: USD for an hour of training, where that is how the model is priced.
        problems: sentences on what the service would refuse.
        warnings: sentences.
        age: of the prices, as a sentence.
    """

    config: OpenAIConfig
    training_bytes: int
    rows: int
    validation_rows: int
    tokens: int
    counted: bool
    epochs: int
    epochs_chosen: bool
    price: float | None
    hour: float | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    age: str

    def require_sound(self) -> None:
        """Refuse what the service would refuse.

        Raises:
            InputErrors: one sentence for each problem.
        """
        if self.problems:
            where = self.config.data
            raise InputErrors([InputError(text, where=where, fix="Nothing was sent") for text in self.problems])

    def cost(self) -> str:
        """The price and where it is from, in sentences."""
        about = "" if self.counted else "about "
        epochs = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        chosen = " (OpenAI chooses; this is what it usually takes)" if self.epochs_chosen else ""
        said = f"{about}{self.tokens:,} tokens × {epochs}{chosen}"
        if self.price is not None:
            return f"{said} = {dollars(self.price)}. {self.age}"
        if self.hour is not None:
            return f"${self.hour:,.2f} for each hour of training, however long it takes ({said}). {self.age}"
        return f"{said}; the table has no price for {self.config.name}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the page."""
        return {
            "model": self.config.name, "base_url": self.config.base_url, "method": self.config.method,
            "rows": self.rows, "validation_rows": self.validation_rows, "bytes": self.training_bytes,
            "tokens": self.tokens, "counted": self.counted, "epochs": self.epochs,
            "epochs_chosen": self.epochs_chosen, "price": self.price, "price_hour": self.hour,
            "problems": list(self.problems), "warnings": list(self.warnings), "cost": self.cost(), "age": self.age,
        }  # fmt: skip


@dataclass(frozen=True)
class Prepared(Checked):
    """The same with the files.

    Attributes:
        training, validation: their bytes; validation is empty for none.
    """

    training: bytes
    validation: bytes


def prepare(
    config: OpenAIConfig, settings: Settings, *, confined: bool = False, today: datetime.date | None = None
) -> Prepared:
    """Read, check and price what is asked for. Nothing is sent.

    Args:
        config: what is asked for.
        settings: of the home.
        confined: read files that a page may read only.
        today: for the age of the table; None for the real day.

    Raises:
        InputError: a file cannot be read, or an option is missing.
    """
    today = today or datetime.datetime.now().date()
    config = config.model_copy(update={"base_url": address_of(config.base_url)})
    if not config.data:
        raise InputError("there are no rows", where="data", fix="Give a file of rows")
    if config.method == "reinforcement" and config.grader is None:
        raise InputError("reinforcement needs a grader", where="grader", fix="Give one as JSON, in OpenAI's format")
    table = read_table(settings)
    known = table.model(config.name)
    tokens = tokens_of(known.encoding if known else "o200k_base", settings)
    path = resolve_path(config.data, settings, confined)
    found = look_at(rows_of(path, config.method), config, table, tokens)
    share = 0.0 if config.validation else config.validation_share
    lines, held_lines = split(found.lines, share, _SPLIT_SEED)
    count = sum(split(found.counts, share, _SPLIT_SEED)[0])
    held: Findings | None = None
    if config.validation:
        held = look_at(rows_of(resolve_path(config.validation, settings, confined), config.method),
                       config, table, tokens)  # fmt: skip
        held_lines = held.lines
    epochs = table.chosen_epochs(len(lines)) if config.n_epochs == "auto" else config.n_epochs
    training, validation = b"".join(lines), b"".join(held_lines)
    price = count * epochs * known.training / 1e6 if known and known.training is not None else None
    warnings = warnings_of(found, held, table, tokens, path)
    if share and not held_lines:
        warnings.append(f"no row is held out for validation: {share:g} of {len(lines)} rows is less than one")
    if not known:
        warnings.append(f"the table does not have {config.name}: neither price nor limits are known")
    elif known.methods and config.method not in known.methods:
        warnings.append(f"{known.name} is not known to be tuned with {config.method} ({', '.join(known.methods)})")
    config = config.model_copy(
        update={"data": str(path), "key": _key(config, training, validation),
                "budget": None if price is None else round(price, 2)}
    )  # fmt: skip
    return Prepared(
        config, len(training), len(lines), len(held_lines), count, tokens.exact and not found.images, epochs,
        config.n_epochs == "auto", price, known.training_hour if known else None,
        _problems(found, held, len(lines), training, validation, table),
        tuple([*warnings, *table.warnings(config.name, today)]), table.age(today), training, validation,
    )  # fmt: skip


def held_rows(config: OpenAIConfig, settings: Settings) -> list[Row]:
    """Return the rows that a job held out as its share for validation.

    Args:
        config: of the job.
        settings: of the home.

    Raises:
        InputError: it held out none, or the file cannot be read.
    """
    if config.validation or not config.validation_share:
        raise InputError("the job held out no rows", where="data", fix="Choose a file of rows")
    rows = [sent.row for sent in rows_of(resolve_path(config.data, settings), config.method) if sent.error is None]
    sound = [row for row in rows if not wrong_with(row, config.method)]
    return split(sound, config.validation_share, _SPLIT_SEED)[1]


def _problems(
    found: Findings, held: Findings | None, rows: int, training: bytes, validation: bytes, table: Table
) -> tuple[str, ...]:
    said = [f"row {row}: {text}" for row, text in found.problems[:_SHOWN]]
    said += [f"validation row {row}: {text}" for row, text in (held.problems if held else [])[:_SHOWN]]
    more = len(found.problems) + (len(held.problems) if held else 0) - len(said)
    if more > 0:
        said.append(f"{more:,} more rows cannot be used")
    if rows < table.least:
        plural = "" if rows == 1 else "s"
        said.append(f"{rows} row{plural} can be used for training, and at least {table.least} are needed")
    for name, content in (("training", training), ("validation", validation)):
        if len(content) > table.file_bytes:
            said.append(f"the {name} rows have {len(content) / 1e6:,.0f} MB, and {table.file_bytes / 1e6:,.0f} MB is "
                        f"the most")  # fmt: skip
    return tuple(said)


def _key(config: OpenAIConfig, training: bytes, validation: bytes) -> str:
    """A hash of all that makes one job another one."""
    parts = [config.base_url, request_of(config), *(hashlib.sha256(one).hexdigest() for one in (training, validation))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
