"""YAML in and out, `--set a.b=c`, and errors that a person can act on.

All problems of a config are reported at once, each with the dotted name of its option. Keys that do not exist
are errors that name the nearest one that does.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from studio.config.describe import OptionSpec, options_of
from studio.config.renamed import RENAMED, current_name, with_current_names
from studio.config.run import RunConfig
from studio.errors import InputError, InputErrors
from studio.foreign import RUN, TooMuchError, parse_yaml, read_yaml
from studio.reach import open_own, page
from studio.settings import PRESETS

Config = TypeVar("Config", bound=BaseModel)
# A file of something else can have thousands of wrong keys, and each is compared with all options.
_SHOWN, _SHOWN_LENGTH = 30, 100


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: missing, not UTF-8, not YAML (with line and column), over a limit, or not a mapping.
    """
    try:
        with _opened(path) as file:
            text = file.read(RUN.bytes + 1).decode("utf-8")
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path), fix="Check the path") from error
    except IsADirectoryError as error:
        raise InputError("this is a folder", where=str(path), fix="Give a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=str(path), fix="Save the file as UTF-8") from error
    raw = read_yaml(text, str(path), "the YAML of a run", "Give the YAML of a run")
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InputError(f"a {type(raw).__name__} instead of sections", where=str(path), fix="Begin with 'model:'")
    return raw


def _opened(path: Path) -> IO[bytes]:
    """A file of ours, one that a browser sent, or one that the page may read; of the command line also a pipe."""
    settings = page()
    return path.open("rb") if settings is None else open_own(path, PRESETS, settings.temporary)


def build(model: type[Config], raw: dict[str, Any], where: str = "", by_hand: Collection[str] = ()) -> Config:
    """Validate `raw` as a config; every problem becomes one sentence.

    Args:
        model: the config class.
        raw: plain values, as YAML gives them, under the names of today.
        where: file name for the messages.
        by_hand: options whose values came by `--set`, not from the file.

    Raises:
        InputErrors: at least one key or value is wrong.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = error.errors()
        problems = [_problem(model, item, where, by_hand) for item in found[:_SHOWN]]
        if len(found) > _SHOWN:
            problems.append(InputError(f"{len(found) - _SHOWN:,} more values are wrong", where=where))
        raise InputErrors(problems) from error


def load_run(path: Path, sets: list[str] | None = None, tell: Callable[[str], None] | None = None) -> RunConfig:
    """Read a run's YAML file and apply `--set` values to it; arguments as `run_of`.

    Args:
        path: of the YAML file, named in errors.
        sets: `a.b=c` each; None for none.
        tell: told in a sentence which options were given under an old name; None for silence.
    """
    return run_of(load_yaml(path), sets or [], str(path), tell)


def run_of(
    raw: dict[str, Any], sets: list[str], where: str = "", tell: Callable[[str], None] | None = None
) -> RunConfig:
    """Apply `--set` values to a run and validate it.

    Args:
        raw: plain values by section, which are changed.
        sets: `a.b=c` each.
        where: file name for the messages.
        tell: told in a sentence which options were given under an old name.
    """
    raw, notes = with_current_names(raw)
    asked = [item.partition("=")[0].strip() for item in sets]
    notes += [f"{path} is called {current_name(path)} now" for path in asked if path in RENAMED]
    by_hand = {apply_set(raw, item) for item in sets}
    raw, more = with_current_names(raw)
    for note in dict.fromkeys([*notes, *more]):
        if tell is not None:
            tell(note)
    return build(RunConfig, raw, where, by_hand)


def apply_set(raw: dict[str, Any], item: str, model: type[BaseModel] = RunConfig) -> str:
    """Change `raw` by one `a.b=c`; the value is read as YAML, so `true`, `1e-3` and `[a, b]` work.

    Returns the option. One that takes nothing but text takes it as it stands, with or without quotes.

    Args:
        raw: plain values, which are changed.
        item: `a.b=c`.
        model: whose options there are.

    Raises:
        InputError: no `=`, an unknown option, or a value that is not YAML.
    """
    path, equals, text = item.partition("=")
    path = current_name(path.strip())
    if not equals or not path:
        raise InputError(f"'{item}' is not OPTION=VALUE", where="--set", fix="Write it like training.epochs=3")
    specs = {spec.path: spec for spec in options_of(model)}
    if path not in specs:
        raise _unknown(path, sorted(specs), "--set")
    value = _set_value(specs[path], path, text.strip())
    target = raw
    *sections, name = path.split(".")
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise InputError(f"'{section}' is not a section", where="--set")
    target[name] = value
    return path


def _set_value(spec: OptionSpec, path: str, text: str) -> Any:
    """The text of a `--set` as YAML; as it stands where it is no YAML, and the option a text such as `[0-9]+`."""
    if spec.only_text and text not in ("", "~", "null") and text[0] not in "'\"":
        return text
    try:
        return parse_yaml(text)
    except (YAMLError, ValueError) as error:
        if spec.kind == "text" and not isinstance(error, TooMuchError):
            return text
        why = f": {error}" if isinstance(error, TooMuchError) else ""
        raise InputError(
            f"'{text:.{_SHOWN_LENGTH}}' is not a YAML value{why}", where=f"--set {path}",
            fix="Write a number, a word, or a list such as [a, b]",
        ) from error  # fmt: skip


def dump_run(config: RunConfig) -> str:
    """Write a run as YAML, each option with its help as a comment."""
    specs = {spec.path: spec for spec in options_of(RunConfig)}
    document = _commented(config.model_dump(mode="json"), "", specs)
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _commented(values: dict[str, Any], prefix: str, specs: dict[str, OptionSpec]) -> CommentedMap:
    document = CommentedMap()
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in specs:
            document[key] = _commented(value, f"{path}.", specs)
            continue
        document[key] = CommentedSeq(value) if isinstance(value, list) else value
        spec = specs.get(path)
        if spec is not None:
            document.yaml_set_comment_before_after_key(key, before=describe_line(spec), indent=2 * path.count("."))
    return document


def describe_line(spec: OptionSpec) -> str:
    """Help, choices and unit of an option in one line."""
    notes = []
    if spec.choices:
        notes.append(" | ".join(spec.choices))
    if spec.unit:
        notes.append(spec.unit)
    return spec.help + (f" ({', '.join(notes)})" if notes else "")


def _problem(model: type[BaseModel], item: Any, where: str, by_hand: Collection[str]) -> InputError:
    parts = [str(part) for part in item["loc"]]
    known = [spec.path for spec in options_of(model)] + list(model.model_fields)
    # Pydantic appends which member of a union it tried; the person only knows the option.
    while (
        len(parts) > 1
        and ".".join(parts) not in known
        and not parts[-1].isdigit()
        and item["type"] != "extra_forbidden"
    ):
        if parts[-2].isdigit():
            break
        parts.pop()
    path = ".".join(parts)
    if item["type"] == "extra_forbidden":
        return _unknown(path, known, where)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "too_short" and isinstance(item["input"], list):
        message = "nothing is named; at least one is needed"
    if item["type"] == "int_from_float":
        message = "a whole number is needed"
    if path in by_hand:
        where = "--set"
    given = item.get("input")
    shown = "" if isinstance(given, dict | list) or item["type"] == "missing" else f" (it is {_short(given)})"
    place = f"{where}: {path}" if where and path else where or path
    return InputError(f"{message[0].lower()}{message[1:]}{shown}", where=place)


def _short(value: Any) -> str:
    """A value as a sentence has it."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number without end"
    text = text.encode(errors="replace").decode()  # half a character cannot be sent
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def _unknown(path: str, known: list[str], where: str) -> InputError:
    if path in RENAMED:  # beside its name of today
        fix = f"It is called '{RENAMED[path]}' now: give one of the two"
        return InputError(f"there is no option '{path}'", where=where, fix=fix)
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    if not near:  # right name in the wrong section
        near = [candidate for candidate in known if candidate.rpartition(".")[2] == path.rpartition(".")[2]][:1]
    fix = f"Did you mean '{near[0]}'?" if near else "docs/config.md lists all options"
    return InputError(f"there is no option '{path:.{_SHOWN_LENGTH}}'", where=where, fix=fix)
