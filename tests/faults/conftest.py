"""What the tests of faults take from elsewhere: a real web process, a browser, the tiny model."""

from tests.browser.conftest import console, context, fake_run, leftovers, page, serve, server, shared_port
from tests.export.conftest import adapter, make_run
from tests.parity.fixtures import tiny
from tests.train.test_killed import whole

__all__ = [
    "adapter", "console", "context", "fake_run", "leftovers", "make_run", "page", "serve", "server", "shared_port",
    "tiny", "whole",
]  # fmt: skip
