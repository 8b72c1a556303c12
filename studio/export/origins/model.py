"""A model that no run of the studio made, as the origin of an export: a checkpoint's folder, an adapter's, a Hub model.

Its own answers are what exports of it are compared with. It has no rows of its own: those that it is asked to answer
stand for them, and without any, the demo's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.config.jobs import DEMO_TRAIN
from studio.export.cards.curves import Losses
from studio.export.cards.facts import name_of
from studio.export.cards.license import front_of
from studio.export.origins.origin import Origin
from studio.export.proof.gates import Verdict
from studio.models.catalog.hubaccess import is_hub_id
from studio.settings import Settings

# What the Hub calls a model that is another one in fewer bits, or in another format.
COPY = "quantized"


class ModelOrigin(Origin):
    """A whole model, or an adapter beside its base model.

    Args:
        id: what was asked for: the folder's path, a Hub id or the embedded model's name.
        folder: of the model or of the adapter.
        known: the model itself, or the adapter's base model: name, path, source.
        adapter: whether the folder holds an adapter.
    """

    whole = "the original model"
    good: Verdict = "as the original"
    rows_of = "rows"
    without_rows = (
        "no rows were given, so the demo's are used for the comparison and for an importance matrix: give rows of your "
        "own task (Rows, --evaluate)"
    )
    made = "exported"
    lacks_adapter = "it is a whole model"

    def __init__(self, id: str, folder: Path, known: Mapping[str, Any], adapter: bool) -> None:
        self._id, self._folder, self._known, self._adapter = id, folder, known, adapter
        self.license_of = "the base model" if adapter else "the original model"

    @property
    def id(self) -> str:
        """The folder's path, or the Hub id."""
        return self._id

    @property
    def name(self) -> str:
        """Name of the folder, or the second part of a Hub id."""
        return self._folder.name if self._adapter else name_of(str(self._known["name"]).partition("@")[0])

    @property
    def said(self) -> str:
        """What a sentence calls it."""
        return f"{'adapter' if self._adapter else 'model'} '{self.name}'"

    @property
    def model(self) -> Path:
        """Its folder."""
        return self._folder

    @property
    def base_model(self) -> Mapping[str, Any]:
        """The model itself, or the adapter's base model."""
        return self._known

    def data(self, rows: Path | None) -> Mapping[str, Any]:
        """The rows that it is asked to answer; the demo's without any.

        Args:
            rows: that file; None for none.
        """
        return {"data": {"train": [{"path": DEMO_TRAIN if rows is None else str(rows)}]}}

    def losses(self) -> Losses:
        """None are known."""
        return Losses()

    def evaluation(self, settings: Settings) -> dict[str, Any] | None:
        """None: evaluations are of runs."""
        return None

    def evaluation_on(self, settings: Settings, rows: Path) -> dict[str, Any] | None:
        """None: evaluations are of runs.

        Args:
            settings, rows: not used.
        """
        return None

    def descent(self, base: str, relation: str) -> tuple[str, str]:
        """A model of the Hub in another form; else what the folder's own card says of its base model.

        Args:
            base: name of the base model, as the export carries it.
            relation: of an adapter, or of what is merged with it, to its base model.
        """
        if self._adapter:
            return base, relation
        if self._known["source"] == "hub":
            return base, COPY
        card = front_of(self._folder / "README.md")
        named = card.get("base_model")
        named = named[0] if isinstance(named, list) and len(named) == 1 else named
        if not isinstance(named, str) or not is_hub_id(named):
            return "", COPY
        own = card.get("base_model_relation")
        return named, own if own in ("finetune", "adapter", "merge", "quantized") else "finetune"

    def tags(self) -> list[str]:
        """None: nothing is known of a training."""
        return []

    def datasets(self) -> list[str]:
        """None: nothing is known of a training."""
        return []

    def sentence(self) -> str:
        """From where it was exported."""
        if self._adapter:
            return f"changed by the adapter of the folder {self.name}"
        if self._known["source"] == "local":
            return f"exported from the folder {self.name}"
        return "exported as it was published"

    def made_of(self) -> str:
        """Nothing is known of data and settings."""
        return ""

    def versions(self) -> dict[str, str]:
        """Nothing is known of a training."""
        return {}
