"""What of a model changes in a run, and which reward model lies beside it: read from the run's options and adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.errors import InputError
from studio.models.inspect.adapters import adapter_config
from studio.models.inspect.shape import EMBEDDINGS, HEADS, Linear, ModelShape, block_of, fitting
from studio.patterns import PatternError, Patterns
from studio.tunings import TuningConfig


@dataclass(frozen=True)
class Adapted:
    """An adapter.

    Attributes:
        layers: the layers that get one, each with its rank.
        rank: of layers that no pattern names.
        dora: the length of each row is learned too.
        whole: layers of which a copy is trained beside it; the head is one, and the embedding, whose `outputs` are the
            width of the model.
        dropout: probability with which its inputs are dropped in training.
    """

    layers: tuple[tuple[Linear, int], ...]
    rank: int
    dora: bool = False
    whole: tuple[Linear, ...] = ()
    dropout: float = 0.0

    @property
    def low_rank(self) -> int:
        """Parameters of the adapter proper: A is (rank, inputs), B (outputs, rank), with DoRA a length an output."""
        return sum(rank * (one.inputs + one.outputs) + (one.outputs if self.dora else 0) for one, rank in self.layers)

    @property
    def copied(self) -> int:
        """Parameters of the layers that are trained whole."""
        return sum(one.inputs * one.outputs for one in self.whole)

    @property
    def parameters(self) -> int:
        """All that is trained."""
        return self.low_rank + self.copied


def adapted(shape: ModelShape, tuning: TuningConfig) -> Adapted | None:
    """Return the adapter of a run: `tuning.adapter` where it goes on, else a new one; None for full tuning.

    Raises:
        InputError: `tuning.target_modules` names a layer that the model does not have.
    """
    if not tuning.kind.adapter:
        return None
    kept = adapter_config(Path(tuning.adapter)) if tuning.adapter and not tuning.merge_adapter else None
    if kept is not None:
        return _kept(shape, kept)
    pattern = dict(tuning.rank_pattern or {}) if not isinstance(tuning.rank_pattern, str) else {}
    layers = in_blocks(shape.targets(tuning.target_modules), tuning.layers_to_transform)
    whole = _whole(shape, tuning.modules_to_save) if tuning.reads("modules_to_save") else ()
    return Adapted(_ranked(layers, tuning.rank, pattern), tuning.rank, tuning.uses_dora, whole, tuning.dropout)


def _kept(shape: ModelShape, config: dict[str, Any]) -> Adapted:
    wanted, rank = config.get("target_modules"), int(config.get("r") or 8)
    if wanted == "all-linear" or not wanted:
        layers = shape.targets("all-linear")
    elif isinstance(wanted, str):  # a pattern for the whole name
        patterns = Patterns()
        with _told("target_modules"):
            layers = tuple(one for one in shape.linears if patterns.fits_whole(wanted, one.name))
    else:
        named = set(wanted)
        known = sorted({end for one in shape.linears for end in one.ends & named})
        layers = shape.targets(known) if known else ()
    layers = in_blocks(layers, config.get("layers_to_transform"))
    ranked = _ranked(layers, rank, config.get("rank_pattern") or {})
    whole, dropout = _whole(shape, config.get("modules_to_save")), float(config.get("lora_dropout") or 0)
    return Adapted(ranked, rank, bool(config.get("use_dora")), whole, dropout)


def _ranked(layers: Iterable[Linear], rank: int, pattern: dict[str, int]) -> tuple[tuple[Linear, int], ...]:
    """Each layer with its rank by PEFT's rule: the first pattern that fits the name or its end at a dot."""
    layers = list(layers)
    with _told("rank_pattern"):
        ranks = Patterns().first(pattern, [one.name for one in layers], rank)
    return tuple(zip(layers, ranks, strict=True))


@contextlib.contextmanager
def _told(option: str) -> Iterator[None]:
    """What is wrong with a pattern as an error of the option that holds it."""
    try:
        yield
    except PatternError as error:
        raise InputError(f"{option}: {error}", where="tuning", fix="Write it as layer names") from error


def in_blocks(layers: tuple[Linear, ...], blocks: object) -> tuple[Linear, ...]:
    """Those of the wanted blocks; all without any."""
    wanted = [blocks] if isinstance(blocks, int) else blocks
    if not isinstance(wanted, list):
        return layers
    named = {one for one in wanted if isinstance(one, int) and one >= 0}
    return tuple(one for one in layers if any(block_of(part) in named for part in one.name.split(".")))


def _whole(shape: ModelShape, names: object) -> tuple[Linear, ...]:
    found: list[Linear] = []
    for name in names if isinstance(names, list) else []:
        if name in HEADS:
            found.append(Linear(name, inputs=shape.hidden, outputs=shape.vocab))
        elif name in EMBEDDINGS:
            found.append(Linear(name, inputs=shape.vocab, outputs=shape.hidden))
        else:
            found += fitting(shape.linears, [str(name)])
    return tuple(found)


def is_embedding(layer: Linear) -> bool:
    """Whether a layer that is trained whole is the embedding."""
    return layer.name in EMBEDDINGS


def reward_parameters(shape: ModelShape, config: RunConfig) -> int:
    """Weights of the reward model that lies beside the one that is trained; 0 where there is none.

    ppo with an adapter lays a reward model that is an adapter over its own base, which costs next to nothing.
    """
    method = config.method
    if not method.kind.online or "model" not in method.rewards:
        return 0
    folder = Path(method.reward_model or "")
    if adapter_config(folder) is not None:
        return 0 if method.kind.cost.value and config.tuning.kind.adapter else shape.parameters
    try:
        return ModelShape.from_folder(folder).parameters
    except InputError:  # told by the checks; a model of the same size is the best guess
        return shape.parameters
