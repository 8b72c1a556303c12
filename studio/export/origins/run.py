"""A training run, or a merge, as the origin of an export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.export.cards.curves import Losses, losses_of
from studio.export.cards.facts import data_names, data_summary, hub_datasets, name_of, settings_table, versions_of
from studio.export.cards.scores import evaluation_of, evaluation_on
from studio.export.origins.origin import Origin
from studio.jobs import JobFolder
from studio.jobs.views.differences import full_config
from studio.methods import METHODS
from studio.settings import Settings
from studio.tunings import title_of

TRAINED = """\
## Data
{summary}

## Settings
{settings}
"""


class RunOrigin(Origin):
    """A job that left a model.

    Args:
        run: the job.
    """

    def __init__(self, run: JobFolder) -> None:
        self.run = run

    @property
    def id(self) -> str:
        """Id of the job."""
        return self.run.id

    @property
    def name(self) -> str:
        """The name that it was given when it was asked for."""
        return self.run.request.name

    @property
    def said(self) -> str:
        """What a sentence calls it."""
        return f"run '{self.name}'"

    @property
    def model(self) -> Path:
        """Folder of its result."""
        return self.run.model

    @property
    def base_model(self) -> Mapping[str, Any]:
        """What it was trained from, as it was recorded."""
        recorded: dict[str, Any] = self.run.environment().get("base_model") or {}
        return recorded

    def data(self, rows: Path | None) -> Mapping[str, Any]:
        """Its own configuration: for a merge, that of its first parent with one.

        Args:
            rows: not used: a matrix is made of what was trained on.
        """
        return self.run.training

    def losses(self) -> Losses:
        """Losses by step, of its events."""
        return losses_of(self.run)

    def evaluation(self, settings: Settings) -> dict[str, Any] | None:
        """Its newest complete evaluation; None if there is none."""
        return evaluation_of(settings, self.run)

    def evaluation_on(self, settings: Settings, rows: Path) -> dict[str, Any] | None:
        """The report of its newest evaluation on all rows of a file.

        Args:
            settings: of the home whose evaluations are searched.
            rows: the file.
        """
        return evaluation_on(settings, self.run, rows)

    def descent(self, base: str, relation: str) -> tuple[str, str]:
        """The model that it was trained from, and the relation to it.

        Args:
            base: name of the base model, as the export carries it.
            relation: adapter or finetune.
        """
        return base, relation

    def tags(self) -> list[str]:
        """Method and tuning; "merge" for a merge."""
        if self._merged:
            return ["merge"]
        config, _ = full_config(self.run)
        words = [str((config.get(section) or {}).get("name") or "") for section in ("method", "tuning")]
        return [word for word in words if word]

    def datasets(self) -> list[str]:
        """Hub ids of its data."""
        return hub_datasets(self.run)

    def sentence(self) -> str:
        """How and on what it was trained, or what it was merged from."""
        if self._merged:
            return f"merged from {', '.join(name_of(one) for one in self.run.request.config.get('parents') or {})}"
        config, _ = full_config(self.run)
        return f"fine-tuned ({_how(config)}) on {', '.join(data_names(self.run))}"

    def made_of(self) -> str:
        """The sections on data and settings; a merge has neither."""
        if self._merged:
            return ""
        return TRAINED.format(summary=data_summary(self.run), settings=settings_table(self.run))

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that trained it."""
        return versions_of(self.run)

    @property
    def _merged(self) -> bool:
        return self.run.request.kind == "merge"


def _how(config: dict[str, Any]) -> str:
    method, tuning = (str((config.get(section) or {}).get("name", "")) for section in ("method", "tuning"))
    title = METHODS[method].title if method in METHODS else method
    return ", ".join(filter(None, [title, title_of(tuning) if tuning else ""]))
