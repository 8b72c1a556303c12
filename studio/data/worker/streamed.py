"""What the operations on a run's rows and on a file answer where the rows are streamed: figures of some of them.

The answers have the keys of `operations`, so whoever asked need not know, and a finding says what was looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from studio.config.data import DataConfig, DataSource
from studio.data.sources.locate import Located, sources_of
from studio.data.streaming.preparing import OnPhase
from studio.data.streaming.sample import look, look_at_one
from studio.data.wire import Values
from studio.methods import MethodConfig
from studio.settings import Settings


def streamed_lengths(
    config: DataConfig, method: MethodConfig, tokenizer: Any, settings: Settings, here: Sequence[Located],
    tell: OnPhase, seed: int,
) -> Values:  # fmt: skip
    """Answer `lengths`.

    Args:
        config: section `data`, with a number for `max_length`.
        method: section `method`.
        tokenizer: the model's.
        settings: of the home that keeps the indexes.
        here: where the run's sources are.
        tell: told how far it is.
        seed: the run's.
    """
    sources = list(zip(sources_of(config), here, strict=True))
    estimate, report = look(config, method, tokenizer, settings, sources, tell, seed)
    each = list(estimate.each)
    return {
        "train": each, "validation": [], "tokens": each, "repeats": [], "common": 0, "supervised": [],
        "validation_supervised": [], "good": None, "answered": None, "report": report.as_dict(),
        "estimate": asdict(estimate),
    }  # fmt: skip


def streamed_source(
    source: DataSource, located: Located, config: DataConfig, method: MethodConfig, tokenizer: Any, settings: Settings,
    tell: OnPhase,
) -> Values:  # fmt: skip
    """Answer `inspect` with a model.

    Args:
        source: as the run names it.
        located: where it is.
        config: section `data` of the run.
        method: section `method`.
        tokenizer: the model's.
        settings: of the home that keeps the indexes.
        tell: told how far it is.
    """
    estimate, whole = look_at_one(source, located, config, method, tokenizer, settings, tell)
    (report,) = whole.sources
    return {
        "path": source.path, "file": report.file, "format": report.format, "reason": report.reason,
        "rows": report.rows, "bytes": report.bytes, "sha256": report.sha256, "commit": report.commit,
        "lengths": asdict(whole.lengths), "tokens": estimate.tokens, "supervised_tokens": estimate.supervised,
        "stop_text": whole.stop_text, "findings": [asdict(one) for one in whole.findings],
    }  # fmt: skip
