"""Regular expressions of strangers: matched in linear time by RE2, not by Python's engine, which can take for ever.

A pattern must mean the same to RE2 and to Python's `re`, since PEFT uses the second: what RE2 cannot express (a look
ahead, a reference back) is refused, and what the two read differently is written anew for RE2. PEFT still matches the
names of a model's layers by `re` when it loads or makes an adapter: `require_quick` tries that first, in a process that
can be ended.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import re2

from studio.errors import InputError
from studio.processes import child_environment, module_command

Number = TypeVar("Number")
# Longer than any pattern of PEFT's users, and short enough for Python's compiler to be quick.
LONGEST = 1000
# A pattern for each layer of the largest models (EVA writes that) is some hundreds.
MOST = 2000
# What the patterns of one adapter may take together: each is linear, but names × patterns is not.
SECONDS = 2.0
QUICK_SECONDS = 3.0
_MEMORY = 1 << 18  # bytes of one compiled pattern: some thousand states, where usual ones have fifty
_PLAIN = re.compile(r"[\w.\-]*", re.ASCII)
# What PEFT 0.21 makes of a pattern (peft.utils.other.get_pattern_key, peft.tuners.tuners_utils).
_FORMS = {
    "rank_pattern": r"(.*\.)?({})$", "alpha_pattern": r"(.*\.)?({})$", "modules_to_save": r"(^|.*\.){}($|\..*)",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
}  # fmt: skip
_AT_MOST = re.compile(r"\{,(\d+)\}")
_LONGEST_SPLIT = 5000
_ENDLESS = re.compile(r"[*+]|\{\d*,\}|\{\d*,?\d{3,}\}")
_ANYTHING = re.compile(r"\[(?:\\s\\S|\\S\\s|\\w\\W|\\W\\w|\\d\\D|\\D\\d)\]")
_CLASSES = {
    "d": r"\p{Nd}", "w": r"\p{L}\p{N}_", "s": r"\s\v\x{1c}-\x{1f}\x{85}\p{Z}",
}  # fmt: skip


class PatternError(ValueError):
    """A pattern that is not used; the text says why."""


class Patterns:
    """Matches patterns under one limit of time.

    Args:
        seconds: how long all matching may take together.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._end = time.monotonic() + seconds
        self._engines: dict[str, re2._Regexp] = {}

    def first(self, patterns: Mapping[str, Number], layers: Iterable[str], otherwise: Number) -> list[Number]:
        """For each layer the number of the first pattern that fits it, as PEFT takes it; raises as `fits`.

        Args:
            patterns: regular expression or plain layer name → number; the order decides.
            layers: full names of modules.
            otherwise: number of a layer that no pattern fits.
        """
        if len(patterns) > MOST:
            raise PatternError(f"there are {len(patterns):,} patterns, and {MOST:,} are the most")
        order, numbers = list(patterns), list(patterns.values())
        # A plain name is as long as what it matches, so that a pattern for each layer costs no layer × layer.
        by_length: dict[int, list[int]] = {}
        for place, pattern in enumerate(order):
            by_length.setdefault(len(pattern) if _PLAIN.fullmatch(pattern) else -1, []).append(place)
        found = []
        for layer in layers:
            ends = [len(layer)] + [len(layer) - place - 1 for place, sign in enumerate(layer) if sign == "."]
            likely = sorted(place for length in {-1, *ends} for place in by_length.get(length, ()))
            found.append(next((numbers[place] for place in likely if self.fits(order[place], layer)), otherwise))
        return found

    def fits(self, pattern: str, layer: str) -> bool:
        """PEFT's rule for a pattern of ranks or alphas: the whole name of a layer, or its end at a dot.

        Raises:
            PatternError: the pattern cannot be used, or all matching takes too long.
        """
        if _PLAIN.fullmatch(pattern):
            begin = len(layer) - len(pattern)
            at_a_dot = begin == 0 or (begin > 0 and layer[begin - 1] == ".")
            return at_a_dot and all(one in (".", sign) for one, sign in zip(pattern, layer[begin:], strict=True))
        return self.engine(peft_expression(pattern)).match(layer) is not None

    def fits_whole(self, pattern: str, layer: str) -> bool:
        """PEFT's rule for `target_modules` that is one text; raises as `fits`."""
        return self.engine(pattern).fullmatch(layer) is not None

    def engine(self, expression: str) -> re2._Regexp:
        """Compile an expression, once; raises as `fits`."""
        if time.monotonic() > self._end:
            raise PatternError("the patterns take too long to match with all layers; use fewer or plainer ones")
        found = self._engines.get(expression)
        if found is None:
            found = self._engines[expression] = engine(expression)
        return found


