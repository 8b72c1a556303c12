"""The schema of compose files, out of the Python package that was Docker's first implementation of them."""

from __future__ import annotations

import json
from typing import Any

from tests.support.programs.wheels import unpacked

PACKAGE = "docker-compose==1.29.2"
SHA256 = "8d5589373b35c8d3b1c8c1182c6e4a4ff14bffa3dd0b605fcd08f73c94cef809"


def compose_schema() -> dict[str, Any]:
    """Return the JSON schema."""
    file = unpacked(PACKAGE, SHA256) / "compose" / "config" / "compose_spec.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
