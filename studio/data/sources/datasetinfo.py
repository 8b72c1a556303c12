"""LLaMA-Factory's dataset_info.json: one entry as a source, its rows in the studio's own formats.

The rules are those of LLaMA-Factory's `data/parser.py` and `data/converter.py` (0.9.5), also where they surprise: with
`columns` or `tags` given, what they do not name is none, no default survives. What it skips with a log line (a role
that no tag names, a missing answer) is an error here, and what the studio cannot read is refused by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from studio.data.files.datafiles import Row, exists
from studio.data.files.hubsets import HubSet, is_set_name
from studio.data.files.where import Where
from studio.data.formats.answers import instruction_prompt
from studio.errors import InputError
from studio.foreign import as_path, read_json_file
from studio.methods import RowKind

FILE_NAME = "dataset_info.json"
_ADDRESS = re.compile(r"(.+\.json):([^/\\]+)")
_COLUMNS: dict[str, str | None] = {
    "prompt": "instruction", "query": "input", "response": "output", "history": None, "messages": "conversations",
    "system": None, "tools": None, "images": None, "videos": None, "audios": None, "chosen": None, "rejected": None,
    "kto_tag": None,
}  # fmt: skip
_TAGS: dict[str, str | None] = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
_FORMATTINGS = ("alpaca", "sharegpt", "openai")
_ELSEWHERE = {
    "ms_hub_url": "the ModelScope hub", "om_hub_url": "the Openmind hub", "script_url": "a loading script",
    "cloud_file_name": "a file in cloud storage",
}  # fmt: skip
_PLAIN_KEYS = ("formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags")
_KEYS = ("hf_hub_url", *_ELSEWHERE, "file_name", *_PLAIN_KEYS)


@dataclass(frozen=True)
class Entry:
    """One set of a dataset_info.json.

    Attributes:
        source: the file (or folder of files), or the set of the Hub.
        formatting: how a row is written.
        ranking: whether it is a pair of a better and a worse answer.
        columns, tags: what each thing is named in a row, and in a turn; None where the entry has none.
        num_samples: how many rows are wanted; None for all.
    """

    source: Path | HubSet
    formatting: Literal["alpaca", "sharegpt", "openai"]
    ranking: bool
    columns: dict[str, str | None]
    tags: dict[str, str | None]
    num_samples: int | None


def split_address(path: str) -> tuple[str, str] | None:
    """(file, name) of "dataset_info.json:NAME"; None if the path is another one."""
    match = _ADDRESS.fullmatch(path.strip())
    return (match[1], match[2]) if match and not exists(as_path(path)) else None


def which_entry(file: Path) -> InputError:
    """The error for a dataset_info.json without a name: it lists the names."""
    names = list(_read(file))
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return InputError(
        f"this file describes datasets and has no rows; its datasets are: {shown or 'none'}", where=str(file),
        fix=f"Choose one: {file.name}:{names[0] if names else 'NAME'}",
    )  # fmt: skip


def read_entry(file: Path, name: str) -> Entry:
    """Return one entry, checked.

    Raises:
        InputError: the file is no dataset_info.json, has no such entry, or the entry has something that is not read.
    """
    entries = _read(file)
    if name not in entries:
        close = get_close_matches(name, entries, n=1)
        fix = f"Did you mean '{close[0]}'?" if close else f"Choose one of: {', '.join(list(entries)[:20])}"
        raise InputError(f"there is no dataset '{name}'", where=str(file), fix=fix)
    raw, place = entries[name], f"{file}:{name}"
    _require_keys(raw, _KEYS, place)
    formatting = raw.get("formatting", "alpaca")
    if formatting not in _FORMATTINGS:
        raise InputError(
            f"formatting '{formatting}' is not known", where=place, fix=f"Use one of: {', '.join(_FORMATTINGS)}"
        )
    ranking = raw.get("ranking", False)
    if not isinstance(ranking, bool):
        raise InputError(f"ranking must be true or false, not {ranking!r}", where=place, fix="Fix the entry")
    wanted = raw.get("num_samples")
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1):
        raise InputError(f"num_samples must be a number of rows, not {wanted!r}", where=place, fix="Fix the entry")
    columns, tags = _named(raw, "columns", _COLUMNS, place), _named(raw, "tags", _TAGS, place)
    entry = Entry(_source(raw, file, place), formatting, ranking, columns, tags, wanted)
    _require_usable(entry, place)
    return entry


def convert(entry: Entry, row: Row, number: int, path: Path, kind: RowKind) -> Row:
    """Return a row in one of the studio's formats: instruction, text, prompts, messages, preference or rated.

    Args:
        entry: of dataset_info.json.
        row: as it is stored.
        number: of the row, from 1, for errors.
        path: of its file, for errors.
        kind: what the method learns from.

    Raises:
        InputError: a column is missing, or a turn has a role that no tag names.
    """
    where = Where(path, number)
    made = _alpaca(entry, row, where, kind) if entry.formatting == "alpaca" else _turns(entry, row, where)
    if entry.columns["kto_tag"]:
        made["label"] = where.need(row, entry.columns["kto_tag"])
    if (tools := _value(row, entry.columns["tools"])) not in (None, "", []):
        made["tools"] = _tools(tools, where, entry.columns["tools"] or "")
    return made


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        value = read_json_file(file)
    except ValueError as error:
        raise InputError(f"invalid JSON: {error}", where=str(file), fix="Fix the file") from error
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise InputError(
            "this is not a dataset_info.json, which is an object of named datasets", where=str(file),
            fix='Write {"name": {"file_name": "rows.json"}}',
        )  # fmt: skip
    return value


def _require_keys(given: Any, known: tuple[str, ...], place: str) -> None:
    if not isinstance(given, dict):
        raise InputError(f"expected an object, got {given!r}", where=place, fix="Fix the entry")
    for key in given:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            fix = f"Did you mean '{close[0]}'?" if close else f"Use: {', '.join(known)}"
            raise InputError(f"there is no key '{key}'", where=place, fix=fix)


def _named(raw: dict[str, Any], key: str, defaults: dict[str, str | None], place: str) -> dict[str, str | None]:
    """The names of an entry. LLaMA-Factory keeps its defaults only where the whole object is absent."""
    given = raw.get(key)
    if given is None:
        return defaults
    _require_keys(given, tuple(defaults), f"{place}.{key}")
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise InputError(f"expected a string, got {value!r}", where=f"{place}.{key}.{name}", fix="Fix it")
    return {name: given.get(name) for name in defaults}


def _source(raw: dict[str, Any], file: Path, place: str) -> Path | HubSet:
    """The source that LLaMA-Factory would take: a hub, then a script, then a cloud, then a file beside it."""
    for key in ("hf_hub_url", "file_name", "subset", "split", "folder"):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            raise InputError(f"{key} must be a string, not {raw[key]!r}", where=place, fix="Fix the entry")
    split = raw.get("split") or "train"
    if name := raw.get("hf_hub_url"):
        if not is_set_name(name):
            raise InputError(f"hf_hub_url '{name}' is not a Hub id", where=place, fix="Write it as org/name")
        return HubSet(name, raw.get("subset"), split, folder=raw.get("folder"))
    for key, what in _ELSEWHERE.items():
        if raw.get(key):
            raise InputError(
                f"{key} is not supported: the dataset is in {what}", where=place,
                fix="Set hf_hub_url to its copy on the Hugging Face Hub, or download it and set file_name",
            )  # fmt: skip
    if not raw.get("file_name"):
        raise InputError("the entry names no source", where=place, fix="Add file_name or hf_hub_url")
    for key in ("subset", "folder"):
        if raw.get(key):
            raise InputError(f"'{key}' is for Hub datasets, not for file_name", where=place, fix=f"Remove '{key}'")
    if split != "train":
        raise InputError(f"a file has no split '{split}'", where=place, fix="Remove 'split'")
    return file.parent / str(raw["file_name"])


def _require_usable(entry: Entry, place: str) -> None:
    for name in ("images", "videos", "audios"):
        if entry.columns[name]:
            raise InputError(f"{name} are not supported", where=f"{place}.columns.{name}", fix="Choose a text dataset")
    needed = ["chosen", "rejected"] if entry.ranking else []
    needed += ["messages"] if entry.formatting != "alpaca" else []
    for name in needed:
        if not entry.columns[name]:
            raise _left_out(name, "columns", place)
    if entry.formatting == "alpaca" and not (entry.columns["prompt"] or entry.columns["query"]):
        raise _left_out("prompt", "columns", place)
    for name in ("role_tag", "content_tag", "user_tag", "assistant_tag"):
        if entry.formatting != "alpaca" and not entry.tags[name]:
            raise _left_out(name, "tags", place)


def _left_out(name: str, key: str, place: str) -> InputError:
    return InputError(
        f"'{name}' is missing; once {key} is set, LLaMA-Factory has no default for what it omits",
        where=f"{place}.{key}", fix=f"Add '{name}' to {key}",
    )  # fmt: skip


def _value(row: Row, column: str | None) -> Any:
    return row.get(column) if column else None


def _alpaca(entry: Entry, row: Row, where: Where, kind: RowKind) -> Row:
    columns = entry.columns
    made: Row = {}
    for key, name in (("instruction", "prompt"), ("input", "query")):
        column = columns[name]
        # Query may be missing from a row, as a JSON file leaves out what is empty; the prompt may not.
        value = where.need(row, column) if column and name == "prompt" else _value(row, column)
        made[key] = "" if value is None else value
    for key in ("system", "history"):
        if (value := _value(row, columns[key])) is not None:
            made[key] = value
    if entry.ranking:
        return made | {key: where.need(row, columns[key] or "") for key in ("chosen", "rejected")}
    if columns["response"]:
        return made | {"output": where.need(row, columns["response"])}
    # Without an answer it is a text to go on with (stage pt), or a prompt that the model answers (stage ppo).
    if kind == "answers":
        return {"text": instruction_prompt(made, where)[-1]["content"]}
    return {"prompt": instruction_prompt(made, where)}


def _turns(entry: Entry, row: Row, where: Where) -> Row:
    key = entry.columns["messages"] or ""
    turns = where.need(row, key)
    if not isinstance(turns, list):
        raise where.error("expected a list of messages", key, "Fix the row, or choose another column in columns")
    made: Row = {"messages": [_turn(entry, turn, f"{key}[{i}]", where) for i, turn in enumerate(turns)]}
    begun = any(turn["role"] == "system" for turn in made["messages"][:1])
    # That tool takes the column only where the turns do not begin with a system text of their own.
    if not begun and (system := _value(row, entry.columns["system"])) not in (None, ""):
        made["system"] = system
    if entry.ranking:
        for name in ("chosen", "rejected"):
            column = entry.columns[name] or ""
            made[name] = _turn(entry, where.need(row, column), column, where)
    return made


def _turn(entry: Entry, turn: Any, label: str, where: Where) -> dict[str, Any]:
    """A turn as a message of OpenAI's shape."""
    tags = entry.tags
    if not isinstance(turn, dict):
        raise where.error(f"a message must be an object, not {turn!r:.60}", label, "Fix the row")
    role = where.need(turn, tags["role_tag"] or "", label)
    roles = {
        tags[tag]: own
        for tag, own in (
            ("user_tag", "user"), ("assistant_tag", "assistant"), ("observation_tag", "tool"),
            ("function_tag", "function"), ("system_tag", "system"),
        )
        if tags[tag]
    }  # fmt: skip
    if not isinstance(role, str) or role not in roles:
        raise where.error(
            f"no tag is set for the role {role!r}; tags are: "
            f"{', '.join(map(str, roles))}", f"{label}.{tags['role_tag']}",
            "Fix the row, or add the role's tag to tags in dataset_info.json",
        )  # fmt: skip
    content = turn.get(tags["content_tag"] or "")
    calls = turn.get("tool_calls") if entry.formatting == "openai" else None
    if roles[role] == "function":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, where, label)}
    if calls:
        return {"role": roles[role], "content": content or "", "tool_calls": calls}
    return {"role": roles[role], "content": where.need(turn, tags["content_tag"] or "", label)}


def _calls(content: Any, where: Where, label: str) -> list[dict[str, Any]]:
    """The calls of a function turn: {"name", "arguments"} or a list of them, as JSON text."""
    calls = _json(content, where, label)
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise where.error('a call must be {"name": ..., "arguments": ...}', label, "Fix the row")
    return [{"type": "function", "function": call} for call in calls]


def _tools(tools: Any, where: Where, label: str) -> list[Any]:
    """The tools of a row as OpenAI's list; LLaMA-Factory keeps them as JSON text, mostly without the outer object."""
    found = _json(tools, where, label)
    if not isinstance(found, list):
        raise where.error("expected a list of tools", label, "Fix the row")
    return [
        {"type": "function", "function": one} if isinstance(one, dict) and "function" not in one else one
        for one in found
    ]


def _json(value: Any, where: Where, label: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise where.error(f"the text is not valid JSON: {error}", label, "Fix the row") from error
