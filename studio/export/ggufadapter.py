"""An adapter as a GGUF of its own, which llama.cpp and Ollama load beside the GGUF of its base model."""

from __future__ import annotations

import time
from pathlib import Path

from studio.export.card import card_front, shown_base
from studio.export.files import require_space
from studio.export.gguf.checkpoint import link_checkpoint
from studio.export.gguf.convert import convert
from studio.export.gguf.naming import metadata
from studio.export.gguf.rehearsal import require_takeaway
from studio.export.gguf.toolchain import Toolchain, ensure_toolchain
from studio.export.making import Making
from studio.export.proof.gates import gate_of
from studio.export.readme import adapter_readme
from studio.export.source import cpu_threads
from studio.export.steps import require
from studio.jobs.views.expected import lora_seconds
from studio.models.inspect.adapters import WEIGHTS

KIND = "gguf-lora"


class GgufAdapterExport(Making):
    """One GGUF with the adapter's matrices, compared beside the base model in f16."""

    engine = "llama.cpp"

    def expected(self) -> dict[str, float]:
        """Return the seconds that each phase should take."""
        return lora_seconds(self.source.half_bytes, self.rows is not None)

    @property
    def size(self) -> int:
        """Bytes that what is made may take: the matrices, in 16 bits where they were in 32, and its papers."""
        return (self.source.model / WEIGHTS).stat().st_size

    def prepare(self) -> None:
        """Refuse what has no room or llama.cpp cannot take; fetch the converter if it is missing."""
        require_space(self.context.job.path, int(1.2 * self.source.half_bytes), "the base model as GGUF, for the proof")
        self._tools: Toolchain = ensure_toolchain(self.context.settings, self.context)
        require_takeaway(self.source.weights, self.source.origin.said, self.context.settings)

    def make(self) -> None:
        """Bring the adapter to one scale, convert it and the base model, compare the two, sign it, move it out."""
        adapter, model = self.work / "adapter", self.work / "model"
        request = {"adapter": str(self.source.adapter), "base": str(self.source.base), "target": str(adapter)}
        self.report["adapter"] = require(self.step("reading the adapter", "gguf.lora", request, ""), "reading").answer
        link_checkpoint(self.source.weights, model, self.source.base, self.source.tokenizer)
        said = metadata(self.report["name"], self.report["base_model"], model, self.source.origin.made)
        base, file = self.work / "base.gguf", self.work / "adapter.gguf"
        for name, source, target, beside in (
            ("converting the base model", model, base, None),
            ("converting the adapter", adapter, file, model),
        ):
            with self.context.phase(name, 100, "%") as phase:
                result = convert(source, target, "f16", said, self._tools, self.context, phase, beside)
            self.measured(name, result)
        self.refer()
        self._prove(base, file)

    def readme(self) -> str:
        """Text of the README beside the file."""
        return card_front(self.source.origin, self.report, "adapter", "gguf") + adapter_readme(
            self.report["name"], shown_base(self.report), self.report["files"][0],
            self.source.origin.whole,
        )  # fmt: skip

    def _prove(self, base: Path, file: Path) -> None:
        began = time.monotonic()
        request = {"file": str(base), "lora": str(file), "folder": str(self.work), "threads": cpu_threads()}
        result = self.step(f"verifying {KIND}", "proof.verify", request, "tokens")
        entry = self.entry(KIND, gate_of("f16", self.reference["dtype"]), self.source.origin.good, result)
        if (rescaled := self.report["adapter"]["rescaled"]) and result.code == 0:
            entry["notes"].append(f"{rescaled} layers had a scale of their own, which is in their matrices now")
        if self.rows is not None and result.code == 0:
            self.answer_rows(entry, "proof.rows", request)
        self.deliver_files(entry, {f"{self.name}-lora-f16.gguf": file}, began)
