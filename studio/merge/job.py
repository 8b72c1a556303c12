"""A merge from request to child: find, compare, merge adapters into their bases, merge, put the child in its place.

Everything is made in a work folder; the child becomes the job's model only once it is whole, so that a stop, a kill or
a full disk leaves none or a whole one.
"""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from studio.config.jobs import MergeConfig
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.errors import StoppedError
from studio.export.gguf.checkpoint import link_checkpoint
from studio.export.steps import StepResult, require, run_own_step
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import put_folder, write_json
from studio.jobs.store.finding import job_of_id
from studio.merge.checks import Facts, facts_of, require_fit
from studio.merge.child import complete, write_card
from studio.merge.curve import evaluation_of, in_words
from studio.merge.methods import ADAPTERS
from studio.merge.needs import compute_dtype, merge_seconds, require_room, written_dtype
from studio.merge.parents import Parent, find_parent
from studio.merge.recipe import read_recipe
from studio.merge.rules import given, require_sense
from studio.models.catalog.names import confine_folder
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from studio.reach import page

_PACKAGES = ("mergekit", "peft", "torch", "transformers", "finetune-studio")


def merge(context: JobContext) -> None:
    """Run the merge job of `context`.

    Raises:
        InputError: the recipe makes no sense, or its models cannot be merged.
        StudioError: a step failed, or there is no room.
        StoppedError: a stop was asked for.
    """
    Merging(context, build(MergeConfig, context.config, "job.yaml")).run()


