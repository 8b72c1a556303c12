"""JSON Schema files of the reward `json`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.foreign import Limits, read_json_file
from studio.patterns import engine, require_plain_repeats

# One that a person wrote; it is checked against its own dialect, which takes 10 ms a kilobyte.
SCHEMA = Limits(bytes=128 * 1024, nodes=10_000)


def read_schema(path: Path) -> dict[str, Any]:
    """Read a JSON Schema file.

    Raises:
        InputError: it cannot be read, is no JSON, or no schema, or refers to what is not in it.
    """
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing.exceptions import Unresolvable

    try:
        schema = read_json_file(path, SCHEMA)
        _require_linear(schema)
        validator_for(schema).check_schema(schema)
        if isinstance(schema, dict):
            _require_references(schema)
            probes: tuple[Any, ...] = ({}, [], "", 0)
            for probe in probes:  # a pattern that is wrong shows when it is used
                validator_of(schema).is_valid(probe)
    except RecursionError as error:
        raise InputError(
            "this JSON Schema refers to itself endlessly", where=f"method.reward_schema: {path}",
            fix="Make each $ref point to a part that constrains the value",
        ) from error  # fmt: skip
    except (OSError, ValueError, SchemaError, AttributeError, TypeError, Unresolvable, re.error) as error:
        what = getattr(error, "message", None) or str(error)
        raise InputError(
            f"this is not a JSON Schema: {what}", where=f"method.reward_schema: {path}", fix="Use a JSON Schema file"
        ) from error
    if not isinstance(schema, dict):
        raise InputError(
            "a schema must be a JSON object", where=f"method.reward_schema: {path}", fix="Write one in braces"
        )
    return schema


def _require_linear(schema: Any) -> None:
    """See that answers can be matched with every pattern in linear time: a model writes them, as long as it likes.

    Raises:
        PatternError: with one they cannot.
    """
    parts = [schema]
    for part in parts:
        if isinstance(part, dict):
            if isinstance(part.get("pattern"), str):
                engine(part["pattern"])
            # Names of keys are matched by jsonschema itself, with Python's engine.
            for pattern in part["patternProperties"] if isinstance(part.get("patternProperties"), dict) else ():
                engine(pattern)
                require_plain_repeats(pattern)
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _matches(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    """The keyword `pattern` by RE2."""
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "string") and engine(pattern).search(instance) is None:
        yield ValidationError(f"it does not match {pattern!r}")


def _require_references(schema: dict[str, Any]) -> None:
    """Follow every reference, also those that only some values lead to.

    Raises:
        Unresolvable: one leads nowhere.
        RecursionError: one leads back to itself and says nothing on the way.
    """
    from jsonschema_specifications import REGISTRY
    from referencing.jsonschema import DRAFT202012, specification_with

    dialect = str(schema.get("$schema", ""))
    root = specification_with(dialect, default=DRAFT202012).create_resource(schema)
    parts = [(root, REGISTRY.resolver_with_root(root))]
    for part, resolver in parts:
        contents, there = part.contents, resolver
        seen: list[Any] = []
        while isinstance(contents, dict) and isinstance(contents.get("$ref"), str):
            if any(contents is one for one in seen):
                raise RecursionError
            seen.append(contents)
            found = there.lookup(contents["$ref"])
            contents, there = found.contents, found.resolver
        parts += [(one, resolver.in_subresource(one)) for one in part.subresources()]


def validator_of(schema: dict[str, Any]) -> Any:
    """Return what checks values; it knows the official schemas and fetches nothing."""
    from jsonschema.validators import extend, validator_for
    from jsonschema_specifications import REGISTRY

    return extend(validator_for(schema), {"pattern": _matches})(schema, registry=REGISTRY)
