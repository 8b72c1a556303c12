"""A run as one checkpoint in safetensors, for vLLM, SGLang, transformers and further training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.export.files import require_space
from studio.export.folder import LOST_SHARE, SEEN_NATS, FolderExport
from studio.export.gguf.checkpoint import own_dtype, write_object
from studio.export.serving.older import write_older_config
from studio.jobs.store.files import read_json
from studio.jobs.views.expected import folder_seconds

GENERATION = "generation_config.json"
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
# More of what the training moved than this share, lost by rounding, is told.
ROUNDED_SHARE = 0.25


class MergedExport(FolderExport):
    """Base model and adapter as one checkpoint, or a full fine-tune in another precision."""

    noun = "checkpoints"

    @property
    def dtype(self) -> str:
        """Name of the dtype that is written; auto is the base model's own."""
        if self.config.dtype != "auto":
            return self.config.dtype
        return own_dtype(self.source.weights)

    def expected(self) -> dict[str, float]:
        """Return the seconds that each phase should take."""
        return folder_seconds("merged", self.source.half_bytes, self.rows is not None)

    def prepare(self) -> None:
        """Refuse what has no room."""
        needed = self.source.half_bytes // 2 * _WIDTHS[self.dtype]
        require_space(self.context.job.path, needed, "the merged checkpoint")

    def write(self) -> None:
        """Merge, round, and write beside it what serving needs."""
        self.merge(
            self.folder,
            self.source.tokenizer,
            dtype=self.dtype,
            shard_bytes=int(self.config.shard_gb * 1e9),
            uniform=True,
        )

    def complete(self) -> None:
        """Write which tokens end an answer, and the settings for programs with transformers 4."""
        end_answers(self.folder, self.reference["ends"])
        write_older_config(self.folder)

    def told(self, found: dict[str, Any]) -> list[str]:
        """What is true of the checkpoint and fails nothing: also which tensors are wider, and what rounding lost.

        Args:
            found: the answer of `proof.checkpoint`.
        """
        said, wide = super().told(found), self.report["merge"]["kept_wide"]
        if wide:
            said.append(f"{len(wide)} tensors are in float32, because float16 cannot hold them ({wide[0]})")
        lost, moved = found["overall"]["mean_kl"], self.reference["moved"]
        if moved and moved > SEEN_NATS and ROUNDED_SHARE * moved < lost < LOST_SHARE * moved:
            said.append(
                f"{self.dtype} rounds away {lost / moved:.0%} of what the training moved (mean KL); float32 keeps it"
            )
        return said


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
