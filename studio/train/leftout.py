"""Rows of a stream that turn out to be unusable in training: the first are named as they are met, all are counted."""

from __future__ import annotations

from studio.data.prepare.prepared import Prepared
from studio.data.sources.parsing import SHOWN_ERRORS
from studio.data.streaming.rows import StreamedRows
from studio.jobs.run.worker import JobContext
from studio.train.ranks import sharing


class LeftOut:
    """Tells of the rows of a run that are not used as they are; of a run that is not streamed there is nothing to tell.

    Args:
        context: of the job; only its first rank tells.
        prepared: the run's data.
    """

    def __init__(self, context: JobContext, prepared: Prepared) -> None:
        self._context = context
        self._pool = prepared.train.pool if isinstance(prepared.train, StreamedRows) else None
        if self._pool is not None and sharing.number() == 0:
            self._pool.tell = self._tell

    def _tell(self, sentence: str) -> None:
        if self._pool is not None and self._pool.problems <= SHOWN_ERRORS:
            self._context.notice("warning", f"a row is left out, and the next one takes its place: {sentence}")
        else:
            self._context.log(f"left out: {sentence}")

    def told(self) -> None:
        """Say how many there were, once the training is over."""
        pool = self._pool
        if pool is None or sharing.number() != 0:
            return
        counts = (
            (pool.problems, "could not be used, and the next ones took their place"),
            (pool.left_out, "over data.max_length, and the next ones took their place"),
            (pool.cut, "over data.max_length, truncated"),
        )
        for count, what in counts:
            if count:
                self._context.notice("warning", f"{count:,} row{'' if count == 1 else 's'} {what}")
        pool.close()
