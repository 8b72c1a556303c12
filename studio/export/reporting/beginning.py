"""The report of an export before anything is made: what is exported, and what is known of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from studio.config.jobs import ExportConfig
from studio.export.cards.license import license_of
from studio.export.reporting.facts import versions
from studio.export.source import Source
from studio.settings import Settings


def beginning(settings: Settings, config: ExportConfig, source: Source, rows: Path | None) -> dict[str, Any]:
    """Return the report so far. Of a checkpoint it has no score: a run's result alone is evaluated.

    Args:
        settings: of the home whose evaluations are searched.
        config: what is to be made.
        source: the model that is exported.
        rows: file on which it answers; None for none.
    """
    origin, result = source.origin, source.step is None
    return {
        "run": origin.id,
        "name": source.name,
        "to": config.to,
        "base_model": str(origin.base_model.get("name") or ""),
        "compared_with": origin.whole,
        "data": config.evaluate,
        "trained": origin.score(settings, rows) if rows and result else None,
        "began": time.time(),
        "versions": versions(),
        "evaluation": origin.evaluation(settings) if result else None,
        "license": license_of(source.base, origin.base_model),
        "files": [],
    }
