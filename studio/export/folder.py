"""A run as a folder of files that other programs load: written, loaded again as a stranger would, compared, signed."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

from studio.config.jobs import SERVERS
from studio.export.card import model_card
from studio.export.cards.curves import FILE, draw_curves
from studio.export.files import sha256
from studio.export.making import Making
from studio.export.proof.gates import Verdict, gate_of, near_tie
from studio.export.steps import StepResult
from studio.jobs import JobFolder

# The limits of a dtype are those of the GGUF type that stores the same numbers; of NF4, those of the one that also has
# 4 bits for each weight and a scale for a block, without a look at which weights matter.
GATES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "nf4": "q4_0"}
# Mean KL, in nats: a training that moved the base model by less is within what 16 bits round away. It is told, since
# neither "as trained" nor "the training is not in it" would be known.
SEEN_NATS = 1e-4
# So few bits may move a model by more than a training did, which then says nothing of whether that is in it.
COARSE = ("nf4",)
# As far from the trained model as this share of what the training moved: the training is not in it.
LOST_SHARE = 0.9


class FolderExport(Making):
    """One folder, compared with the trained model."""

    @property
    def kind(self) -> str:
        """What it is: a merged checkpoint or an adapter, whatever serves it."""
        return self.config.serve if self.config.to in SERVERS else self.config.to

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Name of the dtype that the folder's weights have."""

    @property
    def good(self) -> Verdict:
        """Verdict of a folder that keeps its limits."""
        return self.source.origin.good

    @property
    def base(self) -> Path | None:
        """Folder of the model that what was written is loaded with; None where it is a whole model."""
        return None

    @property
    def folder(self) -> Path:
        """Where it is made."""
        return self.work / f"{self.name}-{self.kind}"

    @property
    def result(self) -> Path:
        """The folder where it lies once it is made."""
        return self.context.job.exports / self.folder.name

    @abstractmethod
    def write(self) -> None:
        """Write the folder's files but the card, before the trained model is asked."""

    def complete(self) -> None:
        """Add to the folder what only the trained model could tell."""

    def told(self, found: dict[str, Any]) -> list[str]:
        """What is true of the folder and fails nothing.

        Args:
            found: the answer of `proof.checkpoint`.
        """
        greedy, moved, said = found["greedy"], self.reference["moved"], []
        if greedy["unsure"]:
            said.append(
                f"{greedy['unsure']} of {greedy['total']} greedy answers diverge where two tokens are near-ties"
            )
        if moved is not None and moved <= SEEN_NATS:
            said.append(f"the training moved the base model by a mean KL of {moved:.1g}, too little to see here")
        return said

    def make(self) -> None:
        """Write it, prove it, sign it, and move it out."""
        self.write()
        self.refer(answers=True)
        self.complete()
        began, kind = time.monotonic(), self.kind
        gate = gate_of(GATES[self.dtype], self.reference["dtype"])
        request = {
            "checkpoint": str(self.folder), "base": str(self.base) if self.base else None, "folder": str(self.work),
            "near_tie": near_tie(gate), "rows": False,
        }  # fmt: skip
        result = self.step(f"verifying {kind}", "proof.checkpoint", request, "tokens")
        entry = self.entry(kind, gate, self.good, result)
        entry |= {"dtype": self.dtype, "file": self.folder.name, "sha256": None, "greedy": result.answer.get("greedy")}
        moved = self.reference["moved"]
        if moved and moved > SEEN_NATS:
            entry["moved"] = {"mean_kl": moved, "at_most": LOST_SHARE * moved}
        if result.code == 0:
            wrong = self._wrong(result)
            entry["notes"] = [*self.told(result.answer), *entry["notes"], *wrong]
            entry["verdict"] = "differs" if wrong else entry["verdict"]
            if self.rows is not None:
                self.answer_rows(entry, "proof.checkpoint", request | {"rows": True})
        entry["seconds"] = {"proving": round(time.monotonic() - began, 2)}
        self._draw()
        self._write_card(self.folder, entry)
        entry["parts"] = self._signed()
        entry["bytes"] = sum(part["bytes"] for part in entry["parts"])
        self.folder.replace(self.result)
        entry["path"] = str(self.result)
        self.deliver(entry)

    def taken(self, earlier: JobFolder) -> None:
        """Write the card of a folder that was taken, and sign it anew."""
        super().taken(earlier)
        for entry in self.report["files"]:
            entry["path"] = str(self.result)
            card = self._write_card(self.result, entry)
            for part in entry["parts"]:
                if part["file"] == f"{self.folder.name}/{card.name}":
                    part |= {"bytes": card.stat().st_size, "sha256": sha256(card, lambda done: None)}
            entry["bytes"] = sum(part["bytes"] for part in entry["parts"])

    def readme(self) -> str:
        """Text of the README beside the folder: that of the folder itself."""
        return (self.result / "README.md").read_text(encoding="utf-8")

    def _write_card(self, folder: Path, entry: dict[str, Any]) -> Path:
        card = folder / "README.md"
        card.write_text(model_card(self.source.origin, self.report, entry), encoding="utf-8")
        return card

    def _draw(self) -> None:
        """Draw the run's curves beside the card, if it recorded any."""
        losses = self.source.origin.losses()
        if len(losses.train) > 1:
            draw_curves(losses, self.folder / FILE)
            self.report["curves"] = {"file": FILE, "sentence": losses.sentence()}

    def _wrong(self, result: StepResult) -> list[str]:
        """What fails a folder beyond what fails any export."""
        said = []
        greedy, moved = result.answer["greedy"], self.reference["moved"]
        broken = greedy["total"] - greedy["equal"] - greedy["unsure"]
        if broken:
            worst = greedy["worst"]
            said.append(
                f"{broken} of {greedy['total']} greedy answers differ where {self.source.origin.whole} was sure "
                f"('{worst['prompt']}', by {worst['nats']:.2g} nats)"
            )
        told = self.dtype not in COARSE and moved and moved > SEEN_NATS
        if told and result.answer["overall"]["mean_kl"] >= LOST_SHARE * moved:
            said.append("it is no closer to the trained model than the base model is: the training is not in it")
        return said

    def _signed(self) -> list[dict[str, Any]]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        total, parts, before = sum(path.stat().st_size for path in paths), [], 0
        with self.context.phase("checksums", total, "bytes") as phase:
            for path in paths:
                digest = sha256(path, lambda done, before=before: phase.set(before + done))  # type: ignore[misc]
                size = path.stat().st_size
                name = f"{self.folder.name}/{path.relative_to(self.folder)}"
                parts.append({"file": name, "bytes": size, "sha256": digest})
                before += size
        return parts