class Merging:
    """The state of one merge.

    Args:
        context: of the job.
        config: what was asked for.
    """

    def __init__(self, context: JobContext, config: MergeConfig) -> None:
        self.context, self.config = context, config
        self.recipe = read_recipe(config.recipe)
        self.work = context.job.path / "work"
        self.shard = int(config.shard_gb * 1e9)
        self.parents: list[Parent] = []
        self.found: list[Facts] = []
        self.phases: list[dict[str, Any]] = []

    def run(self) -> None:
        """Do all of it; the work folder is gone afterwards, whatever happens."""
        require_sense(self.recipe)
        self._find()
        self._check()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        try:
            child = self.work / "child"
            answer = self._adapters(child) if self.recipe.method.of_adapters else self._models(child)
            write_card(child, self.context.job.request.name, self.recipe, self.config.recipe, self.parents)
            self._record(answer)
            with self.context.phase("saving"):
                put_folder(child, self.context.job.model)
            report = self._report(answer)
            if self.config.evaluate is not None:
                report = self._report(answer, self._score(self.config.evaluate))
            self.context.result("merge", {key: report[key] for key in ("method", "title", "parameters", "scores")})
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def _find(self) -> None:
        settings = self.context.settings
        with self.context.reporter() as report:
            for word in self.recipe.words:
                self._check_stop()
                report("finding the models")
                meant = self.config.parents.get(word, "")
                self.parents.append(find_parent(word, settings, meant=meant, fetch=True, on_progress=report))

    def _check(self) -> None:
        with self.context.phase("comparing the models", len(self.parents), "models") as phase:
            for parent in self.parents:
                if page() is not None:
                    confine_folder(parent.weights, self.context.settings)
                self.found.append(facts_of(parent))
                phase.advance()
            for text in require_fit(self.recipe, self.parents, self.found):
                self.context.notice("warning", text)
        require_room(self.recipe, self.parents, self.found, self.context.job.path, self.shard)
        self.context.outline(merge_seconds(self.recipe, self.parents, self.found, self.config.evaluate is not None))

    def _models(self, child: Path) -> dict[str, Any]:
        dtype = compute_dtype(self.recipe)
        if not self.recipe.merge_method:
            dtype = written_dtype(self.recipe, self.found[0])
            self._whole(self.parents[0], child, dtype)
            return {"recipe": "", "parameters": self.found[0].shape.parameters}
        names = {}
        for number, parent in enumerate(self.parents, 1):
            names[parent.word] = f"parents/{number}"
            (self.work / "parents").mkdir(exist_ok=True)
            self._whole(parent, self.work / names[parent.word], dtype)
        out = written_dtype(self.recipe, self.found[0])
        values = self.recipe.renamed(names) | {"dtype": dtype, "out_dtype": out}
        request = {
            "folder": str(self.work), "recipe": values, "target": child.name, "seed": self.config.seed,
            "shard_bytes": self.shard,
        }  # fmt: skip
        answer = self._step("merging", "studio.merge.work.running", request, "operations").answer
        tied = all(facts.shape.tied for facts in self.found)
        complete(child, self.work / names[self.parents[0].word], self.recipe, out, tied)
        return answer

    def _whole(self, parent: Parent, target: Path, dtype: str) -> None:
        """Show a model in a folder of ours: its weights linked, or its adapter merged into its base."""
        if parent.adapter is None and self.recipe.merge_method:
            link_checkpoint(parent.weights, target, None, parent.tokenizer)
            return
        request = {
            "base": str(parent.weights), "adapter": str(parent.adapter) if parent.adapter else None,
            "target": str(target), "tokenizer": str(parent.tokenizer),
            "form": {"dtype": dtype, "shard_bytes": self.shard, "uniform": True},
        }  # fmt: skip
        name = f"merging the adapter of {parent.name}"
        answer = self._step(name, "studio.export.gguf.merge", request, "tensors").answer
        if answer["method"] != "streaming":
            self.context.notice("info", f"{parent.name} was merged by PEFT, fully in memory: {answer['reason']}")

    def _adapters(self, child: Path) -> dict[str, Any]:
        sources, scopes = self.recipe.models or [], [self.recipe.parameters]
        density = given("density", *scopes)
        request = {
            "base": str(self.parents[0].weights), "adapters": [str(one.adapter) for one in self.parents],
            "weights": [float(given("weight", source.parameters, *scopes)) for source in sources],
            "kind": self.recipe.merge_method.removeprefix(ADAPTERS),
            "density": None if density is None else float(density), "seed": self.config.seed, "target": str(child),
            "folder": str(self.work),
        }  # fmt: skip
        self._step("merging", "studio.merge.work.adapters", request, "adapters")
        copy_tokenizer(self.parents[0].tokenizer, child)
        return {"recipe": "", "parameters": self.found[0].shape.parameters}

    def _step(self, phase_name: str, module: str, request: dict[str, Any], unit: str) -> StepResult:
        try:
            with self.context.phase(phase_name, None, unit) as phase:
                result = run_own_step(module, request, self.work, self.context, phase.set)
        except StoppedError as error:
            raise StoppedError("the merge was stopped") from error
        self.phases.append(
            {"phase": phase_name, "seconds": round(result.seconds, 2), "peak_bytes": result.peak_bytes}
        )  # fmt: skip
        return require(result, phase_name)

    def _record(self, answer: dict[str, Any]) -> None:
        """Write what chat, evaluation, export and training look for, as a training does."""
        own = next((one for one in self.parents if one.word == self.recipe.base_model), self.parents[0])
        self.context.environment(
            versions={name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
            platform=platform.platform(),
            seed=self.config.seed,
            base_model=own.base,
            parameters=answer["parameters"],
        )

    def _score(self, rows: str) -> dict[str, Any]:
        """Let the models and the child answer rows; the child is there already, whatever comes of it."""
        parents = self.parents if self.config.compare else []
        asked = [*(self._asked(number, one) for number, one in enumerate(parents, 1)), self._asked_child()]
        request = {
            "models": asked, "rows": str(resolve_path(rows, self.context.settings)), "data": rows,
            "like": self.config.like,
        }  # fmt: skip
        found = self._step("answering the rows", "studio.merge.work.scoring", request, "answers").answer
        for score in found["scores"]:
            self.context.log(f"{score['name']}: {in_words(found, score)}")
        return {"data": rows, **found, "models": self._models_of_sweep()}

    def _models_of_sweep(self) -> list[dict[str, Any]]:
        """What another merge of this sweep found of the models: kept here too, since that one may be deleted."""
        other = job_of_id(self.context.settings.jobs, self.config.asked_by or "")
        evaluation = evaluation_of(other) if other is not None else None
        return evaluation["scores"][:-1] if evaluation is not None else []

    def _asked(self, number: int, parent: Parent) -> dict[str, Any]:
        whole = self.work / f"parents/{number}"
        merged = parent.adapter is not None and whole.is_dir()
        return {
            "name": parent.name, "weights": str(whole if merged else parent.weights),
            "adapter": None if merged or parent.adapter is None else str(parent.adapter),
            "tokenizer": str(parent.tokenizer),
        }  # fmt: skip

    def _asked_child(self) -> dict[str, Any]:
        job, adapted = self.context.job, self.recipe.method.of_adapters
        return {
            "name": job.request.name, "weights": str(self.parents[0].weights if adapted else job.model),
            "adapter": str(job.model) if adapted else None, "tokenizer": str(job.model),
        }  # fmt: skip

    def _report(self, answer: dict[str, Any], evaluation: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write report/merge.json, and return it."""
        job = self.context.job
        peak = max((phase["peak_bytes"] for phase in self.phases), default=0)
        report = {
            "name": job.request.name, "method": self.recipe.merge_method, "title": self.recipe.method.title,
            "note": self.recipe.method.note, "recipe": self.config.recipe, "merged_recipe": answer["recipe"],
            "parents": [_described(one) for one in self.parents], "model": str(job.model),
            "parameters": answer["parameters"], "phases": self.phases, "peak_memory_bytes": peak,
            "evaluation": evaluation, "scores": evaluation["scores"] if evaluation else [],
            "varied": self.config.varied,
        }  # fmt: skip
        job.report.mkdir(exist_ok=True)
        write_json(job.report / "merge.json", report)
        self.context.environment(peak_memory_bytes=peak)
        return report

    def _check_stop(self) -> None:
        if self.context.should_stop():
            raise StoppedError("the merge was stopped")


def _described(parent: Parent) -> dict[str, Any]:
    return {
        "word": parent.word, "kind": parent.kind, "id": parent.id, "weights": str(parent.weights),
        "adapter": str(parent.adapter) if parent.adapter else None,
    }  # fmt: skip


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
