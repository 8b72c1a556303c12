"""What another tool says of itself: one package a tool, with its table of keys, its reader and its writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.config.run import RunConfig
from studio.interop.reading import Given
from studio.interop.report import Exported, Imported

if TYPE_CHECKING:
    from studio.interop.command import Command


@dataclass(frozen=True)
class Tool:
    """A tool whose configs come in, or go out.

    Attributes:
        name: its word on the command line.
        title: what it calls itself.
        keys: all keys of its configs; where several tools have a file's keys, the one that knows most of them reads it.
        starts: whether a command line is one of its own.
        read: its config as a run.
        write: a run as its config; None where there is no export.
        python: what a Python script of it imports; empty where no script is read.
        own: keys that only this tool has, which decide between tools that know a file's keys equally well.
    """

    name: str
    title: str
    keys: frozenset[str]
    starts: Callable[[Command], bool]
    read: Callable[[Given], Imported]
    write: Callable[[RunConfig], Exported] | None = None
    python: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()
