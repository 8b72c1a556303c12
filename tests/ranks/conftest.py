"""What the tests of runs on several processes share."""

from tests.parity.fixtures import quick_and_quiet, tiny

__all__ = ["quick_and_quiet", "tiny"]
