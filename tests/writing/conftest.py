"""What the tests of writing share: the tiny model, one thread, quiet libraries."""

from tests.parity.fixtures import quick_and_quiet, tiny

__all__ = ["quick_and_quiet", "tiny"]
