"""The data of a run as LLaMA-Factory reads it: dataset_info.json, and a file for each source.

An entry of another dataset_info.json stays as it is, with the whole path of its file. All other sources are written
anew, row by row as the studio understands them: conversations with OpenAI's names and tags that say so, pairs, rated
answers, texts. Rows are read when they are written, not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.data import DataSource
from studio.data.formats.answers import Example
from studio.data.sources.datasetinfo import split_address
from studio.data.sources.locate import sources_of
from studio.data.sources.stream import open_sources, read_source
from studio.errors import InputError
from studio.foreign import as_path, read_json_file
from studio.interop.llama_factory.keys import TITLE
from studio.interop.llama_factory.templates import NAMES
from studio.methods import RowKind, TrainOn
from studio.settings import read_settings

Put = Callable[..., None]
_SAID = (("user", "tool"), ("assistant", "function"))  # who speaks in turn
_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function", "system_tag": "system",
}  # fmt: skip
_MIXES = {
    ("concatenate", "first_exhausted"): "concat", ("concatenate", "all_exhausted"): "concat",
    ("interleave", "first_exhausted"): "interleave_under", ("interleave", "all_exhausted"): "interleave_over",
}  # fmt: skip


@dataclass
class Data:
    """What belongs beside the config.

    Attributes:
        info: dataset_info.json.
        rows: lines of each file, read when they are asked for.
    """

    info: str = ""
    rows: dict[str, Callable[[], Iterator[str]]] = field(default_factory=dict)


def write_datasets(config: RunConfig, put: Put) -> Data:
    """Say the keys of the data; returns the files.

    Args:
        config: the run.
        put: (option, keys, why, status) of what is written.
    """
    data, kind = config.data, config.method.kind
    sources = sources_of(data)
    names = _names(sources)
    made = Data()
    entries: dict[str, Any] = {}
    for at, (name, source) in enumerate(zip(names, sources, strict=True)):
        entries[name] = _entry(source, name, kind.rows, kind.plain)
        if "file_name" in entries[name] and split_address(source.path) is None:
            made.rows[f"{name}.jsonl"] = partial(_lines, config, at, kind.rows, kind.plain)
        if source.rows is not None:
            entries[name]["num_samples"] = source.rows
    made.info = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    train, held = names[: len(data.train)], names[len(data.train) :]
    put("data.train", {"dataset": ",".join(train), "dataset_dir": "."})
    if held and data.train[0].weight is not None:
        why = "Sets with weights and validation rows of their own do not go together there"
        put("data.validation", {}, why, "refused")
    elif held:
        put("data.validation", {"eval_dataset": held[0]})
    elif data.validation:
        put("data.validation", {"val_size": data.validation})
    if data.max_length == "auto":
        put("data.max_length", {}, "auto is the model's context length; there it is 2,048", "approximated")
    else:
        put("data.max_length", {"cutoff_len": data.max_length})
    if data.truncation != "cut":
        put("data.truncation", {}, "Longer examples are always truncated there", "approximated")
    if data.template != "auto":
        same = data.template == "chatml"
        why = "" if same else "An import keeps the model's own template"
        put("data.template", {"template": NAMES[data.template]}, why, "mapped" if same else "approximated")
    if data.system:
        put("data.system", {"default_system": data.system})
    if not data.shuffle:
        put("data.shuffle", {"disable_shuffling": True})
    _mixture(data.train, data.mix, data.stopping_strategy, put)
    return made


def _mixture(train: list[DataSource], mix: str, stopping: str, put: Put) -> None:
    weights = [source.weight for source in train if source.weight is not None]
    if len(train) < 2 or (mix == "concatenate" and not weights):
        return
    if not weights:
        put("data.mix", {"mix_strategy": _MIXES[mix, stopping]})
        return
    total = sum(weights)
    why = "" if mix == "interleave" else "Sets with weights are interleaved there"
    keys = {
        "mix_strategy": _MIXES["interleave", stopping],
        "interleave_probs": ",".join(f"{weight / total:.6g}" for weight in weights),
    }
    put("data.mix", keys, why, "approximated" if why else "mapped")


def _names(sources: list[DataSource]) -> list[str]:
    names: list[str] = []
    for source in sources:
        address = split_address(source.path)
        about = address[1] if address else Path(source.path).name.partition(".")[0]
        name = plain = re.sub(r"[^A-Za-z0-9_-]+", "_", about).strip("_") or "data"
        number = 2
        while name in names:
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names


def _entry(source: DataSource, name: str, kind: RowKind, plain: bool) -> dict[str, Any]:
    address = split_address(source.path)
    if address is not None:
        file = as_path(address[0]).resolve()
        try:
            entry = dict(read_json_file(file)[address[1]])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"there is no dataset '{address[1]}' in it", where=address[0], fix="Check the path"
            ) from error
        if "file_name" in entry:
            entry["file_name"] = str(file.parent / str(entry["file_name"]))
        return entry
    entry = {"file_name": f"{name}.jsonl"}
    if plain:
        return {**entry, "columns": {"prompt": "text"}}
    columns = {"messages": "messages", "tools": "tools"}
    if kind == "prompts":
        return {**entry, "columns": {"prompt": "prompt", "system": "system"}}
    if kind == "pairs":
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    if kind == "rated":
        columns |= {"kto_tag": "label"}
    ranking = {"ranking": True} if kind == "pairs" else {}
    return {**entry, "formatting": "sharegpt", **ranking, "columns": columns, "tags": _TAGS}


def _lines(config: RunConfig, at: int, kind: RowKind, plain: bool) -> Iterator[str]:
    """The rows of one source, a line of JSON each.

    Raises:
        InputError: a row cannot be used, or has no counterpart there.
    """
    one = config.data.model_copy(update={"train": [sources_of(config.data)[at]], "validation": 0.0})
    (source,) = open_sources(one, read_settings(), kind, turns=not plain)
    for read in read_source(source):
        if read.example is None:
            raise read.error or InputError("a row cannot be read", where=str(source.located.path))
        if kind == "answers" and not plain:
            _require_counted(read.example, config.method.kind.train_on(config.method))
        for example in _rated(read.example) if kind == "rated" else [read.example]:
            yield json.dumps(_row(example, kind, plain), ensure_ascii=False) + "\n"


def _require_counted(example: Example, train_on: TrainOn) -> None:
    """Refuse a row with an answer that is context here: there every answer counts, or the last one.

    Raises:
        InputError: it has one.
    """
    answers = [i for i, turn in enumerate(example.messages or ()) if turn["role"] == "assistant"]
    context = [i for i in answers if i < example.trained_from or not (example.messages or ())[i].get("weight", 1)]
    if context and train_on != "all" and (train_on != "last" or context[-1] == answers[-1]):
        raise InputError(
            f"the answer in message {context[0] + 1} does not count here, but would in {TITLE}",
            where=f"{example.path}, row {example.row}",
            fix="Set method.train_on: last if only the last answer counts, or remove the row",
        )


def _rated(example: Example) -> list[Example]:
    """A rated answer, or the two of a pair: one good, one bad."""
    if example.rejected is None:
        return [example]
    worse = example.rejected
    bad = {"completion": worse} if isinstance(worse, str) else {"messages": worse}
    return [replace(example, rejected=None, label=True), replace(example, rejected=None, label=False, **bad)]


def _row(example: Example, kind: RowKind, plain: bool) -> dict[str, Any]:
    where = f"{example.path}, row {example.row}"
    if plain:
        if example.text is not None:
            return {"text": example.text}
        raise InputError("a conversation is no text there", where=where, fix="Use rows of text")
    if example.text is not None:
        raise InputError("a plain text has no answer to learn there", where=where, fix="Use method pretrain for texts")
    turns = example.messages
    if turns is None:
        turns = [{"role": "user", "content": example.prompt or ""}]
        if example.completion is not None:
            turns.append({"role": "assistant", "content": example.completion})
    written = [_turn(dict(turn)) for turn in turns]
    if kind != "prompts":
        _require_in_turn(written, where)
    tools = json.dumps(example.tools, ensure_ascii=False) if example.tools else ""
    if kind == "prompts":
        system = written[0]["content"] if written[0]["role"] == "system" else ""
        return {"prompt": written[-1]["content"], "system": system}
    if kind == "pairs":
        worse = example.rejected
        last = {"role": "assistant", "content": worse} if isinstance(worse, str) else _turn(dict((worse or [{}])[-1]))
        return {"messages": written[:-1], "tools": tools, "chosen": written[-1], "rejected": last}
    row = {"messages": written, "tools": tools}
    return {**row, "label": example.label} if kind == "rated" else row


def _require_in_turn(turns: list[dict[str, Any]], where: str) -> None:
    """Refuse a conversation that would be skipped there.

    Raises:
        InputError: its turns do not alternate, or an answer is not the last one.
    """
    said = turns[1:] if turns[0]["role"] == "system" else turns
    if len(said) % 2 or any(turn["role"] not in _SAID[at % 2] for at, turn in enumerate(said)):
        raise InputError(
            f"{TITLE} skips a conversation whose turns are not user and assistant one after the other", where=where,
            fix="Merge turns of the same role, and end with an answer",
        )  # fmt: skip


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn with its calls, if it has some, as the text that is expected there."""
    if calls := turn.get("tool_calls"):
        listed = [call.get("function", call) for call in calls]
        return {"role": "function", "content": json.dumps(listed, ensure_ascii=False)}
    return {"role": turn["role"], "content": turn.get("content") or ""}