def peft_expression(pattern: str) -> str:
    """What PEFT matches from the start of a layer's name for a pattern of ranks or alphas."""
    return _FORMS["rank_pattern"].replace("{}", pattern, 1)


@functools.lru_cache(maxsize=128)
def engine(pattern: str, *, across_lines: bool = False) -> re2._Regexp:
    """Compile a pattern for RE2.

    Args:
        pattern: in Python's syntax.
        across_lines: whether a dot is a line break too (`re.DOTALL`).

    Raises:
        PatternError: it is too long, no regular expression, or one that RE2 does not match in linear time.
    """
    if len(pattern) > LONGEST:
        raise PatternError(f"it has {len(pattern):,} characters; the limit is {LONGEST:,}")
    if any("\ud800" <= sign <= "\udfff" for sign in pattern):
        raise PatternError("it holds half a character")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise PatternError(f"it is not a regular expression ({error})") from error
    options = re2.Options()
    options.max_mem, options.log_errors, options.dot_nl = _MEMORY, False, across_lines
    try:
        return re2.compile(_for_re2(pattern), options=options)
    except re2.error as error:
        reason = error.args[0]
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(
            f"it cannot be matched in linear time ({shown}); write it without looking ahead or behind, references back "
            "and large repeats"
        ) from error


def require_quick(config: Mapping[str, object], names: Sequence[str], where: str) -> None:
    """See that Python's engine, which PEFT uses, gets through all patterns with all names soon.

    Args:
        config: patterns by the name of PEFT's option, as `peft_expressions` takes them.
        names: of the model's layers.
        where: what names the patterns, for the error.

    Raises:
        InputError: it does not, or a pattern cannot be used at all.
    """
    try:
        asked = tuple(dict.fromkeys(one for one in peft_expressions(config) if not _PLAIN.fullmatch(one)))
    except PatternError as error:
        raise InputError(f"a pattern is not used: {error}", where=where, fix="Write names of layers") from error
    if asked and not _is_quick(asked, tuple(dict.fromkeys(names))):
        raise InputError(
            f"a pattern such as '{max(asked, key=len):.80}' takes PEFT longer than {QUICK_SECONDS:g} s to match with "
            "the model's layers",
            where=where,
            fix="Write it without a repeat in a repeat, or name the layers",
        )


def peft_expressions(config: Mapping[str, object]) -> list[str]:
    """Return the expressions that PEFT makes of the patterns in an adapter's config, plain names left out.

    Raises:
        PatternError: one cannot be used.
    """
    expressions = [
        value for key in ("target_modules", "exclude_modules") if isinstance(value := config.get(key), str)
    ]  # fmt: skip
    for key, form in _FORMS.items():
        value = config.get(key)
        given = [value] if isinstance(value, str) else value if isinstance(value, list | dict) else []
        if len(given) > MOST:
            raise PatternError(f"{key} has {len(given):,} patterns, and {MOST:,} are the most")
        expressions += [form.replace("{}", str(one), 1) for one in given if not _PLAIN.fullmatch(str(one))]
    patterns = Patterns()
    for expression in expressions:
        patterns.engine(expression)
    return expressions


