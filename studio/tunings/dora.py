"""DoRA (Liu et al. 2024, arXiv:2402.09353): LoRA for the direction of each weight, and a trained length beside it."""

from __future__ import annotations

from studio.tunings.adapter import AdapterOptions, WholeBaseOptions
from studio.tunings.tuning import Tuning


class DoraOptions(WholeBaseOptions, AdapterOptions):
    """What DoRA reads."""


class _Dora(Tuning):
    def uses_dora(self, options: DoraOptions) -> bool:
        return True


DORA = _Dora(
    name="dora",
    title="DoRA",
    sentence="an adapter that also learns the magnitudes of the weights, slower",
    options=DoraOptions,
    shards=True,
)
