"""The schema as a flat list, for everything that is made from it: form, `--set`, YAML comments, docs.

Nothing here knows an option by name.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from studio.option import Options

Kind = Literal["choice", "words", "flag", "integer", "number", "text", "list"]


@dataclass(frozen=True)
class OptionSpec:
    """One option as its declaration says it.

    Attributes:
        path: dotted name, such as `training.learning_rate`.
        kind: choice, words (some of several), flag, integer, number, text or list.
        auto: True when the word `auto` is allowed beside the kind.
        optional: True when it may be empty (null).
        only_text: True when it takes text and nothing else, such as a path.
        choices: the allowed words of a choice, or of words.
        minimum, maximum: inclusive or exclusive bounds, None where there is none.
        group: heading under which it stands in the form, empty for none.
        methods, tunings: where it applies; empty means everywhere.
        decides: loss or score where it says what that is (`studio.option`).
        needs: dotted name of an option without which it is not read, and the words this one must have (none: any).
    """

    path: str
    title: str
    help: str
    kind: Kind
    default: Any
    auto: bool
    optional: bool
    only_text: bool
    choices: tuple[str, ...]
    unit: str | None
    tier: str
    group: str
    methods: tuple[str, ...]
    tunings: tuple[str, ...]
    needs: tuple[str, tuple[str, ...]] | None
    decides: str | None
    differs: str | None
    minimum: float | None
    maximum: float | None

    @property
    def section(self) -> str:
        """First part of the path; empty for a top-level option."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition(".")[2]

    def applies(self, method: str, tuning: str) -> bool:
        """True when this method with this tuning uses the option."""
        return (not self.methods or method in self.methods) and (not self.tunings or tuning in self.tunings)

    def is_read_with(self, needed: Any) -> bool:
        """True when the option that it needs has a value with which this one is read; so have those that need none."""
        if self.needs is None:
            return True
        given = set(needed) if isinstance(needed, list) else {needed}
        return bool(given & set(self.needs[1])) if self.needs[1] else bool(needed)


def options_of(model: type[BaseModel], prefix: str = "") -> Iterator[OptionSpec]:
    """Walk a config class and its sections in the order of declaration."""
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Options):
            yield from options_of(annotation, f"{path}.")
        else:
            yield _spec(path, info)


def value_at(values: dict[str, Any], path: str) -> Any:
    """Return the value of an option by its dotted name, from a whole config as plain values."""
    value: Any = values
    for part in path.split("."):
        value = value[part]
    return value


def reader(spec: OptionSpec) -> str:
    """Who reads an option, in words: "dpo, orpo", "lora", "method.grpo_algorithm grpo"; empty for every run."""
    parts = [", ".join(spec.methods), ", ".join(spec.tunings)]
    if spec.needs is not None:
        parts.append(f"{spec.needs[0]} {', '.join(spec.needs[1])}".rstrip())
    return " with ".join(part for part in parts if part)


def without_effect(config: BaseModel, method: str, tuning: str) -> Iterator[OptionSpec]:
    """Options that have another value than their default and that this method with this tuning does not read.

    Args:
        config: the whole configuration.
        method, tuning: names of those it has chosen.
    """
    values = config.model_dump()
    for spec in options_of(type(config)):
        if value_at(values, spec.path) != spec.default and not _is_read(spec, values, method, tuning):
            yield spec


def _is_read(spec: OptionSpec, values: dict[str, Any], method: str, tuning: str) -> bool:
    needed = value_at(values, spec.needs[0]) if spec.needs else None
    return spec.applies(method, tuning) and spec.is_read_with(needed)


def _spec(path: str, info: FieldInfo) -> OptionSpec:
    extra: dict[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    members = _members(info.annotation)
    words = tuple(str(word) for member in members if get_origin(member) is Literal for word in get_args(member))
    plain = [member for member in members if get_origin(member) is not Literal and member is not type(None)]
    bounds = _bounds(info)
    default = info.get_default(call_default_factory=True)
    several = _words_of_list(plain)
    needs = extra.get("needs")
    return OptionSpec(
        path=path,
        title=info.title or path,
        help=info.description or "",
        kind="words" if several else _kind(plain),
        default=None if default is PydanticUndefined else default,
        auto="auto" in words and bool(plain),
        optional=type(None) in members,
        only_text=plain == [str] and not words,
        choices=several if plain else words,
        unit=extra.get("unit"),
        tier=extra.get("tier", "advanced"),
        group=extra.get("group", ""),
        methods=tuple(extra.get("methods", ())),
        tunings=tuple(extra.get("tunings", ())),
        needs=None if needs is None else (f"{path.rpartition('.')[0]}.{needs[0]}".lstrip("."), tuple(needs[1])),
        decides=extra.get("decides"),
        differs=extra.get("differs"),
        minimum=bounds[0],
        maximum=bounds[1],
    )


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _members(member)]
    return [annotation]


def _words_of_list(plain: list[Any]) -> tuple[str, ...]:
    """The words of a list of words that is nothing else."""
    items = [get_args(member)[0] for member in plain if get_origin(member) is list]
    if len(items) != len(plain) or not items or get_origin(items[0]) is not Literal:
        return ()
    return tuple(str(word) for word in get_args(items[0]))


def _kind(plain: list[Any]) -> Kind:
    if not plain:
        return "choice"
    if bool in plain:
        return "flag"
    if any(get_origin(member) is list for member in plain) and str not in plain:
        return "list"
    if str in plain:
        return "text"
    return "number" if float in plain else "integer"


def _bounds(info: FieldInfo) -> tuple[float | None, float | None]:
    low: float | None = None
    high: float | None = None
    for rule in info.metadata:
        low = getattr(rule, "ge", getattr(rule, "gt", low))
        high = getattr(rule, "le", getattr(rule, "lt", high))
    return low, high
