"""`data.train` and its validation file as Axolotl's `datasets` and `test_datasets`."""

from __future__ import annotations

from typing import Any

from studio.config.data import DataSource
from studio.data.sources.locate import sources_of
from studio.interop.axolotl.prompts import KINDS, columns_of
from studio.interop.sheets.outgoing import Outgoing
from studio.interop.sheets.rows import Shape, shape_of

_CHATML = ("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", "{%s}<|im_end|>")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "observation": "tool"}
_PAIR = {"prompt", "chosen", "rejected"}
# The user's words that Axolotl knows by itself; a table of one's own replaces it.
_USUAL: dict[str, list[str]] = {"user": ["human", "user"], "assistant": ["gpt", "assistant"], "system": ["system"],
                                "tool": ["tool"]}  # fmt: skip


def write_sets(out: Outgoing) -> None:
    """Write the sets, each with the type that makes the same text of its rows."""
    data = out.config.data
    shapes = [shape_of(source, out.config.method.kind.rows) for source in data.train]
    entries, notes = [], []
    for source, shape in zip(data.train, shapes, strict=True):
        entry, note = _entry(out, source, shape)
        entries.append(entry)
        notes += [note] if note and note not in notes else []
    if data.mix != "concatenate" or data.train[0].weight is not None:
        out.refused("data.mix", "sets follow each other, all of them")
        notes.append("Sets follow each other, without weights")
    out.put("datasets", entries, "data.train", ". ".join(notes), "approximated" if notes else "mapped")
    if isinstance(data.validation, str):
        first = {key: value for key, value in entries[0].items() if key not in ("split", "name")}
        local = shape_of(sources_of(data)[-1], out.config.method.kind.rows)
        entry = {**first, "path": local.path, "split": "train" if local.is_file else data.validation_split}
        out.put("test_datasets", [entry], "data.validation")
        if not local.is_file:
            out.tell("data.validation_split", "mapped", "test_datasets")


def _entry(out: Outgoing, source: DataSource, shape: Shape) -> tuple[dict[str, Any], str]:
    """A set, and what is to be known of it."""
    entry: dict[str, Any] = {"path": shape.path}
    if source.subset:
        entry["name"] = source.subset
    if not shape.is_file and source.revision != "main":
        entry["revision"] = source.revision
    split = source.split if not shape.is_file else "train"
    note = ""
    if source.rows is not None:
        split, note = f"{split}[:{source.rows}]", "Rows are the first ones of a set, where the studio draws them"
    if split != "train" or not shape.is_file:
        entry["split"] = split
    columns = dict(source.columns) if isinstance(source.columns, dict) else {}
    kind = out.config.method.kind
    if kind.online:
        return entry, "Its rows are made by a Python function there: name it as type"
    if kind.rows == "pairs" and kind.result == "scorer":
        more, why = {"type": "bradley_terry.chat_template"}, "Its columns must be system, input, chosen and rejected"
    elif kind.rows == "pairs":
        more, why = _pairs(out, source, columns, shape)
    elif kind.rows == "rated":
        more, why = _rated(out, source, columns)
    else:
        more, why = _answers(out, source, columns, shape)
    entry |= more
    lost = [key for key in _dropped(out) if entry.pop(key, None) is not None]
    left = f"Axolotl would drop {' and '.join(lost)} of such a set: change the data instead" if lost else ""
    return entry, ". ".join(one for one in (note, why, left) if one)


def _dropped(out: Outgoing) -> tuple[str, ...]:
    """Keys of a set that Axolotl drops without a word: pairs and rated answers have schemas of their own."""
    kind = out.config.method.kind
    if kind.rows == "rated":
        return ("name",)
    if kind.rows != "pairs" or kind.result == "scorer" or out.config.method.reads("orpo_loss"):
        return ("field_chosen", "field_rejected")
    return ("message_property_mappings", "roles", "name")


