"""The dated table of models, prices and limits: presets/openai.yaml, or the home's own copy of it.

Whatever is known of the service by date stands there and nowhere else. It can be old, so its age is told with every
price, and it is advice: a model that it does not have can be tuned, without a price.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.error import YAMLError

from studio.config.load import load_yaml
from studio.config.remote import RemoteMethod
from studio.errors import InputError
from studio.foreign import RUN, parse_yaml
from studio.option import Options, option
from studio.reach import opened
from studio.settings import PRESETS, Settings

FILE = "openai.yaml"
# From this age on the table is called old.
OLD_DAYS = 180


class RemoteModel(Options):
    """A row of the table; prices in USD for a million tokens, or for an hour of training."""

    name: str = option(..., "Name at the service.", title="Name")
    methods: list[RemoteMethod] = option(list, "Methods that can tune it.", title="Methods")
    training: float | None = option(None, "Price of a million training tokens.", title="Training", unit="USD", ge=0)
    training_hour: float | None = option(None, "Price of an hour of training.", title="Hour", unit="USD", ge=0)
    input: float | None = option(None, "Price of a million tokens of prompts.", title="Input", unit="USD", ge=0)
    output: float | None = option(None, "Price of a million tokens of answers.", title="Output", unit="USD", ge=0)
    example_tokens: int | None = option(None, "Longest example.", title="Longest example", unit="tokens", ge=1)
    encoding: str = option("o200k_base", "How its texts become tokens.", title="Encoding")
    shut_down: datetime.date | None = option(None, "Day on which it ends.", title="Shut down")


@dataclass(frozen=True)
class Table:
    """The table.

    Attributes:
        path: file that it was read from.
        as_of: day of which the prices are.
        source: where they are from.
        models: the rows.
        least: examples below which the service refuses.
        advised: examples from which tuning is worth its price.
        file_bytes: largest file.
        images: `most` in an example and `bytes` of one; empty where the table does not say.
        closing: what the service said of its end, "" for nothing.
        last_day: on which jobs can be started no more.
        epochs: how the service's own choice is estimated: usual, least_examples, most_examples, most.
    """

    path: Path
    as_of: datetime.date
    source: str
    models: tuple[RemoteModel, ...]
    least: int
    advised: int
    file_bytes: int
    images: dict[str, int] = field(default_factory=dict)
    closing: str = ""
    last_day: datetime.date | None = None
    epochs: dict[str, int] = field(default_factory=dict)

    def model(self, name: str) -> RemoteModel | None:
        """The row of a model, or of the base of a tuned one (ft:BASE:…); None where there is none."""
        base = name.split(":")[1] if name.startswith("ft:") and name.count(":") else name
        return next((one for one in self.models if one.name == base), None)

    def age(self, today: datetime.date) -> str:
        """How old the prices are, as a sentence."""
        days = max(0, (today - self.as_of).days)
        plural = "" if days == 1 else "s"
        old = " They may have changed." if days >= OLD_DAYS else ""
        return f"Prices as of {self.as_of} ({days} day{plural} old), from {self.source}.{old}"

    def warnings(self, name: str, today: datetime.date) -> list[str]:
        """What the service said of its own end, or of the model's, as sentences.

        Args:
            name: of the model.
            today: the day of asking.
        """
        found = [self.closing] if self.closing else []
        row = self.model(name)
        if row is not None and row.shut_down is not None:
            past = row.shut_down <= today
            found.append(f"OpenAI {'shut' if past else 'will shut'} {row.name} down on {row.shut_down}")
        return found

    def chosen_epochs(self, examples: int) -> int:
        """Epochs that the service is expected to choose for so many examples."""
        usual = self.epochs["usual"]
        if examples * usual < self.epochs["least_examples"]:
            return min(self.epochs["most"], self.epochs["least_examples"] // max(1, examples))
        if examples * usual > self.epochs["most_examples"]:
            return max(1, self.epochs["most_examples"] // examples)
        return usual


def read_table(settings: Settings) -> Table:
    """Read the home's table, or the one that ships.

    Raises:
        InputError: the home's own is damaged; the key is named.
    """
    own = settings.home / FILE
    path = own if own.is_file() else PRESETS / FILE
    raw = _own(path) if path == own else load_yaml(path)
    try:
        limits, closing = raw["limits"], raw.get("closing") or {}
        return Table(
            path=path, as_of=_day(raw["as_of"]), source=str(raw["source"]),
            models=tuple(RemoteModel.model_validate(row) for row in raw["models"]),
            least=int(limits["examples"]["least"]), advised=int(limits["examples"]["advised"]),
            file_bytes=int(limits["file_bytes"]["most"]),
            images={key: int(limits["images"][key]) for key in ("most", "bytes") if key in limits.get("images", {})},
            closing=str(closing.get("text") or "").strip().rstrip("."),
            last_day=_day(closing["last_day"]) if closing.get("last_day") else None,
            epochs={key: int(raw["epochs"][key]) for key in ("usual", "least_examples", "most_examples", "most")},
        )  # fmt: skip
    except KeyError as error:
        raise InputError(f"the key {error} is missing", where=str(path), fix=_FIX) from error
    except ValidationError as error:
        item = error.errors()[0]
        what = f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
        raise InputError(f"a model is described wrongly ({what})", where=str(path), fix=_FIX) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the table cannot be used ({error})", where=str(path), fix=_FIX) from error


def _own(path: Path) -> Any:
    try:
        with opened(path) as file:
            return parse_yaml(file.read(RUN.bytes + 1).decode("utf-8"))
    except (ValueError, YAMLError) as error:
        raise InputError(f"this is not the YAML of a table ({error})", where=str(path), fix=_FIX) from error


_FIX = f"Compare it with presets/{FILE}, or remove it"


def _day(value: Any) -> datetime.date:
    return value if isinstance(value, datetime.date) else datetime.date.fromisoformat(str(value))
