"""How an option is declared.

One call per option; pydantic checks type and bounds, the rest travels in `json_schema_extra` and is read by
`describe.py`. Nothing else in the studio may repeat a default, a bound or a help text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.config import JsonDict

from studio.foreign import unusable_path

Tier = Literal["basic", "advanced"]


# No option means anything beyond, and a product of two such numbers is still a number.
_LARGEST = 1e15


class Options(BaseModel):
    """Base of all option groups: unknown keys are refused, values are checked on assignment too.

    No number may be infinite or "not a number", which would pass many a comparison, or beyond all sense, and none may
    be true or false, which Python counts as 1 and 0.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())

    @field_validator(
        "path",
        "validation",
        "adapter",
        "reward_model",
        "reward_schema",
        "reward_python",
        "data",
        "evaluate",
        check_fields=False,
    )
    @classmethod
    def _path(cls, value: object) -> object:
        if isinstance(value, str) and (reason := unusable_path(value)):
            raise ValueError(f"this is no path: {reason}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        kinds = set(_plain_types(cls.model_fields[info.field_name or ""].annotation))
        if kinds & {int, float} and bool not in kinds and any(isinstance(one, bool) for one in _leaves(value)):
            raise ValueError("a number is needed")
        return value

    @field_validator("*")
    @classmethod
    def _finite(cls, value: object) -> object:
        numbers = [one for one in _leaves(value) if isinstance(one, int | float)]
        if any(isinstance(one, float) and not math.isfinite(one) for one in numbers):
            raise ValueError("a finite number is needed")
        if any(abs(one) > _LARGEST for one in numbers):
            raise ValueError(f"a number from -{_LARGEST:g} to {_LARGEST:g} is needed")
        return value


class OfKinds(Options):
    """A section that names one of several kinds, and inherits the options of all of them."""

    @property
    def kind(self) -> Any:
        """The kind that is named; its `options` are those that it reads."""
        raise NotImplementedError

    def reads(self, name: str) -> bool:
        """Whether the kind that is named reads an option of the section."""
        return name in self.kind.options.model_fields


def whole_or_auto(value: int | str) -> int | str:
    """Check a count that may be left to the studio.

    Raises:
        ValueError: it is below 1.
    """
    if value != "auto" and int(value) < 1:
        raise ValueError("a whole number from 1, or auto")
    return value


def _plain_types(annotation: Any) -> list[Any]:
    """The types without parts that an annotation is made of: int and str of `list[int] | str`."""
    if isinstance(annotation, UnionType) or get_origin(annotation) in (Union, list, dict):
        return [kind for part in get_args(annotation) for kind in _plain_types(part)]
    return [annotation]


def _leaves(value: object) -> list[object]:
    """The values in a list or mapping, which hold numbers one deep; any other value itself.

    Not deeper: a YAML file of a few lines can name lists in lists that have billions of leaves.
    """
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]


def option(
    default: Any,
    help: str,
    *,
    title: str,
    unit: str | None = None,
    tier: Tier = "advanced",
    group: str = "",
    methods: tuple[str, ...] = (),
    tunings: tuple[str, ...] = (),
    needs: tuple[str, tuple[str, ...]] | None = None,
    decides: Literal["loss", "score"] | None = None,
    differs: str | None = None,
    **bounds: Any,
) -> Any:
    """Declare one option.

    Args:
        default: the value when nothing is said; a callable makes a new one each time.
        help: one line for a person who has not trained a model before.
        title: label in the form.
        unit: what a number counts ("tokens", "epochs"); None for pure numbers and choices.
        tier: `basic` options are shown at once, `advanced` ones behind a fold.
        group: heading under which an advanced option stands; empty for none of its own.
        methods: the methods that use it; empty means all.
        tunings: the tunings that use it; empty means all.
        needs: another option of the section, and the words of it with which this one is read; no words: any value.
        decides: what the loss is, or what is scored at all: numbers of runs that differ in it have no common scale.
        differs: why our default is not TRL's or PEFT's, where it is not.
        bounds: pydantic's `ge`, `gt`, `le`, `lt`, `min_length`, `pattern`.
    """
    extra: JsonDict = {
        "unit": unit, "tier": tier, "group": group, "methods": list(methods), "tunings": list(tunings),
        "differs": differs, "decides": decides,
        "needs": None if needs is None else [needs[0], list(needs[1])],
    }  # fmt: skip
    if callable(default):
        return Field(default_factory=default, title=title, description=help, json_schema_extra=extra, **bounds)
    return Field(default=default, title=title, description=help, json_schema_extra=extra, **bounds)


def having(trait: str, kinds: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the methods or tunings that have a trait, an attribute of theirs."""
    return tuple(name for name, one in kinds.items() if getattr(one, trait))


def say_readers(config: type[Options], key: Literal["methods", "tunings"], owners: dict[str, type[Options]]) -> None:
    """Note on each option of a section which owners read it: those among whose own options it is.

    Args:
        config: a section that inherits the options of all owners.
        key: what the owners are.
        owners: their options by name; what none of them has is read by all.
    """
    for name, info in config.model_fields.items():
        if isinstance(info.json_schema_extra, dict):
            info.json_schema_extra[key] = [owner for owner, own in owners.items() if name in own.model_fields]
