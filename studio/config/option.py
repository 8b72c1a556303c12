"""How an option is declared.

One call per option; pydantic checks type and bounds, the rest travels in `json_schema_extra` and is read by
`describe.py`. Nothing else in the studio may repeat a default, a bound or a help text.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

Tier = Literal["basic", "advanced"]


class Options(BaseModel):
    """Base of all option groups: unknown keys are refused, values are checked on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())


def option(
    default: Any,
    help: str,
    *,
    title: str,
    unit: str | None = None,
    tier: Tier = "advanced",
    methods: tuple[str, ...] = (),
    tunings: tuple[str, ...] = (),
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
        methods: the methods that use it; empty means all.
        tunings: the tunings that use it; empty means all.
        differs: why our default is not TRL's or PEFT's, where it is not.
        bounds: pydantic's `ge`, `gt`, `le`, `lt`, `min_length`, `pattern`.
    """
    extra: JsonDict = {
        "unit": unit, "tier": tier, "methods": list(methods), "tunings": list(tunings), "differs": differs,
    }  # fmt: skip
    if callable(default):
        return Field(default_factory=default, title=title, description=help, json_schema_extra=extra, **bounds)
    return Field(default=default, title=title, description=help, json_schema_extra=extra, **bounds)
