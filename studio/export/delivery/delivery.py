"""What every delivery does: refuse early, put files somewhere, tell what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.config.jobs import ExportConfig
from studio.jobs.run.worker import JobContext

if TYPE_CHECKING:
    from studio.export.making import Making


class Delivery(ABC):
    """One place to which an export goes.

    Attributes:
        phase: what the delivery is called while it runs.
        bytes_a_second: about how fast it is, for the bar of the whole job.

    Args:
        context: of the job.
        config: what was asked for.
    """

    phase = ""
    bytes_a_second = 1e8

    def __init__(self, context: JobContext, config: ExportConfig) -> None:
        self.context, self.config = context, config

    @abstractmethod
    def prepare(self, report: dict[str, Any], size: int) -> None:
        """Refuse, before anything is made, what cannot be put there.

        Args:
            report: of the export so far; a delivery adds what the model card has to know.
            size: bytes that will be made; 0 where they are there already.
        """

    @abstractmethod
    def deliver(self, files: Mapping[str, Path], making: Making) -> dict[str, Any]:
        """Put the files there.

        Args:
            files: by the name they have there; a slash stands for a folder.
            making: the export that made them.

        Returns:
            what the report says of it: `to`, `where`, `files`, `bytes` at least.

        Raises:
            StudioError: it is refused, or failed on the way; what was made is not affected.
            StoppedError: a stop was asked for.
        """

    def expected(self, half_bytes: int) -> dict[str, float]:
        """Seconds that it should take.

        Args:
            half_bytes: of the model in 16 bits.
        """
        return {self.phase: half_bytes / self.bytes_a_second}


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a folder, by their names in it."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
