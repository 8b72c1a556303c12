"""A run as one checkpoint in safetensors, for vLLM, SGLang, transformers and further training."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.export.files import require_space
from studio.export.folder import COARSE, LOST_SHARE, SEEN_NATS, FolderExport
from studio.export.gguf.checkpoint import own_dtype, write_object
from studio.export.proof.gates import Verdict
from studio.export.serving.older import write_older_config
from studio.export.steps import require
from studio.jobs.store.files import read_json
from studio.jobs.views.expected import folder_seconds
from studio.models.inspect.tokenizerfiles import copy_tokenizer

GENERATION = "generation_config.json"
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2, "nf4": 3}  # of NF4 with what it is made of
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
        seconds = folder_seconds("merged", self.source.half_bytes, self.rows is not None)
        return seconds | ({"packing in 4 bits": 5 + self.source.half_bytes / 5e7} if self.dtype == "nf4" else {})

    @property
    def good(self) -> Verdict:
        """Verdict of a checkpoint that keeps its limits: one in 4 bits is as expected of them."""
        return "as expected" if self.dtype in COARSE else super().good

    @property
    def size(self) -> int:
        """Bytes that what is made may take."""
        return self.source.half_bytes // 2 * _WIDTHS[self.dtype]

    def prepare(self) -> None:
        """Refuse what has no room."""
        if self.dtype == "nf4" and find_spec("bitsandbytes") is None:
            raise InputError(
                "nf4 needs the package bitsandbytes, which is not installed", where="dtype",
                fix="Install it (pip install bitsandbytes), or choose bfloat16",
            )  # fmt: skip
        require_space(self.context.job.path, self.size, "the merged checkpoint")

    def write(self) -> None:
        """Merge, round, and write beside it what serving needs."""
        shard_bytes = int(self.config.shard_gb * 1e9)
        form = {"dtype": self.dtype, "shard_bytes": shard_bytes, "uniform": True}
        if self.dtype != "nf4":
            self.merge(self.folder, self.source.tokenizer, **form)
            return
        whole = self.work / "model"
        self.merge(whole, self.source.tokenizer, **form | {"dtype": "bfloat16"})
        request = {"source": str(whole), "target": str(self.folder), "shard_bytes": shard_bytes}
        packed = self.step("packing in 4 bits", "forms.nf4", request, "")
        self.report["packed"] = require(packed, "packing in 4 bits").answer
        copy_tokenizer(whole, self.folder)
        shutil.rmtree(whole)

    def complete(self) -> None:
        """Write which tokens end an answer, and the settings for programs with transformers 4."""
        end_answers(self.folder, self.reference["ends"])
        write_older_config(self.folder)

    def told(self, found: dict[str, Any]) -> list[str]:
        """What is true of the checkpoint and fails nothing: also which tensors are wider, and what rounding lost.

        Args:
            found: the answer of `proof.checkpoint`.
        """
        lost, moved = found["overall"]["mean_kl"], self.reference["moved"]
        if self.dtype in COARSE:
            greedy, beside = found["greedy"], f", the training moved it by {moved:.2g}" if moved else ""
            differ = f"{greedy['total'] - greedy['equal']} of {greedy['total']} greedy answers differ"
            moves = f"4 bits move the model by {lost:.2g} nats per token{beside}"
            return [f"{moves}, and {differ}: check it on rows of your task"]
        said, wide = super().told(found), self.report["merge"]["kept_wide"]
        if wide:
            said.append(f"{len(wide)} tensors are in float32, because float16 cannot hold them ({wide[0]})")
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
