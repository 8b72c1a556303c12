"""An export from request to report: merge, convert, quantise, compare with the trained model, answer rows, sign.

Every file stays in a work folder until it has been compared; then it moves to exports/ and into report/export.json,
with whatever verdict it got. So a stop or a failure leaves no file without a line in the report. A file that differs
from the trained model is kept, and the job fails, saying so.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from studio.config.jobs import ExportConfig
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.errors import StudioError
from studio.export.files import require_space, sha256
from studio.export.gguf.checkpoint import link_checkpoint
from studio.export.gguf.convert import convert
from studio.export.gguf.naming import metadata
from studio.export.gguf.quantize import quantize
from studio.export.gguf.rehearsal import require_takeaway
from studio.export.gguf.tokens import has_own_files, needs_work
from studio.export.gguf.toolchain import Toolchain, ensure_toolchain
from studio.export.proof.gates import TYPES, difference, gate_of, judge, largest_bytes
from studio.export.readme import readme
from studio.export.source import Source, cpu_threads, open_source, texts_from, trained_score
from studio.export.steps import StepResult, require, run_own_step
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.views.expected import export_seconds
from studio.models.inspect.tokenizerfiles import tokenizer_files

# An export may answer this much fewer rows than the trained model before the task counts as lost.
LOST_SHARE = 0.03


def export(context: JobContext) -> None:
    """Run the export job of `context`.

    Raises:
        InputError: there is no such run, or the rows cannot be used.
        StudioError: a step failed, or a file differs from the trained model.
        StoppedError: a stop was asked for.
    """
    config = build(ExportConfig, context.config, "job.yaml")
    source = open_source(context.settings, config.run)
    rows = resolve_path(config.evaluate, context.settings) if config.evaluate else None
    Export(context, config, source, rows).run()


class Export:
    """The state of one export: its folders, what was measured, and the report so far."""

    def __init__(self, context: JobContext, config: ExportConfig, source: Source, rows: Path | None) -> None:
        self.context, self.config, self.source, self.rows = context, config, source, rows
        self.types = list(dict.fromkeys(config.types))
        self.work = context.job.path / "work"
        self.name = re.sub(r"[^\w.-]+", "-", source.run.request.name, flags=re.ASCII).strip("-.") or source.run.id
        self.phases: list[dict[str, Any]] = []
        self.reference: dict[str, Any] = {}
        self.report: dict[str, Any] = {
            "run": source.run.id,
            "name": source.run.request.name,
            "base_model": source.run.environment().get("base_model", {}).get("name", ""),
            "data": config.evaluate,
            "trained": trained_score(context.settings, source.run, rows) if rows else None,
            "files": [],
            "phases": self.phases,
        }

    def run(self) -> None:
        """Do all of it; the work folder is gone afterwards, whatever happens."""
        self._require_space()
        self.context.outline(self._expected())
        tools = ensure_toolchain(self.context.settings, self.context)
        require_takeaway(self.source.weights, self.source.run.request.name, self.context.settings)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        self.context.job.exports.mkdir(exist_ok=True)
        try:
            self._make(tools)
            self._refer()
            for kind in self.types:
                self._prove(kind)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)
            self._write_report()
        self._conclude()

    def _require_space(self) -> None:
        half = self.source.half_bytes
        wide = 2 if self._intermediate() == "float32" else 1
        needed = half * wide if self.source.adapter else 0
        needed += sum(largest_bytes(kind, half) for kind in self.types)
        needed += half if "f16" not in self.types and self._quantised() else 0
        require_space(self.context.job.path, needed, "the export")

    def _expected(self) -> dict[str, float]:
        converted = [kind for kind in self.types if TYPES[kind].by_converter]
        converted += ["f16"] if self._quantised() and "f16" not in converted else []
        return export_seconds(
            self.source.half_bytes, self.types, converted, self.source.adapter is not None, self.rows is not None
        )

    def _quantised(self) -> list[str]:
        return [kind for kind in self.types if not TYPES[kind].by_converter]

    def _intermediate(self) -> str:
        """Precision of the merged weights: what the widest file asked for needs, so that each is rounded once."""
        return "float32" if {"f32", "bf16"} & set(self.types) else "float16"

    def _make(self, tools: Toolchain) -> None:
        """Write all files into the work folder."""
        # The converter reads meaning into the folder's name, so the run's is not in it.
        merged, tokenizer = self.work / "model", self._tokenizer()
        if self.source.adapter is None:
            link_checkpoint(self.source.model, merged, self.source.base, tokenizer)
        else:
            request = {
                "base": str(self.source.base),
                "adapter": str(self.source.adapter),
                "target": str(merged),
                "dtype": self._intermediate(),
                "tokenizer": str(tokenizer),
            }
            result = require(self._step("merging", "gguf.merge", request, "tensors"), "merging")
            self.report["merge"] = result.answer
            if result.answer["method"] != "streaming":
                self.context.notice("info", f"merged by PEFT, fully in memory: {result.answer['reason']}")
        said = metadata(self.report["name"], self.report["base_model"], merged)
        converted: list[str] = [kind for kind in self.types if TYPES[kind].by_converter]
        if self._quantised() and "f16" not in converted:
            converted.append("f16")
        for kind in converted:
            name = "converting" if len(converted) == 1 else f"converting {kind}"
            with self.context.phase(name, 100, "%") as phase:
                result = convert(merged, self._file(kind), kind, said, tools, self.context, phase)
            self._measured(name, result)
        shutil.rmtree(merged)
        for kind in self._quantised():
            name = f"quantizing {kind}"
            require_space(self.work, largest_bytes(kind, self._file("f16").stat().st_size), f"the {kind} file")
            with self.context.phase(name, None, "tensors") as phase:
                made = quantize(self._file("f16"), self._file(kind), kind, cpu_threads(), self.context, phase)
            self._measured(name, made.result)
            self.report.setdefault("notes", {})[kind] = made.notes
        if "f16" not in self.types:
            self._file("f16").unlink(missing_ok=True)

    def _tokenizer(self) -> Path:
        """Folder of the tokenizer's files that go into the GGUF."""
        run, base = self.source.model, self.source.base
        base = base if base is not None and tokenizer_files(base) else run
        if has_own_files(run, base) and not needs_work(run):
            return run
        folder = self.work / "tokenizer"
        request = {"run": str(run), "base": str(base), "folder": str(folder)}
        answer = require(
            self._step("reading the tokenizer", "gguf.tokens", request, ""), "reading the tokenizer"
        ).answer
        self.report["tokenizer"] = answer["from"]
        return folder

    def _refer(self) -> None:
        """Ask the trained model."""
        texts = texts_from(self.source.run, self.rows, self.context.settings)
        request = {
            "base": str(self.source.weights),
            "adapter": str(self.source.adapter) if self.source.adapter else None,
            "tokenizer": str(self.source.model),
            "texts_from": texts.model_dump(mode="json") if texts else None,
            "rows_from": str(self.rows) if self.rows else None,
            "limit": None,
            "folder": str(self.work),
        }
        result = self._step("running the trained model", "proof.reference", request, "tokens")
        self.reference = require(result, "running the trained model").answer
        self.report["reference"] = {key: self.reference[key] for key in ("dtype", "positions", "own_text", "notes")}
        for note in self.reference["notes"]:
            self.context.notice("warning", note)

    def _prove(self, kind: str) -> None:
        """Compare one file, answer rows with it, sign it, move it out and enter it in the report."""
        file, began = self._file(kind), time.monotonic()
        request = {"file": str(file), "folder": str(self.work), "threads": cpu_threads()}
        result = self._step(f"verifying {kind}", "proof.verify", request, "tokens")
        entry = self._entry(kind, result)
        if self.rows is not None and result.code == 0:
            answered = self._step(f"evaluating {kind}", "proof.rows", request, "rows")
            if answered.code == 0:
                entry["exact_match"] = answered.answer
                self._compare_scores(entry, answered.answer)
            else:
                entry["verdict"] = "differs"
                entry["notes"].append(_failure(answered))
        with self.context.phase("checksums", file.stat().st_size, "bytes") as phase:
            entry["sha256"] = sha256(file, phase.set)
        target = self.context.job.exports / f"{self.name}-{kind}.gguf"
        entry |= {"file": target.name, "bytes": file.stat().st_size}
        entry["seconds"] = {"proving": round(time.monotonic() - began, 2)} | {
            phase["phase"]: phase["seconds"] for phase in self.phases if phase["phase"].endswith(f" {kind}")
        }
        file.replace(target)
        self.report["files"].append(entry)
        self._write_report()
        self.context.result("export", entry)
        level = "warning" if entry["verdict"] == "differs" else "info"
        self.context.notice(
            level, f"{target.name}: {entry['verdict']}" + "".join(f"; {note}" for note in entry["notes"])
        )

    def _entry(self, kind: str, result: StepResult) -> dict[str, Any]:
        gate = gate_of(kind, self.reference["dtype"])
        entry: dict[str, Any] = {
            "type": kind,
            "gate": {"mean_kl": gate.max_mean_kl, "top1": gate.min_top1},
            "top1": None, "mean_kl": None, "p99_kl": None, "answers": None,
            "prompt_ids_equal": False, "prompts_compared": 0, "template_carried": False, "end_of_turn_stops": False,
            "verdict": "differs", "task": None, "exact_match": None, "differences": [],
            "notes": list(self.report.get("notes", {}).get(kind, [])),
        }  # fmt: skip
        if result.code != 0:
            entry["notes"].append(_failure(result))
            return entry
        found = result.answer
        numbers = found["overall"]
        equal = found["prompts_equal"] == found["prompts_compared"] and found["template_carried"]
        entry |= {key: numbers[key] for key in ("top1", "mean_kl", "p99_kl")}
        entry |= {
            "answers": found["answers"],
            "prompt_ids_equal": found["prompts_equal"] == found["prompts_compared"],
            "prompts_compared": found["prompts_compared"],
            "differences": found["differences"],
            "template_carried": found["template_carried"],
            "end_of_turn_stops": found["end_of_turn_stops"],
            "verdict": judge(kind, gate, numbers["mean_kl"], numbers["top1"], equal, found["end_of_turn_stops"]),
        }
        entry["notes"] += [difference(one) for one in found["differences"] if not one["rare"]]
        if not found["template_carried"]:
            entry["notes"].append("the chat template in the file differs from the run's")
        if not found["end_of_turn_stops"]:
            entry["notes"].append("the end-of-turn token does not end generation")
        if not numbers["mean_kl"] <= gate.max_mean_kl:
            entry["notes"].append(f"mean KL {numbers['mean_kl']:.3g} is above {gate.max_mean_kl:g}")
        if not numbers["top1"] >= gate.min_top1:
            entry["notes"].append(
                f"the same next token in {100 * numbers['top1']:.1f} %, below {100 * gate.min_top1:g} %"
            )
        return entry

    def _compare_scores(self, entry: dict[str, Any], found: dict[str, Any]) -> None:
        """Say whether the task survived, when the trained model was evaluated on the same rows."""
        trained = self.report["trained"]
        if trained is None or trained["total"] != found["total"]:
            return
        lost = found["exact_match"] < trained["exact_match"] - LOST_SHARE
        entry["task"] = "lost" if lost else "kept"
        if lost:
            entry["notes"].append(
                f"loses accuracy on the task: {found['correct']} of {found['total']} rows right, "
                f"the trained model {trained['correct']}"
            )

    def _step(self, phase_name: str, module: str, request: dict[str, Any], unit: str) -> StepResult:
        with self.context.phase(phase_name, None, unit) as phase:
            result = run_own_step(f"studio.export.{module}", request, self.work, self.context, phase.set)
        self._measured(phase_name, result)
        return result

    def _measured(self, phase: str, result: StepResult) -> None:
        self.phases.append(
            {"phase": phase, "seconds": round(result.seconds, 2), "peak_bytes": result.peak_bytes, "code": result.code}
        )

    def _file(self, kind: str) -> Path:
        return self.work / f"{kind}.gguf"

    def _write_report(self) -> None:
        job, files = self.context.job, self.report["files"]
        job.report.mkdir(exist_ok=True)
        peak = max((phase["peak_bytes"] for phase in self.phases), default=0)
        shown = {key: value for key, value in self.report.items() if key != "notes"}
        write_json(job.report / "export.json", shown | {"peak_memory_bytes": peak})
        if files:
            text = readme(
                self.report["name"], self.report["base_model"] or "its base model", files,
                self.reference.get("end", ""), self.reference.get("system", ""),
            )  # fmt: skip
            (job.exports / "README.md").write_text(text, encoding="utf-8")

    def _conclude(self) -> None:
        self.context.environment(peak_memory_bytes=max(phase["peak_bytes"] for phase in self.phases))
        differing = [file for file in self.report["files"] if file["verdict"] == "differs"]
        if differing:
            why = "; ".join(f"{file['file']} ({', '.join(file['notes'][-2:])})" for file in differing)
            fixes = {one["fix"] for file in differing for one in file["differences"] if not one["rare"]}
            raise StudioError(
                f"{len(differing)} of {len(self.report['files'])} files differ from the trained model: {why}",
                fix=". ".join(["Do not use them; the report and the job's log show the differences", *sorted(fixes)]),
            )


def _failure(result: StepResult) -> str:
    return result.error.sentence if result.error is not None else f"llama.cpp failed: {result.ending()}"