def _answers(out: Outgoing, source: DataSource, columns: dict[str, str], shape: Shape) -> tuple[dict[str, Any], str]:
    known = next((kind for kind in KINDS if columns and columns_of(kind) == columns), "")
    if known:
        return {"type": known}, ""
    if shape.format == "text" or out.config.method.kind.plain:
        field = columns.get("text", "text")
        if "{{" in field or "{%" in field:
            return {"type": "completion"}, "Its texts are made by a line over columns here: write them into the data"
        return {"type": "completion", **({"field": field} if field != "text" else {})}, ""
    if shape.format == "messages":
        return {"type": "chat_template", **_turns(source, columns)}, ""
    question, answer = ("prompt", "completion") if shape.format == "prompt_completion" else ("instruction", "output")
    names = {name: columns.get(name, name) for name in (question, answer, "input")}
    if any("{{" in value or "{%" in value for value in names.values()):
        return {"type": "completion"}, "Its prompts are made by lines over columns here: write them into the data"
    raw = source.plain_reading == "raw" and question == "prompt"
    before, after = ("", "") if raw else ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    more = {
        "type": {
            "field_instruction": names[question], "field_output": names[answer],
            **({"field_input": names["input"]} if question == "instruction" else {"field_input": "-"}),
            "format": f"{before}{{instruction}}{chr(10)}{{input}}{after}",
            "no_input_format": f"{before}{{instruction}}{after}",
        }
    }  # fmt: skip
    why = "" if raw else "The prompt is written out in ChatML: change it to what the model's chat template writes"
    return more, why


def _turns(source: DataSource, columns: dict[str, str]) -> dict[str, Any]:
    tags = dict(source.tags) if isinstance(source.tags, dict) else {}
    more: dict[str, Any] = {}
    if columns.get("messages", "messages") != "messages":
        more["field_messages"] = columns["messages"]
    names = {name: tags[name] for name in ("role", "content") if name in tags}
    if names:
        more["message_property_mappings"] = {"role": "role", "content": "content", **names}
    roles = {theirs: tags[ours] for ours, theirs in _ROLES.items() if ours in tags}
    if roles:
        more["roles"] = {
            role: list(dict.fromkeys([*([roles[role]] if role in roles else []), *words]))
            for role, words in _USUAL.items()
        }
    return more


def _pairs(out: Outgoing, source: DataSource, columns: dict[str, str], shape: Shape) -> tuple[dict[str, Any], str]:
    names = {name: columns.get(name, name) for name in ("prompt", "messages", "chosen", "rejected", "instruction")}
    more: dict[str, Any] = {}
    # Of its own, ORPO there takes nothing but whole conversations; DPO's types make the same of a row.
    folder = ".dpo." if out.config.method.reads("orpo_loss") else ""
    for name in ("chosen", "rejected"):
        if names[name] != name:
            more[f"field_{name}"] = names[name]
    if source.reading == "raw" or source.plain_reading == "raw":
        fields = {f"field_{name}": names[name] for name in ("prompt", "chosen", "rejected")}
        if not folder:
            return {"type": fields}, ""
        why = "" if set(fields.values()) == _PAIR else "Its columns must be called prompt, chosen and rejected"
        return {"type": f"{folder}passthrough.default"}, why
    asked = "instruction" if "instruction" in columns else "messages" if "messages" in columns else ""
    asked = asked or ("prompt" if shape.keys and "messages" not in shape.keys else "messages")
    if names[asked] != "messages":
        more["field_messages"] = names[asked]
    whole = bool(shape.keys) and not {"prompt", "messages"} & set(shape.keys)
    word = "argilla_chat" if whole else "default"
    return {"type": f"{folder}chat_template.{word}", **more, **_turns(source, {})}, ""


def _rated(out: Outgoing, source: DataSource, columns: dict[str, str]) -> tuple[dict[str, Any], str]:
    fields = {f"field_{name}": columns.get(name, name) for name in ("prompt", "completion", "label")}
    if source.plain_reading == "raw" or source.reading == "raw":
        return {"type": fields}, ""
    prompt, answer = _CHATML[0], _CHATML[1] % "completion"
    why = "The prompt is written out in ChatML: change it to what the model's chat template writes"
    return {"type": {**fields, "prompt_format": prompt, "completion_format": answer}}, why
