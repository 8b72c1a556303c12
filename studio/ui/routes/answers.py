"""How our own routes answer: JSON that every browser reads, and files that are open already."""

from __future__ import annotations

import json
import math
import os
from typing import IO, Any

from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from studio.reach import descriptor_path

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


class HeldFile(FileResponse):
    """A download of a file that is open already, so that what is sent is what was looked at; closes it at the end."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        super().__init__(
            descriptor_path(file.fileno()), filename=name, media_type="application/octet-stream",
            stat_result=os.fstat(file.fileno()),
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
