"""YAML and JSON of strangers, parsed under limits: bytes, nodes once aliases and merges are expanded, depth, digits.

One loader for page and command line. What is over a limit is a `TooMuchError`, a ValueError like any other fault of a
file, so that whoever reads a file that may be broken needs no second rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from studio.errors import InputError
from studio.reach import opened

# Longest part of a path and longest path that Linux takes, in bytes.
NAME_BYTES, PATH_BYTES = 255, 4095
_BLOCK = 1024 * 1024
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class TooMuchError(ValueError):
    """A file is over a limit; the text says over which."""


@dataclass(frozen=True)
class Limits:
    """What a file may hold.

    Attributes:
        bytes: its length.
        nodes: values and keys in it, those of an alias counted wherever it stands.
        depth: lists and mappings in each other; 0 for what Python's parser takes, a thousand.
        digits: characters of a number.
        key: characters of a key in YAML.
    """

    bytes: int
    nodes: int
    depth: int = 40
    digits: int = 400
    key: int = 1000


#: A run, a job, a list of values: some kilobytes, written by a person or by us.
RUN = Limits(bytes=256 * 1024, nodes=20_000, digits=100)
#: config.json, adapter_config.json, dataset_info.json, the index of weight files.
CONFIG = Limits(bytes=32 * 1024**2, nodes=600_000)
#: What a job writes of itself: the report of an evaluation has every answer.
JOB = Limits(bytes=64 * 1024**2, nodes=3_000_000)
#: tokenizer.json: that of Gemma 3 has 33 MB and 2.6 million values.
TOKENIZER = Limits(bytes=96 * 1024**2, nodes=6_000_000, depth=0)


def parse_yaml(text: str, limits: Limits = RUN) -> Any:
    """Return what a YAML text holds.

    Raises:
        TooMuchError: it is over a limit, or holds itself.
        ValueError: a value cannot be read, such as a date that is none.
        ruamel.yaml.error.YAMLError: it is no YAML.
    """
    _require_bytes(len(text.encode(errors="replace")), limits)
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _composer(limits)
    try:
        node = yaml.compose(text)
        if node is None:
            return None
        _require_expansion(node, limits)
        return yaml.constructor.construct_document(node)
    except RecursionError as error:
        raise _too_deep(limits) from error
    except (LookupError, TypeError, AttributeError, OverflowError) as error:  # !!int "", !!bool x
        raise ValueError(
            f"a value does not have the form that its tag says ({type(error).__name__}: {error})"
        ) from error


def read_yaml(text: str, where: str, what: str, give: str) -> Any:
    """Return what a YAML text of a person holds, as `parse_yaml`, with what is wrong as a sentence.

    Args:
        text: all of it.
        where: its file, for errors.
        what: it should be, such as "a recipe".
        give: what to do where it is over a limit, and so something else.

    Raises:
        InputError: it is no YAML (with line and column), a value cannot be read, or it is over a limit.
    """
    try:
        return parse_yaml(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise InputError(
            f"not valid YAML: {error.problem}", where=place, fix="Check the line and its indentation"
        ) from error
    except YAMLError as error:
        raise InputError(f"not valid YAML: {str(error).splitlines()[0]}", where=where, fix="Check the file") from error
    except TooMuchError as error:
        raise InputError(f"this is not {what}: {error}", where=where, fix=give) from error
    except ValueError as error:  # a date that is none, or a number of thousands of digits
        raise InputError(f"a value cannot be read: {error}", where=where, fix="Put it in quotes") from error


def parse_json(
    data: bytes | str, limits: Limits = CONFIG, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Return what a JSON text holds.

    Args:
        data: the text, in UTF-8.
        limits: what it may hold.
        object_hook: of `json.loads`, made of each object while it is read; the depth is then not looked at.

    Raises:
        TooMuchError: it is over a limit.
        ValueError: it is no JSON, or not UTF-8.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    _require_bytes(len(raw), limits)
    # Each value but the first stands behind one of these, so that a bomb is known before it has grown.
    if _separators(raw) > limits.nodes and _outside_strings(raw, limits.nodes) > limits.nodes:
        raise _too_many(limits)
    try:
        value = json.loads(data, object_hook=object_hook)
    except RecursionError as error:
        raise _too_deep(limits) from error
    if object_hook is None and limits.depth:
        _require_depth(value, limits)
    return value


def _separators(raw: bytes) -> int:
    return sum(map(raw.count, (b",", b"[", b"{", b":")))


def _outside_strings(raw: bytes, most: int) -> int:
    """Count separators that stand in no string: answers of a model may be JSON, too. Counting ends above `most`."""
    if not json.detect_encoding(raw).startswith("utf-8"):
        return _separators(raw)
    # Without escaped backslashes, and then without escaped quotes, each quote begins or ends a string.
    bare, count, inside = raw.replace(b"\\\\", b"").replace(b'\\"', b""), 0, 0
    for begin in range(0, len(bare), _BLOCK):  # in blocks, since a bomb may be all quotes
        parts = bare[begin : begin + _BLOCK].split(b'"')
        count += sum(map(_separators, parts[inside::2]))
        if count > most:
            break
        inside = (inside + len(parts) - 1) % 2
    return count


def read_json_file(path: Path, limits: Limits = CONFIG) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError, InputError: it cannot be read (`reach.opened`).
        ValueError: as `parse_json`.
    """
    with opened(path) as file:
        return parse_json(file.read(limits.bytes + 1), limits)


