"""What every origin of an exported model answers; nothing that makes an export asks which kind it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.export.cards.curves import Losses
from studio.export.proof.gates import Verdict
from studio.settings import Settings


class Origin(ABC):
    """A run, or a model from elsewhere.

    Attributes:
        whole: what the model that answers are compared with is called in a sentence.
        good: verdict of what answers like it.
        rows_of: what the rows of an importance matrix are called.
        lacks_adapter: why there is none, as a clause.
        license_of: whose license applies, in a sentence.
        without_rows: what a person is told who gave no rows; "" where it has its own.
        made: how it was made, as a word of a GGUF's description.
    """

    whole = "the trained model"
    good: Verdict = "as trained"
    rows_of = "training rows"
    lacks_adapter = "all of its weights were trained"
    license_of = "the base model"
    without_rows = ""
    made = "fine-tuned"

    @property
    @abstractmethod
    def id(self) -> str:
        """What a report calls it: the same for the same model, whatever is named alike later."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What a person calls it."""

    @property
    @abstractmethod
    def said(self) -> str:
        """What a sentence calls it: run 'orders'."""

    @property
    @abstractmethod
    def model(self) -> Path:
        """Folder of what is exported, unless it is a checkpoint of a run."""

    @property
    @abstractmethod
    def base_model(self) -> Mapping[str, Any]:
        """The model that it was trained from, or is: name, path and source ("hub", "local", "embedded"), as known."""

    @abstractmethod
    def data(self, rows: Path | None) -> Mapping[str, Any]:
        """Configuration of a run whose rows it is compared on, and its importance matrix is made of.

        Args:
            rows: file on which the export answers; None for none.
        """

    @abstractmethod
    def losses(self) -> Losses:
        """Losses of the training."""

    @abstractmethod
    def evaluation(self, settings: Settings) -> dict[str, Any] | None:
        """Its newest evaluation, as `cards.scores.evaluation_of` has it."""

    @abstractmethod
    def evaluation_on(self, settings: Settings, rows: Path) -> dict[str, Any] | None:
        """The report of its newest evaluation on all rows of a file, where there is one.

        Args:
            settings: of the home whose evaluations are searched.
            rows: the file.
        """

    def score(self, settings: Settings, rows: Path) -> dict[str, Any] | None:
        """Its exact match on a file, where it was measured.

        Args:
            settings: of the home whose evaluations are searched.
            rows: the file.
        """
        report = self.evaluation_on(settings, rows)
        after: dict[str, Any] = report["after"] if report else {}
        return {key: after[key] for key in ("correct", "total", "exact_match")} if report else None

    @abstractmethod
    def descent(self, base: str, relation: str) -> tuple[str, str]:
        """The name of the model that it comes from and its relation to that, as the Hub has them; a name may be none.

        Args:
            base: name of the base model, as the export carries it.
            relation: of what is made of a training to the base model.
        """

    @abstractmethod
    def tags(self) -> list[str]:
        """Words for its card."""

    @abstractmethod
    def datasets(self) -> list[str]:
        """Hub ids of the data that it was trained on."""

    @abstractmethod
    def sentence(self) -> str:
        """Where its weights come from, as a clause after its base model's name."""

    @abstractmethod
    def made_of(self) -> str:
        """The card's sections on data and settings; "" for none."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the libraries that trained it, by name; {} where that is not known."""
