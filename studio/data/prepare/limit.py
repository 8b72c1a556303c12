"""How long an example may be where `data.max_length` is auto: as long as the model reads.

Whether that fits into memory is the plan's question, which goes by the longest row there is.
"""

from __future__ import annotations

from pathlib import Path

from studio.config import RunConfig
from studio.config.data import LEAST_LENGTH, MOST_LENGTH, DataConfig
from studio.methods import MethodConfig
from studio.models.inspect.headers import read_config
from studio.models.inspect.shape import longest_context

JOINED = 1024  # tokens of an example that texts are joined into: its length is ours to choose, not theirs


def limited_by(folder: Path, config: RunConfig) -> DataConfig:
    """Return a run's data options with a number for `max_length`, as the model in a folder reads.

    Raises:
        InputError: the folder has no usable config.json.
    """
    return limited(config.data, config.method, longest_context(read_config(folder), config.model))


def limited(data: DataConfig, method: MethodConfig, context: int | None) -> DataConfig:
    """Return the data's options with a number for `max_length`.

    Args:
        data: the options; a number that was given stays.
        method: what it generates has to fit beside a prompt.
        context: tokens that the model reads; None where nobody knows.
    """
    if data.max_length != "auto":
        return data
    room = MOST_LENGTH if context is None else context
    room -= method.max_completion_length if method.kind.online else 0
    if method.kind.joins(method):
        room = min(room, JOINED)
    return data.model_copy(update={"max_length": min(max(room, LEAST_LENGTH), MOST_LENGTH)})
