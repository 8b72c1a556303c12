"""Another order of the tests, by a seed: no test may need that another one ran before it.

Groups (`groups.py`) stay whole, and so do modules and classes; what makes a module's fixtures again for each
parametrised value is put together by pytest itself, after this.
"""

from __future__ import annotations

import random

import pytest

from tests.support.groups import group_of


def shuffle(items: list[pytest.Item], seed: int) -> None:
    """Put groups, the modules in them and the tests of each into an order by the seed."""
    chance = random.Random(seed)
    order: dict[str, float] = {}

    def at(name: str) -> float:
        return order.setdefault(name, chance.random())

    def place(item: pytest.Item) -> tuple[float, float, float]:
        return at(group_of(item.nodeid)), at(str(item.path)), at(item.nodeid)

    items.sort(key=place)
