"""Renders Jinja templates that others wrote, in a process of its own: `python -m studio.data.sandbox.child`.

Nothing of the studio is imported and no secret is in its environment, so that it starts in a tenth of a second and
may be killed at any moment. Its memory and the length of a text are limited here, its time by the parent and, should
that be gone, by a timer of the kernel.

    to it      length (8 bytes), pickle of (kind, template, values for all, [pickle of one item's values])
    from it    for each item in turn: code, CPU microseconds, length, text
"""

from __future__ import annotations

import json
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

DATA_BYTES = 512 * 1024**2
MAX_CHARACTERS = 16 * 1024**2
# Where the parent is gone or cannot end this process.
_LAST_SECONDS = 10.0
_MAX_MESSAGE = 400
HEAD = struct.Struct(">BQQ")
LENGTH = struct.Struct(">Q")
READY, TEXT, REFUSED, NO_MEMORY = range(4)


class _Generation(Extension):
    """`{% generation %}`, which transformers has to mark answers: here its body and nothing more."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """`dict` of a chat template: what transformers lets it do."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` of a chat template: no name may begin with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **values)
        for name in attributes:
            _require_plain(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_plain(name)
        Namespace.__setitem__(self, name, value)


def _require_plain(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace keeps no attribute {name!r}")


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _chat_environment() -> ImmutableSandboxedEnvironment:
    """The environment of transformers' `chat_template_utils`; a test compares the two."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals |= {
        "raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form), "dict": _Dict(),
        "namespace": _Namespace,
    }  # fmt: skip
    return made


def line_environment() -> ImmutableSandboxedEnvironment:
    """The environment of a line over columns: a name that the row has not is an error."""
    return ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


_ENVIRONMENTS = {"chat": _chat_environment, "line": line_environment}


@lru_cache(64)
def _compiled(kind: str, template: str) -> jinja2.Template:
    return _ENVIRONMENTS[kind]().from_string(template)


def _text(kind: str, template: str, values: Mapping[str, Any]) -> str:
    parts, length = [], 0
    for part in _compiled(kind, template).generate(values):
        parts.append(part)
        length += len(part)
        if length > MAX_CHARACTERS:
            raise ValueError(too_long())
    return "".join(parts)


def too_long() -> str:
    """What is said of a text over the limit."""
    return f"it produces more than {MAX_CHARACTERS:,} characters"


def _answer(kind: str, template: str, values: Mapping[str, Any]) -> tuple[int, str]:
    try:
        return TEXT, _text(kind, template, values)
    except MemoryError:
        return NO_MEMORY, ""
    except Exception as error:  # a template is a program of somebody's: whatever it raises is its refusal
        return REFUSED, (str(error) or type(error).__name__)[:_MAX_MESSAGE]


def _say(answers: BinaryIO, code: int, text: str = "", microseconds: int = 0) -> None:
    data = text.encode("utf-8", "surrogatepass")
    answers.write(HEAD.pack(code, microseconds, len(data)) + data)
    answers.flush()


def _used() -> int:
    seconds = resource.getrusage(resource.RUSAGE_SELF)
    return round(1e6 * (seconds.ru_utime + seconds.ru_stime))


def main() -> int:
    """Render what comes in until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _say(answers, READY)
    while head := requests.read(LENGTH.size):
        kind, template, shared, items = pickle.loads(requests.read(LENGTH.unpack(head)[0]))
        for item in items:
            signal.setitimer(signal.ITIMER_PROF, _LAST_SECONDS)
            before = _used()
            code, text = _answer(kind, template, {**shared, **pickle.loads(item)})
            _say(answers, code, text, _used() - before)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
