"""What was asked of a job, as job.yaml holds it."""

from __future__ import annotations

import copy
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from studio.config import RunConfig
from studio.config.renamed import with_current_names
from studio.errors import InputError
from studio.jobs.store.files import write_atomic

Kind = Literal["train", "evaluate", "export", "merge", "openai"]
KINDS: tuple[Kind, ...] = ("train", "evaluate", "export", "merge", "openai")
# What leaves a model, which is chatted with, evaluated, exported, merged and trained on; for people: runs.
MODEL_KINDS: tuple[Kind, ...] = ("train", "merge")
# What runs elsewhere: it takes no device here, and a process of it that was killed is started again.
ELSEWHERE_KINDS: tuple[Kind, ...] = ("openai",)
# What leaves a model that answers, here or elsewhere.
ANSWERING_KINDS: tuple[Kind, ...] = (*MODEL_KINDS, *ELSEWHERE_KINDS)
SECTIONS = tuple(RunConfig.model_fields)


@dataclass(frozen=True)
class Branch:
    """Where a run begins that does not begin at its start: at a checkpoint of another run.

    Attributes:
        run: id of the run whose checkpoint it was; only told, never looked up.
        step: updates made until then.
    """

    run: str
    step: int


@dataclass(frozen=True)
class JobRequest:
    """Content of job.yaml: what was asked. Never changes once the job has begun.

    Attributes:
        kind: what kind of work.
        name: the person's name for it.
        config: full config of that kind.
        branch: the checkpoint that it begins with; None for a run that begins at its start.
        group: what the runs of one sweep have in common, "" for a job of its own.
        roots: the folders that the page could read which asked for it, so that its job reads no others; None for a job
            of the command line, which reads what its user may.
        place: how it runs on another machine, whose process here only follows it; None for a job of this machine.
    """

    kind: Kind
    name: str
    config: dict[str, Any]
    branch: Branch | None = None
    group: str = ""
    roots: tuple[str, ...] | None = None
    place: dict[str, Any] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether it takes no device here, and a process of it that was killed is started again."""
        return self.kind in ELSEWHERE_KINDS or self.place is not None

    @property
    def machine(self) -> str:
        """The other machine that works on it, as lists name it; "" for this one."""
        return str((self.place or {}).get("machine") or "")


def parse_request(raw: Any) -> JobRequest:
    """Make the request of a job.yaml.

    Args:
        raw: its content.

    Raises:
        KeyError, TypeError, ValueError: it is none of ours.
    """
    kind, name = parse_heading(raw)
    config, branch = raw["config"], raw.get("branch")
    sections = [config, *(config[one] for one in SECTIONS if kind == "train" and one in config)]
    if not all(isinstance(one, dict) for one in sections):
        raise TypeError("a section is not a mapping")
    made = Branch(**branch) if branch else None
    if made is not None and not (isinstance(made.run, str) and isinstance(made.step, int)):
        raise TypeError("the branch is invalid")
    roots = raw.get("roots")
    if roots is not None and not (isinstance(roots, list) and all(isinstance(one, str) for one in roots)):
        raise TypeError("the roots are not folders")
    kept = None if roots is None else tuple(roots)
    place = raw.get("place")
    if place is not None and not (isinstance(place, dict) and kind == "train"):
        raise TypeError("the place is invalid")
    return JobRequest(
        kind, name, _as_it_was(config) if kind == "train" else config, made, str(raw.get("group") or ""), kept, place
    )


def _as_it_was(config: dict[str, Any]) -> dict[str, Any]:
    """The config of an older run: options under the names of today, and texts where sources did not say how to read."""
    config, _ = with_current_names(config)
    data = config.get("data", {})
    train = data.get("train")
    if not isinstance(train, list):
        return config
    sources = [{"reading": "raw", **one} if isinstance(one, dict) else one for one in train]
    return {**config, "data": {**data, "train": sources}}


def parse_heading(raw: Any) -> tuple[Kind, str]:
    """Return kind and name of a job.yaml; raises as `parse_request`."""
    kind, name = raw["kind"], raw["name"]
    if kind not in KINDS or not isinstance(name, str):
        raise ValueError("the job has no kind or no name")
    return kind, name


def changed_config(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config with some options changed.

    Args:
        config: sections and options, as job.yaml has them.
        changes: new values by dotted name, such as `training.epochs`.

    Raises:
        InputError: a name goes on below an option.
    """
    changed = copy.deepcopy(config)
    for path, value in changes.items():
        target = changed
        *sections, name = path.split(".")
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"there is no option '{path}'", where=path, fix="docs/config.md lists them")
        target[name] = value
    return changed


def write_request(folder: Path, request: JobRequest) -> None:
    """Write a job's job.yaml whole. Of a job that is there already only `jobs.actions.queue.rewrite` may do this."""
    yaml = YAML()
    yaml.default_flow_style = False
    values: dict[str, Any] = {"kind": request.kind, "name": request.name}
    if request.branch is not None:
        values["branch"] = asdict(request.branch)
    if request.group:
        values["group"] = request.group
    if request.roots is not None:
        values["roots"] = list(request.roots)
    if request.place is not None:
        values["place"] = request.place
    stream = io.StringIO()
    yaml.dump({**values, "config": request.config}, stream)
    write_atomic(folder / "job.yaml", stream.getvalue())
