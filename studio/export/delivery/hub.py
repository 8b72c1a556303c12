"""A repository of the Hugging Face Hub as the place of an export.

It is asked before anything is made whether the token may write there and what it holds; it is created and written to
only once what was made has been proven.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import InputError
from studio.export.cards.license import told
from studio.export.delivery.delivery import Delivery
from studio.export.delivery.refusals import WHERE, require_repository
from studio.export.files import parts_of
from studio.export.steps import StepResult, require, run_own_step
from studio.models.catalog.hubaccess import shown_endpoint

if TYPE_CHECKING:
    from studio.export.making import Making

ASKING = "asking the Hub"
# Git LFS, not Xet: by the checksums that the report has, the Hub knows what was sent before, and mirrors speak it, too.
# Nothing of the client's reaches the log, since its warnings name addresses.
ENVIRONMENT = {
    "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error", "PYTHONWARNINGS": "ignore",
}  # fmt: skip
# Weights of an earlier upload that a loader would take in place of the new ones, by what is uploaded.
_LOADED_FIRST = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
STALE = {"merged": _LOADED_FIRST, "adapter": _LOADED_FIRST}


class HubDelivery(Delivery):
    """Into a repository, with one commit."""

    phase = "uploading"
    bytes_a_second = 1e7

    def prepare(self, report: dict[str, Any], size: int) -> None:
        """Ask the Hub, and refuse what it would refuse; the base model's license and the address go into the report.

        Args:
            report: of the export so far.
            size: not used: the Hub has no limit that it tells.

        Raises:
            InputError: the name, the token or what the repository holds.
            StudioError: the Hub cannot be reached.
        """
        self.repo = require_repository(self.config.repo)
        base = (self.config.base if self.config.made == "adapter" else None) or str(report["base_model"])
        base = base.partition("@")[0]
        with self.context.phase(ASKING):
            self.known = require(self._step("ask", {"repo": self.repo, "base": base}), ASKING).answer
        held = self.known["files"]
        if held and not self.config.overwrite:
            raise InputError(
                f"{self.repo} holds {len(held)} files already ({', '.join(held[:5])}{', …' if len(held) > 5 else ''})",
                where=WHERE,
                fix="Give another name, or choose to replace files (overwrite): those of other names stay",
            )
        report["license"] = told(self.known["license"], base) or report["license"]
        report["place"] = self.repo

    def deliver(self, files: Mapping[str, Path], making: Making) -> dict[str, Any]:
        """Upload the files, and make them visible with one commit.

        Args:
            files: by the name they have there.
            making: the export that made them.
        """
        held = self.known["files"]
        stale = [
            name for name in held if name not in files
            and any(fnmatch(name, pattern) for pattern in STALE.get(self.config.what, ())) and "/" not in name
        ]  # fmt: skip
        signed = signatures(making.report, making.context.job.exports)
        request = {
            "repo": self.repo, "private": self.config.private, "remove": stale,
            "files": [{"name": name, "path": str(path), "sha256": signed.get(path)} for name, path in files.items()],
            "message": f"Upload {making.report['name']} ({self.config.what}) with Finetune Studio",
        }  # fmt: skip
        total = sum(path.stat().st_size for path in files.values())
        with self.context.phase(self.phase, total, "bytes") as phase:
            result = self._step("upload", request, phase)
        making.measured(self.phase, result)
        answer = require(result, self.phase).answer
        if stale:
            self.context.notice("info", f"removed from {self.repo}, since it would be loaded first: {', '.join(stale)}")
        return {
            "to": "hub", "where": self.repo, "url": f"{shown_endpoint()}/{self.repo}", "commit": answer["commit"],
            "private": self.known["private"] if self.known["exists"] else self.config.private, "files": len(files),
            "bytes": total, "sent": answer["sent"], "replaced": [name for name in held if name in files],
            "removed": stale,
        }  # fmt: skip

    def expected(self, half_bytes: int) -> dict[str, float]:
        """Seconds that asking and uploading should take.

        Args:
            half_bytes: of the model in 16 bits.
        """
        return {ASKING: 3.0, **super().expected(half_bytes)}

    def _step(self, name: str, request: dict[str, Any], phase: Any = None) -> StepResult:
        online = {**ENVIRONMENT, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")}
        with tempfile.TemporaryDirectory(dir=self.context.job.path, prefix=".step.") as folder:
            report = phase.set if phase is not None else None
            module = f"studio.export.delivery.{name}"
            return run_own_step(module, request, Path(folder), self.context, report, online)


def signatures(report: dict[str, Any], exports: Path) -> dict[Path, str]:
    """The SHA-256 of what was made, by file.

    Args:
        report: of the export.
        exports: folder in which its files lie.
    """
    parts = [part for file in report["files"] for part in parts_of(file)]
    return {exports / part["file"]: part["sha256"] for part in parts}
