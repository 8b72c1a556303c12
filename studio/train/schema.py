"""JSON Schema files of the reward `json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.errors import InputError


def read_schema(path: Path) -> dict[str, Any]:
    """Read a JSON Schema file.

    Raises:
        InputError: it cannot be read, is no JSON, or no schema.
    """
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        validator_for(schema).check_schema(schema)
    except (OSError, ValueError, SchemaError, AttributeError, TypeError) as error:
        what = getattr(error, "message", None) or str(error)
        raise InputError(
            f"this is no JSON Schema: {what}", where=f"method.reward_schema: {path}", fix="Give a JSON Schema file"
        ) from error
    if not isinstance(schema, dict):
        raise InputError("a schema is a JSON object", where=f"method.reward_schema: {path}", fix="Write one in braces")
    return schema
