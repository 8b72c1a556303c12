"""From a recipe's text to a job: everything that can be known is checked before it is queued, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config.jobs import MergeConfig
from studio.config.load import build
from studio.config.model import EMBEDDED_MODEL
from studio.data.files.datafiles import resolve_path
from studio.data.sources.reading import source_named
from studio.errors import InputError
from studio.evaluate.questions import examples_of
from studio.merge.checks import Facts, facts_of, require_fit
from studio.merge.needs import child_bytes, merge_seconds, require_room
from studio.merge.parents import Parent, find_parent
from studio.merge.recipe import WHERE, Recipe, read_recipe
from studio.merge.rules import require_sense
from studio.methods import METHODS
from studio.models.catalog.hubaccess import is_hub_id
from studio.settings import Settings


@dataclass(frozen=True)
class Asked:
    """A merge that can be queued.

    Attributes:
        config: of the job.
        recipe: what is merged.
        parents: those of its models that are on this machine.
        warnings: what should be known before it starts.
        seconds: that it should take; None while a model is not here yet.
        bytes: that the child takes on the disk; None while a model is not here yet.
    """

    config: MergeConfig
    recipe: Recipe
    parents: Sequence[Parent]
    warnings: list[str]
    seconds: float | None
    bytes: int | None = None


def prepare(text: str, settings: Settings, where: str = WHERE, *, light: bool = False, **options: Any) -> Asked:
    """Check a merge as far as its models are here; the job checks the others once it has fetched them.

    Args:
        text: of the recipe.
        settings: whose runs and models; home for the child.
        where: file of the recipe, for errors.
        light: as in `facts_of`.
        options: of the merge.

    Raises:
        InputError: the recipe makes no sense, a model is not there, or they do not fit together.
        StudioError: memory or disk is too small.
    """
    recipe = read_recipe(text, where)
    require_sense(recipe, where)
    parents = [_parent(word, settings) for word in recipe.words]
    here = [one for one in parents if one is not None]
    meant = {one.word: _meaning(one, settings) for one in here}
    like = next((one.run.training for one in here if one.run is not None and one.run.training), {})
    config = build(MergeConfig, {"recipe": text, "parents": meant, "like": like, **options})
    if config.evaluate is not None:
        _require_rows(config.evaluate, like, settings)
    if len(here) < len(parents):
        absent = [word for word, one in zip(recipe.words, parents, strict=True) if one is None]
        said = [f"{', '.join(absent)}: not on this machine yet; the merge downloads it and compares it then"]
        return Asked(config, recipe, here, said, None)
    found: list[Facts] = [facts_of(one, light) for one in here]
    warnings = require_fit(recipe, here, found, where)
    require_room(recipe, here, found, disk_of(settings), int(config.shard_gb * 1e9))
    seconds = merge_seconds(recipe, here, found, config.evaluate is not None)
    return Asked(config, recipe, here, warnings, sum(seconds.values()), child_bytes(recipe, here, found))


def disk_of(settings: Settings) -> Path:
    """Return the folder that exists on the disk which children are written to."""
    return next(path for path in (settings.home, *settings.home.parents) if path.exists())


def _require_rows(rows: str, like: dict[str, Any], settings: Settings) -> None:
    """Refuse rows that no measure reads, by the first of them: before a merge is made for them."""
    method = METHODS.get(str((like.get("method") or {}).get("name")))
    source = source_named(like.get("data") or {}, rows)
    examples_of(resolve_path(rows, settings), None, 1, source, method.rows if method else "answers")


def _parent(word: str, settings: Settings) -> Parent | None:
    """The model of a word; None for one that is yet to be downloaded or prepared."""
    try:
        return find_parent(word, settings)
    except InputError:
        name = word.strip().partition("@")[0]
        if not (name == EMBEDDED_MODEL or (is_hub_id(name) and not Path(name).exists())):
            raise
        return None


def _meaning(parent: Parent, settings: Settings) -> str:
    """What a word stands for from now on, whatever gets its name later."""
    if parent.run is None or parent.run.path.parent.resolve() == settings.jobs.resolve():
        return parent.word.strip() if parent.kind in ("hub", "embedded") else parent.id
    return str(parent.run.path) if parent.kind == "run" else parent.word.strip()
