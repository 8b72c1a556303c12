"""All routes of an application: its own, those of included routers and those of mounted applications."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

READS = {"GET", "HEAD", "OPTIONS"}


def walk(app: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (method, address) of each; parameters of an address are filled with a name."""
    for route in app.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        prefix = getattr(getattr(route, "include_context", None), "prefix", "") or getattr(route, "path", "")
        if getattr(route, "methods", None):
            address = re.sub(r"\{[^}]*\}", "x", before + route.path)
            yield from ((method, address) for method in sorted(route.methods))
        elif inner is not None and hasattr(inner, "routes"):
            yield from walk(inner, before + prefix)
        else:
            raise AssertionError(f"a route of a kind that this walk does not know: {route!r}")
