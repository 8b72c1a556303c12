"""What is wrong or doubtful with rows before anything is sent, and what training on them will cost.

A problem is what the service would refuse after the upload; a warning is what costs money for nothing, or gives
something away. All are found in one pass, with their rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.config.remote import KINDS, OpenAIConfig, RemoteMethod
from studio.data.formats.answers import Example
from studio.data.prepare.duplicates import fingerprint
from studio.data.quality.secrets import find_secrets
from studio.remote.rows import Row, Sent, as_line, prompt_of
from studio.remote.table import Table
from studio.remote.tokens import AN_IMAGE, Tokens, images_of

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
IMAGES = ("data:image/jpeg", "data:image/jpg", "data:image/png", "data:image/webp")
_SHOWN = 5


@dataclass
class Findings:
    """What was found in one file.

    Attributes:
        lines: those rows that can be sent, as lines of the file to send: a fraction of the rows' own memory.
        counts: tokens of each of them.
        longest: tokens of the longest, and its number.
        problems: (row, sentence) of what the service would refuse.
        doubles: rows that repeat an earlier one.
        secrets: (row, kind, masked form).
        systems: how many rows have each system prompt, None counting those without one.
        unused: how many rows have each key that is not sent.
        images: how many there are.
        prints: of all rows, to compare files.
    """

    lines: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    longest: tuple[int, int] = (0, 0)
    problems: list[tuple[int, str]] = field(default_factory=list)
    doubles: list[int] = field(default_factory=list)
    secrets: list[tuple[int, str, str]] = field(default_factory=list)
    systems: Counter[str | None] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    images: int = 0
    prints: set[bytes] = field(default_factory=set)


def look_at(rows: Iterable[Sent], config: OpenAIConfig, table: Table, tokens: Tokens) -> Findings:
    """Check each row of a file.

    Args:
        rows: of `rows.rows_of`.
        config: what is asked for.
        table: for the longest example of the model.
        tokens: counts or estimates.
    """
    found = Findings()
    known = table.model(config.name)
    most = known.example_tokens if known else None
    for sent in rows:
        found.unused.update(sent.unused)
        if sent.error is not None:
            found.problems.append((sent.number, f"{sent.error.what.rstrip('.')}"))
            continue
        wrong = wrong_with(sent.row, config.method)
        if wrong:
            found.problems.append((sent.number, wrong))
            continue
        found.lines.append(as_line(sent.row))
        count = tokens.row(sent.row)
        found.counts.append(count)
        found.longest = max(found.longest, (count, sent.number))
        if most is not None and count > most and tokens.exact:
            found.problems.append((sent.number, f"it has {count:,} tokens, and the limit of {config.name} is {most:,}"))
        messages = prompt_of(sent.row)["messages"]
        images = [image for message in messages for image in images_of(message)]
        found.images += len(images)
        if wrong := _images(images, table):
            found.problems.append((sent.number, wrong))
        first = messages[0] if messages[0]["role"] in ("system", "developer") else None
        found.systems[None if first is None else _text(first.get("content"))] += 1
        found.secrets += [(sent.number, *one) for text in _texts(sent.row) for one in find_secrets(text)]
        mark = fingerprint(Example(0, "", "messages", text=_text(sent.row)))
        if mark in found.prints:
            found.doubles.append(sent.number)
        found.prints.add(mark)
    return found


def wrong_with(row: Row, method: RemoteMethod) -> str:
    """Return why the service would refuse a row; "" where it would not.

    Args:
        row: in the service's format.
        method: supervised, dpo or reinforcement.
    """
    asked = row.get("input") if KINDS[method] == "pairs" else row
    if not isinstance(asked, dict):
        return "'input' is not a mapping with messages"
    messages = asked.get("messages")
    if wrong := _messages(messages, "messages"):
        return wrong
    if wrong := _tools(asked.get("tools")):
        return wrong
    assert isinstance(messages, list)
    if method == "supervised":
        answers = [one for one in messages if one["role"] == "assistant"]
        if messages[-1]["role"] != "assistant":
            return f"the last message is from {messages[-1]['role']}, so there is no answer to learn"
        if all(one.get("weight") == 0 for one in answers):
            return "every answer has the weight 0, so there is nothing to learn"
        return ""
    if messages[-1]["role"] == "assistant":
        return "the prompt ends with an answer"
    if KINDS[method] == "pairs":
        for key in ("preferred_output", "non_preferred_output"):
            if wrong := _messages(row.get(key), key):
                return wrong
            if [one["role"] for one in row[key]] != ["assistant"]:
                return f"'{key}' must be one message from the assistant"
        if row["preferred_output"] == row["non_preferred_output"]:
            return "both answers are the same"
    return ""


def _messages(messages: Any, key: str) -> str:
    if not isinstance(messages, list) or not messages:
        return f"'{key}' is not a list of messages"
    calls: set[str] = set()
    for at, message in enumerate(messages, 1):
        where = f"message {at} of '{key}'"
        if not isinstance(message, dict):
            return f"{where} is not a mapping"
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return f"{where} has the role {json.dumps(role)}, which is none of {', '.join(ROLES)}"
        weight = message.get("weight", 1)
        if ("weight" in message and role != "assistant") or weight not in (0, 1) or isinstance(weight, bool):
            return f"{where} has the weight {json.dumps(weight)}; only answers have one, and it is 0 or 1"
        has_call = bool(message.get("tool_calls") or message.get("function_call"))
        if not isinstance(content, str | list) and not (role == "assistant" and has_call):
            return f"{where} has no content"
        if not content and not has_call:
            return f"{where} is empty"
        if isinstance(content, list) and (wrong := _parts(content, role, where)):
            return wrong
        made = message.get("tool_calls") or []
        if not isinstance(made, list):
            return f"{where} has tool calls that are not a list"
        for call in made:
            function = call.get("function") if isinstance(call, dict) else None
            texts = [function.get("name"), function.get("arguments")] if isinstance(function, dict) else [None]
            if not all(isinstance(one, str) for one in texts):
                return f"{where} has a tool call without a function, its name and its arguments as text"
            if not isinstance(call.get("id"), str) or call.get("type") != "function":
                return f"{where} has a tool call without an id and the type function"
            calls.add(call["id"])
        if role == "tool" and message.get("tool_call_id") not in calls:
            return f"{where} answers the tool call {json.dumps(message.get('tool_call_id'))}, which was never made"
    return ""


def _parts(parts: list[Any], role: str, where: str) -> str:
    """Why the service would refuse a content of several parts."""
    for at, part in enumerate(parts, 1):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        if kind == "refusal" and role == "assistant":
            continue
        if kind != "image_url":
            return f"part {at} of {where} is neither a text nor an image (its type is {json.dumps(kind)})"
        if role != "user":
            return f"part {at} of {where} is an image, and only messages from user may have one"
        if not isinstance(part["image_url"], dict) or not isinstance(part["image_url"].get("url"), str):
            return f"part {at} of {where} is an image without an image_url that has a url"
    return ""


def _images(images: list[Row], table: Table) -> str:
    """Why the service would refuse an example for its images."""
    most, most_bytes = table.images.get("most"), table.images.get("bytes")
    if most is not None and len(images) > most:
        return f"it has {len(images)} images, and {most} is the most"
    for at, image in enumerate(images, 1):
        head, comma, data = image["url"].partition(",")
        if not head.startswith("data:") or not comma:
            continue
        if not head.startswith(IMAGES):
            return f"image {at} is none of {', '.join(one.removeprefix('data:image/') for one in IMAGES)}"
        if most_bytes is not None and len(data) * 3 // 4 > most_bytes:
            return f"image {at} has {len(data) * 3 / 4e6:,.1f} MB, and {most_bytes / 1e6:,.0f} MB is the most"
    return ""


def _tools(tools: Any) -> str:
    if tools is None:
        return ""
    if not isinstance(tools, list):
        return "'tools' is not a list"
    for at, tool in enumerate(tools, 1):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function" or not function.get("name"):
            return f"tool {at} is not a function with a name"
    return ""


def warnings_of(found: Findings, held: Findings | None, table: Table, tokens: Tokens, path: Path) -> list[str]:
    """What is doubtful about the rows, as sentences without their full stops.

    Args:
        found: of the training rows.
        held: of the validation rows; None for none.
        table: for how many examples are advised.
        tokens: whether they were counted.
        path: of the training rows, named in the sentences.
    """
    said = []
    if table.least <= len(found.lines) < table.advised:
        said.append(f"{len(found.lines)} rows are few: {table.advised} or more are advised")
    if len(found.systems) > 1:
        usual, count = found.systems.most_common(1)[0]
        named = "no system prompt" if usual is None else f"'{usual[:60]}'"
        said.append(f"the rows have {len(found.systems)} different system prompts ({count} have {named}): "
                    f"the model answers best with the one that it was tuned with")  # fmt: skip
    if found.doubles:
        said.append(f"{len(found.doubles)} rows repeat an earlier one ({_numbers(found.doubles)}), and each is billed")
    if held is not None and (both := len(found.prints & held.prints)):
        said.append(
            f"{both} rows are in the training and the validation rows, so the validation loss is too optimistic"
        )
    if found.images:
        said.append(
            f"{found.images:,} images are priced as if each were one of usual size, which is {AN_IMAGE} tokens: OpenAI "
            f"counts them by their size, and leaves out those that its policy excludes, such as people"
        )
    secrets = [*found.secrets, *(held.secrets if held else [])]
    if secrets:
        shown = ", ".join(f"row {row}: {kind} {masked}" for row, kind, masked in secrets[:_SHOWN])
        said.append(f"{len(secrets)} texts look like keys or addresses, and would be sent ({shown})")
    if found.unused:
        keys = ", ".join(f"{key} ({count})" for key, count in found.unused.most_common(_SHOWN))
        said.append(f"keys that are not sent, with their rows: {keys}")
    return said


def _numbers(rows: list[int]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return "row" + "s" * (len(rows) > 1) + " " + ", ".join(map(str, rows[:_SHOWN])) + more


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        if not value.startswith(IMAGES):
            yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
