"""How our own routes answer: JSON that every browser reads."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

NEVER_KEPT = {"cache-control": "no-store"}


class Json(Response):
    """JSON that is valid for a browser whatever a job wrote: NaN and infinity become text."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode `content`."""
        try:
            return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")
        except ValueError:
            return json.dumps(_finite(content), ensure_ascii=False).encode("utf-8", errors="replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
