"""How GGUF files are made of a run: merge, convert, quantize, compare, answer, sign."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from studio.config.jobs import MATRIX_ENDING, MATRIX_HELPS, MATRIX_NEEDED, ExportConfig, GgufType
from studio.errors import InputError
from studio.export.files import require_space, sha256
from studio.export.gguf.checkpoint import link_checkpoint
from studio.export.gguf.convert import convert
from studio.export.gguf.naming import metadata, put_no_start
from studio.export.gguf.quantize import quantize
from studio.export.gguf.rehearsal import require_takeaway
from studio.export.gguf.tokens import has_own_files, needs_work
from studio.export.gguf.toolchain import Toolchain, ensure_toolchain
from studio.export.imatrix.sample import training_rows
from studio.export.making import Making
from studio.export.proof.gates import TYPES, Verdict, gate_of, largest_bytes
from studio.export.serving.modelfile import write_modelfile
from studio.export.source import Source, cpu_threads
from studio.export.steps import require
from studio.jobs.run.worker import JobContext
from studio.jobs.views.expected import export_seconds
from studio.models.inspect.tokenizerfiles import tokenizer_files

MATRIX = "imatrix"
# Destinations whose programs take a divided file.
DIVIDED = ("gguf", "llama-server")
UNIMPORTED = "no Modelfile is written: Ollama imports no divided file (llama-gguf-split --merge makes one file of it)"
UNWEIGHTED = ("q8_0",)  # llama.cpp rounds these without looking at a matrix


class GgufExport(Making):
    """GGUF files, each compared with the trained model, and a Modelfile for the first of them.

    Attributes:
        adds_start: llama.cpp puts the token that begins a text before each prompt by itself.
    """

    engine = "llama.cpp"

    def __init__(self, context: JobContext, config: ExportConfig, source: Source, rows: Path | None) -> None:
        super().__init__(context, config, source, rows)
        self.types = list(dict.fromkeys(config.types))
        self.weighted = self._weighted()
        self.adds_start = False
        self._rows: dict[str, Any] = {}
        self._made: dict[str, Any] = {}
        self._tools: Toolchain | None = None

    def expected(self) -> dict[str, float]:
        """Return the seconds that each phase should take."""
        converted = [kind for kind in self.types if TYPES[kind].by_converter]
        converted += ["f16"] if self._quantised() and "f16" not in converted else []
        seconds = export_seconds(
            self.source.half_bytes, self.types, converted, self.source.adapter is not None, self.rows is not None,
            bool(self.weighted),
        )  # fmt: skip
        half = self.source.half_bytes
        larger = [kind for kind in self.types if 0 < self._most < TYPES[kind].bits * half / 16]
        return seconds | {f"dividing {kind}": 2 + half / 1e9 for kind in larger}

    @property
    def size(self) -> int:
        """Bytes that what is made may take."""
        return sum(largest_bytes(kind, self.source.half_bytes) for kind in self.types)

    def prepare(self) -> None:
        """Refuse what has no room, or what llama.cpp cannot take; fetch the converter if it is missing."""
        half = self.source.half_bytes
        wide = 2 if self._intermediate() == "float32" else 1
        needed = half * wide if self.source.adapter else 0
        needed += self.size
        needed += half if "f16" not in self.types and self._quantised() else 0
        require_space(self.context.job.path, needed, "the export")
        if self.weighted:
            self._find_rows()
        elif self.config.imatrix == "on":
            self.context.notice("info", f"no importance matrix is made: {', '.join(self.types)} would not use it")
        self._tools = ensure_toolchain(self.context.settings, self.context)
        require_takeaway(self.source.weights, self.source.origin.said, self.context.settings)

    def make(self) -> None:
        """Write all files, then prove them one by one."""
        assert self._tools is not None  # prepared
        self._write(self._tools)
        self.refer()
        if not self.reference["begun"] and any([put_no_start(self._file(kind)) for kind in self.types]):
            self.context.log("the conversations of the training have no token before them, so the files ask for none")
        if self.weighted:
            self._deliver_matrix()
        for kind in self.types:
            self._prove(kind)
        first = self.report["files"][0]
        if "shards" in first:
            self.context.notice("info", UNIMPORTED)
        else:
            self.report["modelfile"] = write_modelfile(
                self.context.job.exports, first["file"], self.reference, self.adds_start
            )
        self.write_report()

    def _quantised(self) -> list[GgufType]:
        return [kind for kind in self.types if not TYPES[kind].by_converter]

    def _weighted(self) -> list[GgufType]:
        """The types that are rounded with an importance matrix."""
        asked = self.config.imatrix
        wanted = self._quantised() if asked == "on" else (*MATRIX_NEEDED, *MATRIX_HELPS) if asked == "auto" else ()
        return [kind for kind in self._quantised() if kind in wanted and kind not in UNWEIGHTED]

    def _intermediate(self) -> str:
        """Precision of the merged weights: what the widest file asked for needs, so that each is rounded once."""
        return "float32" if {"f32", "bf16"} & set(self.types) else "float16"

    def _write(self, tools: Toolchain) -> None:
        """Write all files into the work folder."""
        # The converter reads meaning into the folder's name, so the run's is not in it.
        merged, tokenizer = self.work / "model", self._tokenizer()
        if self.source.adapter is None:
            link_checkpoint(self.source.model, merged, self.source.base, tokenizer)
        else:
            self.merge(merged, tokenizer, dtype=self._intermediate())
        said = metadata(self.report["name"], self.report["base_model"], merged, self.source.origin.made)
        converted: list[str] = [kind for kind in self.types if TYPES[kind].by_converter]
        if self._quantised() and "f16" not in converted:
            converted.append("f16")
        for kind in converted:
            name = "converting" if len(converted) == 1 else f"converting {kind}"
            with self.context.phase(name, 100, "%") as phase:
                result = convert(merged, self._file(kind), kind, said, tools, self.context, phase)
            self.measured(name, result)
        shutil.rmtree(merged)
        if self.weighted:
            self._make_matrix()
        for kind in self._quantised():
            name = f"quantizing {kind}"
            require_space(self.work, largest_bytes(kind, self._file("f16").stat().st_size), f"the {kind} file")
            with self.context.phase(name, None, "tensors") as phase:
                matrix = self._made | {"path": str(self._file(MATRIX))} if kind in self.weighted else None
                made = quantize(self._file("f16"), self._file(kind), kind, cpu_threads(), self.context, phase, matrix)
            self.measured(name, made.result)
            self.report.setdefault("notes", {})[kind] = made.notes
        if "f16" not in self.types:
            self._file("f16").unlink(missing_ok=True)

    def _find_rows(self) -> None:
        """Find the training rows; without them, types that are merely better with a matrix are made without."""
        try:
            self._rows = training_rows(self.source.origin.data(self.rows), self.context.settings).model_dump(
                mode="json"
            )
        except InputError as error:
            if self.config.imatrix != "auto" or set(self.weighted) & set(MATRIX_NEEDED):
                raise
            self.weighted = []
            self.context.notice("warning", f"made without an importance matrix: {error.what}")

    def _make_matrix(self) -> None:
        """Let llama.cpp compute training rows with the f16 file, and keep how strongly its weights are used."""
        request = {
            "file": str(self._file("f16")), "target": str(self._file(MATRIX)), "tokenizer": str(self.source.model),
            "rows": self._rows, "threads": cpu_threads(),
        }  # fmt: skip
        made = self.step("importance matrix", "imatrix.make", request, "tokens")
        answer = require(made, "making the importance matrix").answer
        self._made = {
            "file": self.name + MATRIX_ENDING,
            "types": self.weighted,
            "of": self.source.origin.rows_of,
        } | answer
        if answer["unreached"]:
            self.context.notice(
                "info",
                f"{answer['unreached']} matrices of experts were chosen by no token of the importance matrix's rows: "
                "all of their columns count alike",
            )

    def _deliver_matrix(self) -> None:
        """Sign the matrix, move it to exports/ and enter it in the report."""
        file, size = self._file(MATRIX), self._file(MATRIX).stat().st_size
        with self.context.phase("checksums", size, "bytes") as phase:
            digest = sha256(file, phase.set)
        file.replace(self.context.job.exports / self._made["file"])
        self.report["imatrix"] = self._made | {"bytes": size, "sha256": digest}
        self.write_report()

    def _tokenizer(self) -> Path:
        """Folder of the tokenizer's files that go into the GGUF."""
        run, base = self.source.tokenizer, self.source.base
        base = base if base is not None and tokenizer_files(base) else run
        if has_own_files(run, base) and not needs_work(run):
            return run
        folder = self.work / "tokenizer"
        request = {"run": str(run), "base": str(base), "folder": str(folder)}
        answer = require(self.step("reading the tokenizer", "gguf.tokens", request, ""), "reading the tokenizer").answer
        self.report["tokenizer"] = answer["from"]
        return folder

    def _prove(self, kind: str) -> None:
        """Compare one file, answer rows with it, sign it, move it out and enter it in the report."""
        began = time.monotonic()
        files = self._divided(kind)
        request = {"file": str(next(iter(files.values()))), "folder": str(self.work), "threads": cpu_threads()}
        result = self.step(f"verifying {kind}", "proof.verify", request, "tokens")
        self.adds_start = bool(result.answer.get("adds_start"))
        good: Verdict = self.source.origin.good if TYPES[kind].by_converter else "as expected"
        entry = self.entry(kind, gate_of(kind, self.reference["dtype"]), good, result)
        entry["imatrix"] = kind in self.weighted
        entry["notes"] = [*self.report.get("notes", {}).get(kind, []), *entry["notes"]]
        if self.rows is not None and result.code == 0:
            self.answer_rows(entry, "proof.rows", request)
        self.deliver_files(entry, files, began)

    @property
    def _most(self) -> int:
        """Bytes above which a file is divided; 0 for none."""
        return int(self.config.shard_size * 1e9) if self.config.shard_size and self.config.to in DIVIDED else 0

    def _divided(self, kind: str) -> dict[str, Path]:
        """The files of a type by the names under which they are delivered: one, or several where it is too large."""
        file, stem = self._file(kind), f"{self.name}-{kind}"
        if not 0 < self._most < file.stat().st_size:
            return {f"{stem}.gguf": file}
        require_space(self.work, file.stat().st_size, f"the {kind} file in parts")
        request = {"file": str(file), "stem": stem, "most": self._most}
        names = require(self.step(f"dividing {kind}", "forms.split", request, ""), "dividing the file").answer["files"]
        file.unlink()
        return {name: self.work / name for name in names}

    def _file(self, kind: str) -> Path:
        return self.work / f"{kind}.gguf"
