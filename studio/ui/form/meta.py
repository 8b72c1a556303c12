"""What the browser sends beside the form's values with a request for plan, preview, counts or start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from studio.foreign import parse_json

# Put before a handler's request: the last value becomes what `Meta.read` reads. While none of our pieces is in the
# document (another tab is open), the script is not loaded, and there is nothing to add.
COUNTED = "(...values) => window.studioForm ? studioForm.before(values) : values"
WITH_META = "(...values) => window.studioForm ? studioForm.withMeta(values) : values"
READING = "(...values) => { window.studioForm?.publish('reading', true); return values }"


@dataclass(frozen=True)
class Meta:
    """What the page adds to the form's values.

    Attributes:
        name: of the run, "" for ours.
        sequence: number of the request, so that an old reply is not shown over a newer one.
        row: the row that is wanted in the token view, from 1.
        source: of which source, from 0.
        asked: number of the person's request for a row, so that a reply to an earlier one is not shown over it.
        set: options that a button of a finding sets.
        edit: id of the waiting job whose settings these are, "" for a new run.
        sweep: values to try by option, as they were typed.
        branch: id of the run at whose checkpoint the new one begins, "" for one from its start.
        step: of that checkpoint.
    """

    name: str = ""
    sequence: int = 0
    row: int = 1
    source: int = 0
    asked: int = 0
    set: dict[str, Any] = field(default_factory=dict)
    edit: str = ""
    sweep: dict[str, str] = field(default_factory=dict)
    branch: str = ""
    step: int = 0

    @classmethod
    def read(cls, text: Any) -> Meta:
        """Read what assets/form/form.js sends; anything else counts as nothing."""
        try:
            given = parse_json(str(text))
            wanted = given["set"] if isinstance(given["set"], dict) else {}
            return cls(
                str(given["name"]).strip()[:60],
                int(given["sequence"]),
                max(1, int(given["row"])),
                max(0, int(given.get("source", 0))),
                int(given.get("asked", 0)),
                wanted,
                str(given.get("edit", "")),
                {str(path): str(text) for path, text in dict(given.get("sweep") or {}).items()},
                str(given.get("branch", "")),
                int(given.get("step", 0)),
            )
        except (TypeError, ValueError, KeyError):
            return cls()
