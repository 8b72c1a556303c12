"""What the tests of faults take from elsewhere: a real web process, a browser, the tiny model."""

from tests.browser.conftest import console, fake_run, leftovers, page, serve, server
from tests.export.conftest import adapter, make_run
from tests.parity.fixtures import tiny
from tests.train.test_killed import whole

__all__ = [
    "adapter", "console", "fake_run", "leftovers", "make_run", "page", "serve", "server", "tiny", "whole",
]  # fmt: skip