def require_plain_repeats(pattern: str) -> None:
    """See that no group that holds a repeat without end is itself repeated, where RE2 cannot be the engine.

    It reads the syntax of Python and of Oniguruma, which tokenizers use. Such a repeat is what takes exponential time.

    Raises:
        PatternError: one is.
    """
    if len(pattern) > _LONGEST_SPLIT:
        raise PatternError(f"it has {len(pattern):,} characters; the limit is {_LONGEST_SPLIT:,}")
    groups = [False]  # whether each open group holds a repeat without end, or words to choose from
    place, depth = 0, 0
    while place < len(pattern):
        sign = pattern[place]
        if sign == "\\":
            if pattern[place + 1 : place + 2].isdigit() or pattern[place + 1 : place + 3] in ("k<", "g<", "k'", "g'"):
                raise PatternError("it refers back to a part of itself")
            place += 2
            continue
        if depth or sign == "[":
            depth += {"[": 1, "]": -1}.get(sign, 0)
            if sign == "[" and pattern.startswith(("]", "^]"), place + 1):
                place += 1 + pattern.startswith("^", place + 1)
        elif sign == "(":
            groups.append(False)
        elif sign == "|" and len(groups) > 1:
            groups[-1] = True
        elif sign == ")" and len(groups) > 1:
            inner = groups.pop()
            if inner and _ENDLESS.match(pattern, place + 1):
                raise PatternError("it repeats a part that repeats or chooses itself, which can take for ever")
            groups[-1] = groups[-1] or inner
        elif _ENDLESS.match(pattern, place):
            groups[-1] = True
        place += 1


@functools.lru_cache(maxsize=8)
def _is_quick(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(
            module_command("studio.patterns"), input=json.dumps([patterns, names]), text=True, check=False,
            timeout=QUICK_SECONDS, env=child_environment(), capture_output=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _for_re2(pattern: str) -> str:
    """The pattern with what RE2 reads in another way written so that it means what Python means."""
    out: list[str] = []
    inside, place = False, 0
    while place < len(pattern):
        sign, rest = pattern[place], pattern[place + 1 :]
        if sign == "\\" and rest:
            kind, known = rest[0], _CLASSES.get(rest[0].lower())
            taken = 2
            if known is not None and kind.islower():
                out.append(known if inside else f"[{known}]")
            elif known is not None and not inside:
                out.append(f"[^{known}]")
            elif known is not None and kind != "D":
                raise PatternError(rf"\{kind} in brackets cannot be matched in linear time; write what is meant")
            elif kind == "D":
                out.append(r"\P{Nd}")
            elif kind in "uU" and (digits := rest[1 : 5 if kind == "u" else 9]):
                out.append(rf"\x{{{digits}}}")
                taken += len(digits)
            else:
                out.append(r"\z" if kind == "Z" and not inside else sign + kind)
            place += taken
            continue
        if inside and sign == "[":
            out.append(r"\[")  # [[:alpha:]] is a set of characters to Python
        elif not inside and (most := _AT_MOST.match(pattern, place)):
            out.append(f"{{0,{most[1]}}}")  # which RE2 takes for text
            place = most.end()
            continue
        elif not inside and (anything := _ANYTHING.match(pattern, place)):
            out.append("(?s:.)")
            place = anything.end()
            continue
        else:
            out.append(sign)
            if sign == "[" and not inside:
                inside = True
                for first in ("^", "]"):  # a bracket that comes first ends nothing
                    if pattern.startswith(first, place + 1):
                        out.append(first)
                        place += 1
            elif sign == "]":
                inside = False
        place += 1
    return "".join(out)


def _main() -> int:
    """The process of `require_quick`: match all names, as PEFT will."""
    patterns, names = json.load(sys.stdin)
    for pattern in patterns:
        compiled = re.compile(pattern)
        for name in names:
            compiled.fullmatch(name)
            compiled.match(name)
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