def as_path(text: str | Path) -> Path:
    """Return the path that a text means, with ~ as the home of its user."""
    path = Path(text.strip() if isinstance(text, str) else text)
    try:
        return path.expanduser()
    except RuntimeError:  # nobody of that name has a home: an ordinary name then
        return path


def unusable_path(text: str) -> str:
    """Return why no file can have this path; "" where one can."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return "it holds half a character"
    if b"\0" in raw:
        return "it holds a character of number 0"
    if len(raw) > PATH_BYTES:
        return f"it has {len(raw):,} bytes; the limit is {PATH_BYTES:,}"
    longest = max(map(len, raw.split(b"/")))
    return f"a name in it has {longest:,} bytes; the limit is {NAME_BYTES}" if longest > NAME_BYTES else ""


def _composer(limits: Limits) -> type[Composer]:
    class Limited(Composer):
        """Counts nodes and depth while they are read: the scanner takes quadratic time in the depth."""

        nodes = depth = 0

        def __init__(self, loader: Any = None) -> None:
            super().__init__(loader)
            self.warn_double_anchors = False  # each would print a piece of the file on the terminal of the server

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes, self.depth = self.nodes + 1, self.depth + 1
            if self.nodes > limits.nodes:
                raise _too_many(limits)
            if self.depth > limits.depth:
                raise _too_deep(limits)
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

    return Limited


def _require_expansion(root: Node, limits: Limits) -> None:
    """Count the nodes behind each node once, however often it is named."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if id(node) in sizes:
            continue
        parts = _parts(node, limits)
        if done:
            open_.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > limits.nodes:
                raise _too_many(limits)
            continue
        if id(node) in open_:
            raise TooMuchError("a value holds itself")
        open_.add(id(node))
        stack.append((node, True))
        stack += [(part, False) for part in parts if id(part) not in sizes]


def _parts(node: Node, limits: Limits) -> list[Node]:
    if isinstance(node, SequenceNode):
        return list(node.value)
    if isinstance(node, MappingNode):
        for key, _ in node.value:
            if isinstance(key, ScalarNode) and len(key.value) > limits.key:
                raise TooMuchError(f"a key has {len(key.value):,} characters; the limit is {limits.key:,}")
        return [part for pair in node.value for part in pair]
    if str(node.tag) in _NUMBERS and len(node.value) > limits.digits:
        raise TooMuchError(f"a number has {len(node.value):,} characters; the limit is {limits.digits}")
    return []


def _require_depth(value: Any, limits: Limits) -> None:
    level = [value]
    for _ in range(limits.depth):
        level = [
            part
            for one in level if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]  # fmt: skip
        if not level:
            return
    raise _too_deep(limits)


def _require_bytes(count: int, limits: Limits) -> None:
    if count > limits.bytes:
        raise TooMuchError(f"it has more than {limits.bytes / 1024:,.0f} KB")


def _too_many(limits: Limits) -> TooMuchError:
    return TooMuchError(f"it has more than {limits.nodes:,} values, those of aliases and merged keys counted")


def _too_deep(limits: Limits) -> TooMuchError:
    return TooMuchError(f"lists and mappings are nested more than {limits.depth} levels deep")
