"""The nulls that Parquet and Arrow put into tool calls and tools, which nobody wrote.

All structs of a column have the same fields, so each call's arguments have those of every other call, as null, and a
model would learn to write them. They are left out in the structs of arguments, parameters and tools; elsewhere a null
stays. Maps and JSON text have only what was written. A null that was written in such a struct cannot be told from
these, and goes with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Columns that formats read tools or messages from, and the structs in them whose fields are the row's own words.
COLUMNS = ("tools", "functions", "messages", "conversations", "prompt", "completion", "chosen", "rejected")
_TOOLS = ("tools", "functions")
_FREE = (*_TOOLS, "arguments", "parameters")

# Takes a value as Python holds it and changes it in place.
Cleaner = Callable[[Any], None]


def cleaner_of(name: str, kind: Any) -> Cleaner | None:
    """Return what takes such nulls out of a column's values; None where none can be in it.

    Args:
        name: of the column.
        kind: its Arrow type.
    """
    return _cleaner(kind, name in _TOOLS) if name in COLUMNS else None


def _cleaner(kind: Any, free: bool) -> Cleaner | None:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _of_items(_cleaner(kind.value_type, free))
    if not types.is_struct(kind):
        return None
    fields = [kind.field(at) for at in range(kind.num_fields)]
    inner = {field.name: _cleaner(field.type, free or field.name in _FREE) for field in fields}
    return _of_struct({name: clean for name, clean in inner.items() if clean is not None}, free)


def _of_items(clean: Cleaner | None) -> Cleaner | None:
    if clean is None:
        return None

    def cleaned(items: Any) -> None:
        for item in items or ():
            clean(item)

    return cleaned


def _of_struct(inner: dict[str, Cleaner], free: bool) -> Cleaner | None:
    if not inner and not free:
        return None

    def cleaned(struct: Any) -> None:
        if struct is None:
            return
        if free:
            for name in [name for name, value in struct.items() if value is None]:
                del struct[name]
        for name, clean in inner.items():
            if name in struct:
                clean(struct[name])

    return cleaned
