"""A command line or a small shell script, taken apart without a shell: who is called, and with which options.

Only what starts a training is understood: variables, line continuations, launchers (`accelerate launch`, `torchrun`,
`deepspeed`, `python -m`), `--key value`, `--key=value` and flags. A variable that the text does not set is refused, so
that nothing of this machine's environment comes in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studio.errors import InputError

_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|(\w+)|(\())")
_SEPARATORS = ";&|<>"
_HASH = "\ue000"  # stands for one that is no comment, of Unicode's private use
# Scripts divide a batch by the number of processes: the only thing that is worked out.
_EXPRESSION = re.compile(r"\$\(\s*expr\s+([^()]*)\)|\$\(\(([^()]*)\)\)")
_OPERATION = re.compile(r"\$\(\((\$?\w+)([-+*/])(\$?\w+)\)\)")
_NOT_TRAINING = {
    "set",
    "cd",
    "echo",
    "mkdir",
    "source",
    ".",
    "conda",
    "pip",
    "true",
    "wait",
    "export",
    "unset",
    "sleep",
}
_BEFORE = {"sudo", "nohup", "time", "env", "exec", "command"}
_RUNNERS = {"uv": ("run",), "poetry": ("run",), "accelerate": ("launch",)}
_LAUNCHERS = {"torchrun", "deepspeed", "accelerate"}
_LAUNCH_MODULES = {"torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch"}
_PYTHON = re.compile(r"python[\d.]*")
_PER_NODE = ("nproc_per_node", "num_gpus")
_NODES = ("nnodes", "num_nodes")
_MOST_WORDS = 5000


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        program: name of the program without its folder (`llamafactory-cli`, `train.py`), or the module of `-m`.
        path: the same as it was written.
        words: what follows it before the first option: subcommands and files.
        options: values by key, with `_` for `-`: text, a list of texts, or True for a flag.
        variables: what was set before it or in front of it.
        processes: how many a launcher starts; None where none says so.
        launcher: options of the launcher, as `options`.
        lines: line of each option in the text, from 1.
    """

    program: str
    path: str
    words: tuple[str, ...]
    options: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)
    processes: int | None = None
    launcher: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def looks_like_command(text: str) -> bool:
    """Whether a text is a command line or shell script, and no YAML or JSON."""
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if text.startswith("#!") or re.match(r"(set -|export \w+=|\w+=\S*(\s|$))", first):
        return True
    word = first.split(maxsplit=1)[0] if first else ""
    return bool(word) and not word.startswith(("{", "[", "-", '"', "'")) and not re.match(r"[^\s:]+:(\s|$)", first)


def parse_command(text: str, where: str, wanted: Callable[[Command], bool] = lambda command: True) -> Command:
    """Return the one command of a text that is wanted.

    Args:
        text: a command line, or a script with comments and variables.
        where: name of the file or "the command", for errors.
        wanted: which of several commands is meant.

    Raises:
        InputError: a quote is open, a variable is not set, or there is not exactly one such command.
    """
    variables: dict[str, str] = {}
    found: list[Command] = []
    for words in _statements(text, where):
        words = [_substituted(word, variables, where) for word in words]
        if words and words[0] in ("export", "env"):
            words = words[1:]
        own: dict[str, str] = {}
        while words and (match := _ASSIGNED.fullmatch(words[0])):
            own[match[1]] = match[2]
            words = words[1:]
        if not words:
            variables |= own
            continue
        while words and words[0] in _BEFORE:
            words = words[1:]
        while words and (match := _ASSIGNED.fullmatch(words[0])):
            own[match[1]] = match[2]
            words = words[1:]
        if words and words[0] not in _NOT_TRAINING:
            found.append(_command(words, {**variables, **own}, text, where))
    chosen = [one for one in found if wanted(one)]
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        raise InputError("there is no command in it", where=where, fix="Give the line that starts the training")
    if chosen or len(found) > 1:
        raise InputError(
            f"it has {len(chosen or found)} commands: {', '.join(one.program for one in chosen or found)}",
            where=where, fix="Give one of them",
        )  # fmt: skip
    return found[0]


def _statements(text: str, where: str) -> list[list[str]]:
    statements: list[list[str]] = [[]]
    for number, line in _joined(text):
        line = _EXPRESSION.sub(lambda found: f"$(({''.join((found[1] or found[2]).split())}))", line)
        # Only a word can begin with the mark of a comment; within one, as in `rows.jsonl#500`, it is part of it.
        line = re.sub(r"(?<=[^\s;&|])#", _HASH, line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=_SEPARATORS)
        lexer.whitespace_split, lexer.commenters = True, "#"
        cut = False
        try:
            for word in lexer:
                if word and not word.strip(_SEPARATORS):
                    if set(word) & set("<>"):  # from here on it is where the output goes
                        cut = True
                        if statements[-1] and statements[-1][-1] in ("1", "2"):
                            statements[-1].pop()
                    else:
                        statements.append([])
                        cut = word == "|"
                elif not cut:
                    statements[-1].append(word.replace(_HASH, "#"))
        except ValueError as error:
            raise InputError(
                f"the command cannot be read: {str(error).lower()}", where=f"{where}, line {number}",
                fix="Close the quote",
            ) from error  # fmt: skip
        statements.append([])
        if sum(map(len, statements)) > _MOST_WORDS:
            raise InputError(f"it has more than {_MOST_WORDS:,} words", where=where, fix="Give one command line")
    return [words for words in statements if words]


