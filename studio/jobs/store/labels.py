"""What a person says of a job after it was made: another name, tags, a note, and whether it is put away.

Kept in `labels.json` beside job.yaml, which never changes: a renamed job keeps its folder and id, so nothing that
refers to it breaks. Reading never fails, since a list must show every job; changing refuses a file that it would
destroy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.joblock import job_locked

NAME = "labels.json"
NAME_LENGTH, NOTE_LENGTH, TAG_LENGTH, TAG_COUNT = 80, 4000, 24, 12
_TAG = re.compile(r"[^\s,;+]+")


@dataclass(frozen=True)
class Labels:
    """Content of labels.json.

    Attributes:
        name: the name that is shown instead of the one in job.yaml; empty for that one.
        tags: short words, each once, in the order in which they were given.
        note: free text.
        archived: left out of the list until it is asked for.
    """

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False


def read_labels(folder: Path) -> Labels:
    """Read the labels of a job's folder; none where there are none, or where the file is not one of ours."""
    try:
        return _from_json(read_json(folder / NAME))
    except (OSError, TypeError, ValueError):
        return Labels()


def change_labels(
    folder: Path,
    *,
    name: str | None = None,
    tags: Iterable[str] | None = None,
    note: str | None = None,
    archived: bool | None = None,
) -> Labels:
    """Change some of a job's labels; None leaves one as it is.

    Args:
        folder: the job's folder.
        name: the shown name; empty for the one in job.yaml.
        tags: all of them.
        note: text; empty for none.
        archived: whether the list leaves it out.

    Raises:
        InputError: a value is too long or has characters that it cannot have, or labels.json cannot be read.
        GoneError: the job has been removed.
        HeldError: somebody keeps the lock of the labels.
    """
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = _checked_name(name)
    if tags is not None:
        changes["tags"] = _checked_tags(tags)
    if note is not None:
        changes["note"] = _checked_note(note)
    if archived is not None:
        changes["archived"] = archived
    # Two pages may change different labels of one job at the same time.
    with job_locked(folder, ".labels.lock", "the labels of this job cannot be changed now"):
        try:
            labels = _from_json(read_json(folder / NAME))
        except (OSError, TypeError, ValueError) as error:
            raise InputError(
                "the labels of this job cannot be read, so changing them would lose them",
                where=str(folder / NAME),
                fix="Fix or remove the file",
            ) from error
        labels = Labels(**{**asdict(labels), **changes})
        write_json(folder / NAME, asdict(labels))
    return labels


def changed_tags(tags: Iterable[str], changes: Iterable[str]) -> list[str]:
    """Apply `+good` and `-bad` to some tags; a word without a sign is added. `#good` is `good`, as lists show it.

    Raises:
        InputError: a tag is to be removed that is not there.
    """
    kept = list(tags)
    for change in changes:
        sign, word = (change[0], change[1:]) if change[:1] in ("+", "-") else ("+", change)
        word = word.removeprefix("#")
        found = [tag for tag in kept if tag.removeprefix("#").casefold() == word.casefold()]
        if sign == "-" and not found:
            shown = ", ".join(kept) or "none"
            raise InputError(f"there is no tag '{word}'", where="tags", fix=f"The job's tags: {shown}")
        if sign == "-":
            kept.remove(found[0])
        else:
            kept.append(word)
    return kept


def _from_json(raw: Any) -> Labels:
    if raw is None:
        return Labels()
    if not isinstance(raw, dict):
        raise TypeError(f"a {type(raw).__name__} instead of labels")
    known = {one.name for one in fields(Labels)}
    labels = Labels(**{key: value for key, value in raw.items() if key in known})
    if not isinstance(labels.name, str) or not isinstance(labels.note, str) or not isinstance(labels.archived, bool):
        raise TypeError("a label has another type")
    return Labels(labels.name, tuple(str(tag) for tag in labels.tags), labels.note, labels.archived)


def _checked_name(text: str) -> str:
    name = " ".join(text.split())
    if len(name) > NAME_LENGTH:
        raise InputError(f"the name has {len(name)} characters", where="name", fix=f"Use at most {NAME_LENGTH}")
    if not name.isprintable():
        raise InputError("the name has unprintable characters", where="name", fix="Use letters and digits")
    return name


def _checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    kept: dict[str, str] = {}
    for tag in tags:
        word = tag.strip().removeprefix("#")
        if not _TAG.fullmatch(word) or word.startswith("-") or not word.isprintable():
            raise InputError(
                f"'{word}' is not a tag",
                where="tags",
                fix="A tag is one word without spaces, commas, semicolons or plus signs",
            )
        if len(word) > TAG_LENGTH:
            raise InputError(f"the tag '{word}' is too long", where="tags", fix=f"Use at most {TAG_LENGTH} characters")
        kept.setdefault(word.casefold(), word)
    if len(kept) > TAG_COUNT:
        raise InputError(f"these are {len(kept)} tags", where="tags", fix=f"A job has at most {TAG_COUNT}")
    return tuple(kept.values())


def _checked_note(text: str) -> str:
    note = text.strip()
    if len(note) > NOTE_LENGTH:
        raise InputError(f"the note has {len(note)} characters", where="note", fix=f"Use at most {NOTE_LENGTH}")
    return note
