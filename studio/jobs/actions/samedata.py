"""Whether the data of a training are still those that its checkpoints were made with.

A checkpoint knows its place in the rows and how many updates they give: with other rows a run would go on at another
place without a word, or be over at once. The worker records the SHA-256 of every source; a branch takes it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.config import RunConfig
from studio.config.load import build
from studio.data.sources.locate import is_hub_source, locate, sources_of
from studio.errors import InputError
from studio.jobs.store.folder import JobFolder
from studio.settings import Settings

# Before a run is put in the line, a larger source is compared by its size alone: the worker reads all of it anyway.
QUICK_BYTES = 1_000_000_000


def recorded_sources(job: JobFolder) -> list[dict[str, Any]]:
    """Return what the worker recorded of the sources, in their order; none before it read them."""
    data = job.environment().get("data")
    found = data.get("sources") if isinstance(data, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def require_same(recorded: Sequence[dict[str, Any]], now: Sequence[tuple[str, str]]) -> None:
    """Refuse to go on with other data.

    Args:
        recorded: of `recorded_sources`.
        now: path and SHA-256 of each source as it is, in the same order.

    Raises:
        InputError: one of them has changed; it is named.
    """
    for before, (path, sha256) in zip(recorded, now, strict=False):
        if before.get("sha256") not in (None, sha256):
            raise _changed(path, f"its SHA-256 was {str(before['sha256'])[:12]} and is {sha256[:12]}")


def require_same_files(job: JobFolder, settings: Settings) -> None:
    """Refuse early to go on with a file that has changed, as far as a look costs little.

    Raises:
        InputError: a file has changed or is gone.
    """
    recorded = recorded_sources(job)
    if not recorded:
        return
    config = build(RunConfig, job.request.config, "job.yaml")
    for before, source in zip(recorded, sources_of(config.data), strict=False):
        if is_hub_source(source.path, settings):
            continue
        found = locate(source, settings)
        if before.get("bytes") not in (None, found.bytes):
            raise _changed(source.path, f"it had {before['bytes']:,} bytes and has {found.bytes:,}")
        if found.bytes <= QUICK_BYTES:
            require_same([before], [(source.path, found.sha256())])


def _changed(path: str, how: str) -> InputError:
    return InputError(
        f"the data has changed since the checkpoint was saved ({how})",
        where=path,
        fix="Restore the file, or start a new run; 'tuning.adapter' can continue from this run's adapter",
    )