def _joined(text: str) -> list[tuple[int, str]]:
    """Lines with those that end in a backslash joined to the next, and the number of the first of each."""
    joined: list[tuple[int, str]] = []
    held, start = "", 0
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        start = start or number
        plain = line.rstrip()
        if plain.endswith("\\") and not plain.endswith("\\\\"):
            held += plain[:-1] + " "
            continue
        held += line
        # A quote that is open goes on in the next line.
        try:
            shlex.split(held, comments=True)
        except ValueError:
            if number < text.count("\n") + 1 and ("'" in held or '"' in held):
                held += "\n"
                continue
        joined.append((start, held))
        held, start = "", 0
    if held:
        joined.append((start, held))
    return joined


def _substituted(word: str, variables: dict[str, str], where: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or ""
        name, _, default = name.partition(":-")
        if match[3] or not re.fullmatch(r"\w+", name):
            raise InputError(
                f"'{word:.60}' would run a command of its own", where=where, fix="Write its result in its place"
            )
        if name in variables:
            return variables[name]
        if default:
            return default
        raise InputError(f"the variable ${name} is not set in it", where=where, fix=f"Write its value for ${name}")

    word = _OPERATION.sub(lambda found: _result(found, variables), word)
    if "`" in word:
        raise InputError(f"'{word:.60}' would run a command of its own", where=where, fix="Write its result there")
    return _VARIABLE.sub(value, word)


def _result(found: re.Match[str], variables: dict[str, str]) -> str:
    """What two numbers make, or the text as it was, where one of them is none."""
    left, right = (variables.get(one.lstrip("$"), one) for one in (found[1], found[3]))
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in (left, right)):
        return found[0]
    a, b = int(left), int(right)
    if found[2] == "/":
        return str(a // b) if b else found[0]
    return str(a + b if found[2] == "+" else a - b if found[2] == "-" else a * b)


def _command(words: list[str], variables: dict[str, str], text: str, where: str) -> Command:
    launcher: dict[str, Any] = {}
    while True:
        first = words[0].rpartition("/")[2]
        if first in _LAUNCHERS and not (first == "accelerate" and words[1:2] != ["launch"]):
            words = words[len(_RUNNERS.get(first, ())) + 1 :]
            words, more = _launcher_options(words)
            launcher |= more
        elif first in _RUNNERS and words[1:2] == list(_RUNNERS[first]):
            words = words[2:]
        elif _PYTHON.fullmatch(first):
            words = [word for at, word in enumerate(words) if at and not (at == 1 and word in ("-u", "-B"))]
            if words[:1] == ["-m"]:
                words = words[1:]
                if words and words[0] in _LAUNCH_MODULES:
                    words, more = _launcher_options(words[1:])
                    launcher |= more
        elif first == "-m":
            words = words[1:]
        else:
            break
        if not words:
            raise InputError("the command names no program", where=where, fix="Give the whole line")
    path, rest = words[0], words[1:]
    at = next((index for index, word in enumerate(rest) if word.startswith("--")), len(rest))
    options = _options(rest[at:])
    lines = {key: line for key in options if (line := _line_of(key, text))}
    program = path.rpartition("/")[2]
    return Command(program, path, tuple(rest[:at]), options, variables, _processes(launcher), launcher, lines)


def _launcher_options(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Take the options of a launcher from the front; what ends in .py, or is -m, is what it starts."""
    options: dict[str, Any] = {}
    while words and words[0].startswith("-") and words[0] != "-m":
        key, equals, value = words[0].lstrip("-").replace("-", "_").partition("=")
        words = words[1:]
        if equals:
            options[key] = value
        elif words and not words[0].startswith("-") and not words[0].endswith(".py") and len(words) > 1:
            options[key] = words[0]
            words = words[1:]
        else:
            options[key] = True
    return words, options


def _options(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    key, values = "", list[str]()

    def keep() -> None:
        if key:
            options[key] = True if not values else values[0] if len(values) == 1 else list(values)

    for word in words:
        if word.startswith("--") and len(word) > 2:
            keep()
            name, equals, value = word[2:].partition("=")
            key, values = name.replace("-", "_"), [value] if equals else []
        elif key:
            values.append(word)
    keep()
    return options


def _line_of(key: str, text: str) -> int:
    found = re.search(rf"--{re.escape(key).replace('_', '[-_]')}\b", text)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _processes(launcher: dict[str, Any]) -> int | None:
    def number(names: tuple[str, ...]) -> int | None:
        texts = [str(launcher[name]) for name in names if name in launcher]
        return int(texts[0]) if texts and texts[0].isascii() and texts[0].isdigit() else None

    total, each = number(("num_processes",)), number(_PER_NODE)
    return total or (each * (number(_NODES) or 1) if each else None)
