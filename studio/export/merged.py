"""A run as one checkpoint in safetensors, for vLLM, transformers and further training, proven like a GGUF file.

It is written, given what serving needs beside the weights, loaded again as a stranger would load it, and compared with
base and adapter: probabilities, prompt ids, template, end of turn, greedy answers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from studio.export.card import model_card
from studio.export.files import require_space, sha256
from studio.export.gguf.checkpoint import read_object, write_object
from studio.export.making import Making
from studio.export.proof.gates import gate_of, near_tie
from studio.export.steps import StepResult
from studio.jobs.store.files import read_json
from studio.jobs.views.expected import merged_seconds

GENERATION = "generation_config.json"
# The limits of a dtype are those of the GGUF type that stores the same numbers.
GATES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
# Mean KL, in nats: adding the adapter to the weights or to their products differs by 1e-5, so a training that moved
# the base model by less than ten times that cannot be seen in the checkpoint.
SEEN_NATS = 1e-4
# More of what the training moved than this share, lost by rounding, is told; from the other one on it is not in there.
ROUNDED_SHARE, LOST_SHARE = 0.25, 0.9


class MergedExport(Making):
    """One checkpoint folder, compared with the trained model."""

    noun = "checkpoints"

    @property
    def dtype(self) -> str:
        """Name of the dtype that is written; auto is the base model's own."""
        if self.config.dtype != "auto":
            return self.config.dtype
        raw = read_object(self.source.weights / "config.json")
        own = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
        return own if own in GATES else "float32"

    @property
    def folder(self) -> Path:
        """Where it is made."""
        return self.work / f"{self.name}-merged"

    def expected(self) -> dict[str, float]:
        """Return the seconds that each phase should take."""
        return merged_seconds(self.source.half_bytes, self.rows is not None)

    def prepare(self) -> None:
        """Refuse what has no room."""
        needed = self.source.half_bytes // 2 * _WIDTHS[self.dtype]
        require_space(self.context.job.path, needed, "the merged checkpoint")

    def make(self) -> None:
        """Write it, prove it, sign it, and move it out."""
        self.merge(
            self.folder, self.source.model, dtype=self.dtype, shard_bytes=int(self.config.shard_gb * 1e9), uniform=True
        )
        self.refer(answers=True)
        end_answers(self.folder, self.reference["ends"])
        began = time.monotonic()
        gate = gate_of(GATES[self.dtype], self.reference["dtype"])
        request = {
            "checkpoint": str(self.folder), "folder": str(self.work), "near_tie": near_tie(gate), "rows": False
        }  # fmt: skip
        result = self.step("verifying merged", "proof.checkpoint", request, "tokens")
        entry = self.entry("merged", gate, "as trained", result)
        entry |= {"dtype": self.dtype, "file": self.folder.name, "sha256": None, "greedy": result.answer.get("greedy")}
        entry["notes"] = [*self._told(result), *entry["notes"]]
        if result.code == 0 and (wrong := self._wrong(result)):
            entry["verdict"] = "differs"
            entry["notes"] += wrong
        if self.rows is not None and result.code == 0:
            self.answer_rows(entry, "proof.checkpoint", request | {"rows": True})
        entry["seconds"] = {"proving": round(time.monotonic() - began, 2)}
        card = model_card(self.source.run, self.report, entry)
        (self.folder / "README.md").write_text(card, encoding="utf-8")
        entry["parts"] = self._signed()
        entry["bytes"] = sum(part["bytes"] for part in entry["parts"])
        target = self.context.job.exports / self.folder.name
        self.folder.replace(target)
        entry["path"] = str(target)
        self.deliver(entry)

    def readme(self) -> str:
        """Text of the README beside the folder: that of the folder itself."""
        return (self.context.job.exports / self.folder.name / "README.md").read_text(encoding="utf-8")

    def _wrong(self, result: StepResult) -> list[str]:
        """What fails a checkpoint beyond what fails any export."""
        said = []
        greedy, moved = result.answer["greedy"], self.reference["moved"]
        broken = greedy["total"] - greedy["equal"] - greedy["unsure"]
        if broken:
            worst = greedy["worst"]
            said.append(
                f"{broken} of {greedy['total']} greedy answers differ where the trained model was sure "
                f"('{worst['prompt']}', by {worst['nats']:.2g} nats)"
            )
        if moved and moved > SEEN_NATS and result.answer["overall"]["mean_kl"] >= LOST_SHARE * moved:
            said.append("it is no nearer to the trained model than the base model is: the training is not in it")
        return said

    def _told(self, result: StepResult) -> list[str]:
        """What is true of it and fails nothing."""
        said = []
        wide = self.report["merge"]["kept_wide"]
        if wide:
            said.append(f"{len(wide)} tensors are in float32, because float16 cannot hold them ({wide[0]})")
        if result.code != 0:
            return said
        greedy, moved = result.answer["greedy"], self.reference["moved"]
        if greedy["unsure"]:
            said.append(f"{greedy['unsure']} of {greedy['total']} greedy answers part where two tokens are near-ties")
        lost = result.answer["overall"]["mean_kl"]
        if moved is not None and moved <= SEEN_NATS:
            said.append(f"the training moved the base model by a mean KL of {moved:.1g}, too little to see here")
        elif moved and ROUNDED_SHARE * moved < lost < LOST_SHARE * moved:
            said.append(
                f"{self.dtype} rounds away {lost / moved:.0%} of what the training moved (mean KL); float32 keeps it"
            )
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


def end_answers(folder: Path, ends: list[int]) -> None:
    """Let generation end where the trained model's does: complete or write generation_config.json.

    vLLM, TGI and transformers read the end tokens from there; that of a base model often lacks the end of a turn.

    Args:
        folder: of the checkpoint.
        ends: token ids that end an answer; none are known of a model without any, which stays as it is.
    """
    if not ends:
        return
    path = folder / GENERATION
    known = read_json(path) if path.is_file() else {}
    values = known if isinstance(known, dict) else {}
    values["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    write_object(path, values)
