"""Which learning rate `auto` means: the method's own table, by tuning and size of the model (`studio.methods`)."""

from __future__ import annotations

from studio.methods import Method, Rate

# Above so many times the usual rate, or below that part of it, a person is told.
FAR = 5.0


def is_far(rate: float, usual: float) -> bool:
    """Whether a rate is more than `FAR` times as large or as small as the usual one."""
    return not usual / FAR * (1 - 1e-9) <= rate <= usual * FAR * (1 + 1e-9)


def rate_for(method: Method, adapter: bool, parameters: int) -> Rate:
    """Return the rule for a model of that many parameters, with an adapter or every weight trained.

    Raises:
        StopIteration: the method lacks a rule for it, which is a bug of ours.
    """
    return next(rate for rate in method.rates if rate.adapter == adapter and parameters < rate.below)
