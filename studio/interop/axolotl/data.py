"""Section `data` of an Axolotl config: its sets, the validation rows, the chat template."""

from __future__ import annotations

from typing import Any

from studio.interop.axolotl.datasets import Entry
from studio.interop.sheets.sheet import Sheet
from studio.interop.sheets.splits import HeldOut, held_out

# Templates of theirs that are one of the studio's; the others are a model family's own, which its tokenizer brings.
_TEMPLATES = {
    "chatml": "chatml", "llama3": "llama3", "gemma": "gemma", "phi_3": "phi", "phi_35": "phi", "mistral_v1": "mistral",
    "mistral_v2v3": "mistral",
}  # fmt: skip
_OWN = ("tokenizer_default", "auto")


def read_sets(sheet: Sheet) -> list[Entry]:
    """Read `datasets` or `pretraining_dataset`, and return them.

    Raises:
        InputError: there is none, or one is no mapping.
    """
    rl = sheet.text("rl") or ("reward" if sheet.raw("reward_model") else "")
    found = []
    for key in ("datasets", "pretraining_dataset"):
        sets = sheet.raw(key)
        if sets is None:
            continue
        found += [_entry(sheet, key, at, one, rl) for at, one in enumerate(sets if isinstance(sets, list) else [sets])]
        if found:
            sheet.tell(key, "mapped", "data.train", "its entries follow")
    if not found:
        raise sheet.error("datasets", "no data is named", "Add datasets with a path and a type")
    sheet.set("data.train", [entry.source for entry in found], "datasets")
    if (kept := sheet.flag("shuffle_merged_datasets")) is not None:
        sheet.ignored("shuffle_merged_datasets", "rows are shuffled in each epoch" if kept else
                      "rows are shuffled in each epoch, and there, too")  # fmt: skip
    if sheet.flag("curriculum_sampling"):
        sheet.mapped("curriculum_sampling", "data.shuffle", False)
    elif sheet.has("curriculum_sampling"):
        sheet.ignored("curriculum_sampling", "it is off")
    if (once := sheet.flag("dataset_exact_deduplication")) is not None:
        sheet.mapped("dataset_exact_deduplication", "data.deduplicate", "exact" if once else "none")
    if system := sheet.text("default_system_message"):
        sheet.mapped("default_system_message", "data.system", system)
    if (joined := sheet.flag("pretraining_sample_concatenation")) is not None:
        why = "" if joined else "texts are joined all the same; method.documents separate keeps them apart"
        sheet.tell("pretraining_sample_concatenation", "mapped" if joined else "approximated", "method.documents", why)
    return found


def _entry(sheet: Sheet, key: str, at: int, value: Any, rl: str) -> Entry:
    if isinstance(value, str):
        value = {"path": value}
    if not isinstance(value, dict):
        raise sheet.error(key, "each set is a mapping with a path and a type")
    part = sheet.part({str(name): one for name, one in value.items()}, f"{key}[{at}].")
    if key == "pretraining_dataset" and part.raw("type") is None:
        part.given.values["type"] = "pretrain"
        part.given.values.setdefault("text_column", "text")
    entry = Entry(part, rl)
    entry.read()
    return entry


def read_validation(sheet: Sheet) -> None:
    """Read the share of the rows that is held out, or the set of its own."""
    tests = sheet.raw("test_datasets")
    size = sheet.number("val_set_size")
    if tests:
        entries = tests if isinstance(tests, list) else [tests]
        first = entries[0] if isinstance(entries[0], dict) else {}
        path = first.get("path")
        files = first.get("data_files")
        if path in ("json", "csv", "parquet", "text") and files:
            path = files[0] if isinstance(files, list) else files
        if not isinstance(path, str) or not path:
            raise sheet.error("test_datasets", "a set of data needs a path")
        test = held_out(str(first["split"]), path, sheet.value("data.train")) if first.get("split") else HeldOut(path)
        if test.split:
            sheet.set("data.validation_split", test.split, "test_datasets")
        parts = [f"one of {len(entries)} sets can be used"] if len(entries) > 1 else []
        parts += [test.why] if test.why else []
        parts += ["it is read with the columns of the first training set"] if test.validation == path else []
        status = "approximated" if len(entries) > 1 and test.status == "mapped" else test.status
        sheet.set("data.validation", test.validation, "test_datasets")
        sheet.tell("test_datasets", status, "data.validation", ", and ".join(parts))
        sheet.ignored("val_set_size", "test_datasets has the validation rows")
    elif size is None:
        sheet.default("val_set_size", "data.validation", 0.0)
    elif 0 <= size < 1:
        sheet.mapped("val_set_size", "data.validation", float(size))
    elif size >= 1:
        why = f"{size:g} rows; how many there are is known with the data only, so a share of them is held out"
        sheet.approximated("val_set_size", "data.validation", 0.1, why)
    else:
        raise sheet.error("val_set_size", "a share from 0 to 1, or a number of rows is needed")


def read_template(sheet: Sheet, entries: list[Entry]) -> None:
    """Read the chat template, which one set may say too."""
    named = sheet.text("chat_template")
    wanted = next((entry.template for entry in entries if entry.template), "")
    chosen = named or wanted
    if sheet.has("eot_tokens"):
        sheet.ignored("eot_tokens", "the end of a turn is found by the chat template itself")
    if not chosen:
        return
    key = "chat_template"
    fallback = chosen.removeprefix("tokenizer_default_fallback_")
    if chosen in _OWN or all(entry.kind in ("raw", "text") for entry in entries):
        why = "" if chosen in _OWN else "no set of data is a conversation; the model's own is used in chat"
        sheet.mapped(key, "data.template", "auto", why)
    elif fallback != chosen:
        sheet.approximated(key, "data.template", "auto", f"the model's own; set it to {fallback} where it has none")
    elif chosen in _TEMPLATES:
        sheet.mapped(key, "data.template", _TEMPLATES[chosen])
    elif chosen == "jinja":
        sheet.refused(key, "save the template with the model's tokenizer; data.template auto then uses it")
    else:
        why = f"the model's own template, which for a model of that family is {chosen}"
        sheet.approximated(key, "data.template", "auto", why)
