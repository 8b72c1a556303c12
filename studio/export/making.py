"""What every export does: a work folder, measured steps, the trained model's own answers, a report with a line a file.

Everything stays in the work folder until it has been compared; then it moves to exports/ and into report/export.json,
with whatever verdict it got. So a stop or a failure leaves no file without a line in the report. What differs from the
trained model is kept, and the job fails, saying so.
"""

from __future__ import annotations

import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.config.jobs import ExportConfig
from studio.errors import StudioError
from studio.export.card import card_front, shown_base
from studio.export.delivery.delivery import Delivery, files_in
from studio.export.delivery.earlier import same_export, take
from studio.export.files import sha256
from studio.export.origins.origin import Origin
from studio.export.proof.gates import Gate, Verdict, losses, shortcomings
from studio.export.readme import readme
from studio.export.reporting.beginning import beginning
from studio.export.reporting.beside import COMPARING, set_beside
from studio.export.reporting.page import PAGE, report_page
from studio.export.source import Source, texts_from
from studio.export.steps import StepResult, require, run_own_step
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_atomic, write_json
from studio.jobs.views.expected import comparing_seconds

# An export may answer this much fewer rows than the trained model before the task counts as lost.
LOST_SHARE = 0.03


class Making(ABC):
    """The state of one export: its folders, what was measured, and the report so far.

    Attributes:
        engine: program that runs what is made, for the sentence when it fails.
        noun: what is made, in the plural.
        delivery: where it is put once it is proven; None for the job's own folder alone.

    Args:
        context: of the job.
        config: what is to be made.
        source: the model that is exported.
        rows: file on which it answers; None for none.
    """

    engine, noun = "transformers", "files"

    def __init__(self, context: JobContext, config: ExportConfig, source: Source, rows: Path | None) -> None:
        self.context, self.config, self.source, self.rows = context, config, source, rows
        self.delivery: Delivery | None = None
        self.work = context.job.path / "work"
        self.name = re.sub(r"[^\w.-]+", "-", source.name, flags=re.ASCII).strip("-.") or "model"
        self.phases: list[dict[str, Any]] = []
        self.reference: dict[str, Any] = {}
        self.report = beginning(context.settings, config, source, rows) | {"phases": self.phases}

    @abstractmethod
    def expected(self) -> dict[str, float]:
        """Return the seconds that each phase should take, by its name."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that what is made may take."""

    @abstractmethod
    def prepare(self) -> None:
        """Refuse, before anything is written, what cannot be made or has no room."""

    @abstractmethod
    def make(self) -> None:
        """Write, compare and deliver everything."""

    def run(self) -> None:
        """Do all of it; the work folder is gone afterwards, whatever happens."""
        delivery = self.delivery
        earlier = same_export(self.context, self.config, self.source) if delivery is not None else None
        expected = {self._called(name): value for name, value in (self.expected() if earlier is None else {}).items()}
        if expected and self.rows is not None and self.report["trained"] is None:
            expected[COMPARING] = comparing_seconds(self.source.half_bytes)
        self.context.outline(expected | (delivery.expected(self.source.half_bytes) if delivery else {}))
        if delivery is not None:
            delivery.prepare(self.report, 0 if earlier else self.size)
        if earlier is not None and take(self.context, earlier, self.report):
            self.taken(earlier)
            self.write_report()
        else:
            self._make()
        self._conclude()
        if delivery is not None:
            self.report["delivered"] = delivery.deliver(files_in(self.result), self)
            self.write_report()

    def taken(self, earlier: JobFolder) -> None:
        """Finish what was taken from an earlier export: it lies in exports/, without its card."""
        self.context.notice("info", f"taken from {earlier.id}, which made the same and was proven")

    @property
    def result(self) -> Path:
        """Folder of everything that was made, as it is delivered."""
        return self.context.job.exports

    def _make(self) -> None:
        self.prepare()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        self.context.job.exports.mkdir(exist_ok=True)
        try:
            self.make()
            set_beside(self)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)
            self.write_report()

    def trained(self) -> dict[str, Any]:
        """The trained model in a step's request."""
        return {"base": str(self.source.weights), "adapter": str(self.source.adapter) if self.source.adapter else None}

    def merge(self, target: Path, tokenizer: Path, **form: Any) -> None:
        """Write the trained model as one checkpoint.

        Args:
            target: folder to make.
            tokenizer: folder of its tokenizer's files.
            form: as `shards.Form`.
        """
        request = self.trained() | {
            "target": str(target),
            "form": form,
            "tokenizer": str(tokenizer),
        }
        result = require(self.step("merging", "gguf.merge", request, "tensors"), "merging")
        self.report["merge"] = result.answer
        if result.answer["method"] != "streaming":
            self.context.notice("info", f"merged by PEFT, fully in memory: {result.answer['reason']}")

    def refer(self, answers: bool = False) -> None:
        """Ask the model that is exported.

        Args:
            answers: also for greedy answers, and how far the training moved the base model.
        """
        origin = self.source.origin
        texts = texts_from(origin.data(self.rows), self.rows, self.context.settings)
        if self.rows is None and (told := origin.without_rows):
            self.context.notice("info", told)
        request = self.trained() | {
            "tokenizer": str(self.source.tokenizer),
            "texts_from": texts.model_dump(mode="json") if texts else None,
            "rows_from": str(self.rows) if self.rows else None,
            "limit": None,
            "folder": str(self.work),
            "answers": answers,
        }
        name = f"running {origin.whole}"
        result = self.step(name, "proof.reference", request, "tokens")
        self.reference = require(result, name).answer
        self.report["reference"] = {key: self.reference[key] for key in ("dtype", "positions", "own_text", "notes")}
        for note in self.reference["notes"]:
            self.context.notice("warning", note)

    def entry(self, kind: str, gate: Gate, good: Verdict, result: StepResult) -> dict[str, Any]:
        """Make the report's line of something that was compared, without its name and size.

        Args:
            kind: what it is: a GGUF type, or another destination.
            gate: limits that it is held to.
            good: verdict if it keeps them.
            result: of the step that compared it.
        """
        entry: dict[str, Any] = {
            "type": kind,
            "gate": {"mean_kl": gate.max_mean_kl, "top1": gate.min_top1, "firm": gate.firm},
            "top1": None, "mean_kl": None, "p99_kl": None, "answers": None,
            "prompt_ids_equal": False, "prompts_compared": 0, "template_carried": False, "end_of_turn_stops": False,
            "verdict": "differs", "task": None, "exact_match": None, "differences": [], "notes": [],
            "prompts_equal": 0, "places": [], "rows": None,
        }  # fmt: skip
        if result.code != 0:
            entry["notes"].append(self.failure(result))
            return entry
        found = result.answer
        wrong, lost = shortcomings(found, gate), losses(found, gate)
        entry |= {key: found["overall"][key] for key in ("top1", "mean_kl", "p99_kl")}
        entry |= {
            "answers": found["answers"],
            "prompt_ids_equal": found["prompts_equal"] == found["prompts_compared"],
            "prompts_compared": found["prompts_compared"],
            "prompts_equal": found["prompts_equal"],
            "places": found.get("places", []),
            "differences": found["differences"],
            "template_carried": found["template_carried"],
            "end_of_turn_stops": found["end_of_turn_stops"],
            "verdict": "differs" if wrong else "lossy" if lost else good,
            "notes": [*wrong, *lost],
        }
        return entry

    def answer_rows(self, entry: dict[str, Any], module: str, request: dict[str, Any]) -> None:
        """Answer the rows with something that could be compared, and enter how many were right.

        Args:
            entry: its line of the report.
            module: step that answers.
            request: of that step.
        """
        answered = self.step(f"evaluating {entry['type']}", module, request, "rows")
        if answered.code != 0:
            entry["verdict"] = "differs"
            entry["notes"].append(self.failure(answered))
            return
        entry["exact_match"] = answered.answer
        self._compare_scores(entry, answered.answer)

    def deliver_files(self, entry: dict[str, Any], files: Mapping[str, Path], began: float) -> None:
        """Sign files of one model that was compared, move them to exports/, and enter them.

        Args:
            entry: its line of the report; it is named by the first file.
            files: in the work folder, by the names under which they are delivered.
            began: when its proof began, by the monotonic clock.
        """
        parts, before = [], 0
        total = sum(file.stat().st_size for file in files.values())
        with self.context.phase("checksums", total, "bytes") as phase:
            for name, file in files.items():
                digest = sha256(file, lambda done, before=before: phase.set(before + done))  # type: ignore[misc]
                parts.append({"file": name, "bytes": file.stat().st_size, "sha256": digest})
                before += file.stat().st_size
        entry |= {**parts[0], "bytes": total}
        entry |= {"shards": parts} if len(parts) > 1 else {}
        entry["seconds"] = {"proving": round(time.monotonic() - began, 2)}
        for name, file in files.items():
            file.replace(self.context.job.exports / name)
        self.deliver(entry)

    def deliver(self, entry: dict[str, Any]) -> None:
        """Enter something that lies in exports/ now, and say what came of it."""
        kind = entry["type"]
        entry["seconds"] |= {
            phase["phase"]: phase["seconds"] for phase in self.phases if phase["phase"].endswith(f" {kind}")
        }
        self.report["files"].append(entry)
        self.write_report()
        self.context.result("export", entry)
        level = "warning" if entry["verdict"] in ("differs", "lossy") else "info"
        self.context.notice(
            level, f"{entry['file']}: {entry['verdict']}" + "".join(f"; {note}" for note in entry["notes"])
        )

    def step(self, phase_name: str, module: str, request: dict[str, Any], unit: str) -> StepResult:
        """Run one of the export's own steps as a phase.

        Args:
            phase_name: a word or two for the page.
            module: below `studio.export`.
            request: of that step.
            unit: what it counts; empty for nothing.
        """
        with self.context.phase(phase_name, None, unit) as phase:
            result = run_own_step(f"studio.export.{module}", request, self.work, self.context, phase.set)
        self.measured(phase_name, result)
        return result

    def measured(self, phase: str, result: StepResult) -> None:
        """Note what a phase took."""
        self.phases.append(
            {"phase": phase, "seconds": round(result.seconds, 2), "peak_bytes": result.peak_bytes, "code": result.code}
        )

    def write_report(self) -> None:
        """Write report/export.json, and the README beside what was delivered."""
        job, files = self.context.job, self.report["files"]
        job.report.mkdir(exist_ok=True)
        peak = max((phase["peak_bytes"] for phase in self.phases), default=0)
        shown = {key: value for key, value in self.report.items() if key != "notes"}
        shown |= {"peak_memory_bytes": peak, "page": PAGE}
        write_json(job.report / "export.json", shown)
        if files:
            write_atomic(job.report / PAGE, report_page(shown, self.source.origin, job))
            (job.exports / "README.md").write_text(self.readme(), encoding="utf-8")

    def readme(self) -> str:
        """Text of the README beside what was delivered."""
        return card_front(self.source.origin, self.report, "finetune", "gguf") + readme(
            self.report["name"],
            shown_base(self.report),
            self.report["files"],
            self.report.get("modelfile"),
            self.report.get("imatrix"),
            self.source.origin.whole,
        )

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
                f"{self.source.origin.whole} {trained['correct']}"
            )

    def _conclude(self) -> None:
        self.context.environment(peak_memory_bytes=max((phase["peak_bytes"] for phase in self.phases), default=0))
        files = self.report["files"]
        differing = [file for file in files if file["verdict"] == "differs"]
        if differing:
            why = "; ".join(f"{file['file']} ({', '.join(file['notes'][-2:])})" for file in differing)
            fixes = {one["fix"] for file in differing for one in file["differences"] if not one["rare"]}
            raise StudioError(
                f"{len(differing)} of {len(files)} {self.noun} differ from {self.source.origin.whole}: {why}",
                fix=". ".join(
                    [
                        "Do not use them; the report and the job's log show the differences",
                        *([] if self.delivery is None else ["Nothing was put anywhere else"]),
                        *sorted(fixes),
                    ]
                ),
            )

    def _called(self, phase: str) -> str:
        """A foretold phase as it is called here."""
        return phase.replace(Origin.whole, self.source.origin.whole)

    def failure(self, result: StepResult) -> str:
        """Why a step failed, as a sentence."""
        return result.error.sentence if result.error is not None else f"{self.engine} failed: {result.ending()}"
