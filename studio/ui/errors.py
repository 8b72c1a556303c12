"""From an exception to what the person reads: the one way by which handlers fail on the page.

A StudioError is shown as its sentence. Anything else is a bug of ours: its traceback goes to the server's log
and the page says only that, so no path or value leaks into a toast.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import gradio as gr

from studio.errors import StudioError

logger = logging.getLogger("studio.ui")
Handler = TypeVar("Handler", bound=Callable[..., Any])
UNEXPECTED = "An unexpected error. The terminal that runs the studio shows it; please report it as a bug."


def told(error: Exception, doing: str) -> str:
    """Return the sentence for what ended a work in the background; the traceback of a bug goes to the server's log.

    Args:
        error: what it ended with.
        doing: what was being done, for the log.
    """
    if isinstance(error, StudioError):
        return error.sentence
    logger.error(doing, exc_info=error)
    return UNEXPECTED


def as_toast(error: Exception) -> gr.Error:
    """Turn an exception into a toast; toasts of gradio pass through."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, StudioError):
        return gr.Error(error.sentence, title="This cannot be done", duration=None, print_exception=False)
    logger.error("unexpected error in a handler", exc_info=error)
    return gr.Error(UNEXPECTED, title="Error", duration=None, print_exception=False)


def guard(handler: Handler) -> Handler:
    """Wrap an event handler (a function or a generator function) so that it fails with a sentence."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise as_toast(error) from error

        return cast(Handler, stream)

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise as_toast(error) from error

    return cast(Handler, call)
