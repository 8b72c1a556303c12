"""Datasets of a LLaMA-Factory config: names in dataset_info.json, sets of the Hub, their rows and their mixture."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from studio.data.files.hubsets import HubSet, is_set_name
from studio.data.files.rowindex import row_index
from studio.data.sources.datasetinfo import FILE_NAME, read_entry
from studio.errors import StudioError
from studio.interop.draft import Draft
from studio.interop.report import Status
from studio.interop.values import number, one_of, text, whole
from studio.settings import read_settings

_FOLDER = "data"  # where LLaMA-Factory looks if nothing is said, from where it is started
_ABOVE = 3  # folders above the config in which that one may lie: examples/train_lora/run.yaml
_MIXES = {
    "concat": ("concatenate", "first_exhausted"),
    "interleave_under": ("interleave", "first_exhausted"),
    "interleave_over": ("interleave", "all_exhausted"),
    "interleave_once": ("concatenate", "first_exhausted"),
}
# A larger file is not counted for an import.
_COUNTED_BYTES = 200_000_000


def read_datasets(draft: Draft) -> None:
    """Say what becomes of the datasets: sources, their rows and weights, and what is held out."""
    info, online = _info(draft)
    names, rows = draft.get("dataset", _names, []), draft.get("max_samples", whole)
    sources: list[dict[str, Any]] = []
    wrong: list[str] = []
    for name in names:
        source, why = _source(name, info, online)
        sources.append(source)
        wrong += [why] if why else []
    fewer = _limit_rows(draft, sources, rows, info)
    weights = _mix(draft, len(sources))
    if weights:
        sources = [{**source, "weight": weight} for source, weight in zip(sources, weights, strict=True)]
    if sources:
        draft.set("data.train", sources, "dataset")
        where = f"{FILE_NAME} of {info.parent}" if info is not None else f"{_FOLDER}/{FILE_NAME}"
        status: Status = "refused" if wrong else "mapped" if info is not None or online else "approximated"
        found = "" if online else f"Named in {where}"
        if info is None and not online:
            found = f"There is no {FILE_NAME} beside the config: put it at {sources[0]['path'].rpartition(':')[0]}"
        draft.say("dataset", status, "data.train", "; ".join(wrong) or found)
    else:
        draft.say("dataset", "refused", "data.train", "No dataset is named: set data.train")
    if rows is not None:
        why = "The first rows are taken there; here they are drawn with the run's seed"
        none = "No set has more rows than that"
        draft.say(
            "max_samples", "ignored" if fewer else "approximated", "" if fewer else "data.train", none if fewer else why
        )
    if draft.has("dataset_dir"):
        draft.say("dataset_dir", "mapped", "data.train")
    draft.set("data.truncation", "cut", "cutoff_len")
    _validation(draft, info, online, rows, len(names))


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ValueError("names with commas between them are needed")
    return [text(part) for part in parts if str(part).strip()]


def _info(draft: Draft) -> tuple[Path | None, bool]:
    """The dataset_info.json that the config means, where it can be seen, and whether names are Hub ids."""
    folder = draft.get("dataset_dir", text, _FOLDER)
    if folder.upper() == "ONLINE":
        return None, True
    if folder.upper().startswith("REMOTE:") or draft.given.folder is None:
        return None, False
    base = draft.given.folder
    places = [base / folder, *(above / folder for above in list(base.parents)[:_ABOVE]), Path.cwd() / folder]
    if not draft.has("dataset_dir"):
        places.insert(1, base)
    for place in places:
        with contextlib.suppress(OSError):
            if (place / FILE_NAME).is_file():
                return (place / FILE_NAME).resolve(), False
    return None, False


def _source(name: str, info: Path | None, online: bool) -> tuple[dict[str, Any], str]:
    """The source of a name, and why it cannot be read; "" where it can, or where that is not known yet."""
    if online:
        why = "" if is_set_name(name) else f"'{name}' is no Hub id, such as org/name"
        return {"path": name}, why
    if info is None:
        return {"path": f"{_FOLDER}/{FILE_NAME}:{name}"}, ""
    path = f"{info}:{name}"
    try:
        read_entry(info, name)
    except StudioError as error:
        return {"path": path}, error.sentence.rstrip(".")
    return {"path": path}, ""


def _limit_rows(draft: Draft, sources: list[dict[str, Any]], rows: int | None, info: Path | None) -> bool:
    """Give each source its limit, but where it has no more rows anyway; returns whether none needs one."""
    if rows is None:
        return False
    limited = False
    for source in sources:
        count = _count(info, source["path"].rpartition(":")[2]) if info is not None else None
        if count is None or count > rows:
            source["rows"] = rows
            limited = True
    return not limited


def _count(info: Path, name: str) -> int | None:
    """Rows of a set, where it is a file that is here and not large."""
    with contextlib.suppress(StudioError, OSError, ValueError):
        entry = read_entry(info, name)
        if entry.num_samples is not None:
            return entry.num_samples
        file = None if isinstance(entry.source, HubSet) else entry.source
        if file is not None and file.is_file() and file.stat().st_size < _COUNTED_BYTES:
            return row_index(file, read_settings()).count
    return None


def _mix(draft: Draft, count: int) -> list[float]:
    """How several sets are combined; returns their weights, none where there are none."""
    strategy = draft.get("mix_strategy", one_of({word: word for word in _MIXES}), "concat")
    mix, stopping = _MIXES[strategy]
    if draft.has("mix_strategy"):
        once = strategy == "interleave_once"
        why = "Each row once there, in turn; here each row once, shuffled" if once else ""
        draft.map("mix_strategy", "data.mix", mix, why, "approximated" if once else "mapped")
        draft.set("data.stopping_strategy", stopping, "mix_strategy")
    if not draft.has("interleave_probs"):
        return []
    probabilities = draft.get("interleave_probs", lambda value: [number(one) for one in _names(value)])
    if mix == "concatenate" or len(probabilities) != count:
        why = (
            "Only interleaved sets have weights"
            if mix == "concatenate"
            else f"{count} sets, {len(probabilities)} numbers"
        )
        draft.say("interleave_probs", "refused", "data.train", why)
        return []
    draft.say("interleave_probs", "mapped", "data.train", "The weight of each set")
    return [float(one) for one in probabilities]


def _validation(draft: Draft, info: Path | None, online: bool, rows: int | None, sets: int) -> None:
    """What is held out: nothing, a share, or sets of their own."""
    names, size = draft.get("eval_dataset", _names, []), draft.get("val_size", number, 0)
    if names:
        source, why = _source(names[0], info, online)
        more = f"Only the first of {len(names)} sets" if len(names) > 1 else ""
        status: Status = "refused" if why else "approximated" if more else "mapped"
        draft.map("eval_dataset", "data.validation", source["path"], why or more, status)
    elif 0 < size < 1:
        why = "The same share; which rows they are depends on the seed of each tool"
        draft.map("val_size", "data.validation", size, why)
    elif size >= 1:
        known = rows is not None and rows * sets > size
        share = round(size / (rows * sets), 4) if known and rows else 0.1
        why = f"A number of rows there, a share here: {share:g} is written" + ("" if known else "; change it")
        draft.map("val_size", "data.validation", share, why, "approximated")
    else:
        draft.set("data.validation", 0, "val_size")
    if draft.has("val_size") and (names or size <= 0):
        draft.say(
            "val_size", "ignored", why="With this value nothing is held out" if size <= 0 else "eval_dataset is given"
        )
