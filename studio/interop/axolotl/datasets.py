"""The sets of data of an Axolotl config: where their rows are, and what is asked and answered in a row.

Axolotl's `type` says which prompt is made of a row, and with it which tokens are trained. The same rows are read the
same way here: turns as a conversation, its fixed prompts as lines over the columns.
"""

from __future__ import annotations

from typing import Any

from studio.data.formats.conversations import SYNONYMS
from studio.interop.axolotl.prompts import columns_of, formatted, user_columns
from studio.interop.sheets.sheet import Sheet
from studio.interop.sheets.splits import split_of

# `path` of these names a format, and `data_files` the file.
_LOADERS = ("json", "csv", "parquet", "arrow", "text")
_ADDRESSES = ("s3://", "gs://", "gcs://", "az://", "abfs://", "adl://", "oci://", "http://", "https://")
_REASONING = ("reasoning_content", "thinking", "reasoning")
# Of pairs and rated answers: type without its template, and the columns that it takes.
_PAIR_COLUMNS: dict[str, dict[str, str]] = {
    "intel": {"prompt": "question"}, "icr": {"prompt": "input"}, "argilla": {"prompt": "instruction"},
    "prompt_pairs": {}, "ultra": {}, "argilla_chat": {}, "default": {}, "passthrough": {},
}  # fmt: skip
_TEMPLATES = ("chatml", "llama3")
_CODE = "it names Python code that makes the rows; it is not run, so the rows are read as they are"
# Keys of a set with which the same rows are read all the same.
ENTRY_IGNORED: dict[str, str] = {
    "ds_type": "the file itself says what it is",
    "trust_remote_code": "code of a data set is never run",
    "conversation": "a key of a format that is gone",
    "input_format": "a key of a format that is gone",
    "preprocess_shards": "how the rows are prepared, which changes none of them",
    "template_thinking_key": "the chat template writes the reasoning where it has a place for it",
    "field_tools": "the column tools is read",
    "field_human": "a key of a format that is gone",
    "field_model": "a key of a format that is gone",
    "logprobs_field": "distillation from a teacher's probabilities is not supported",
    "temperature": "distillation from a teacher's probabilities is not supported",
}
ENTRY_REFUSED: dict[str, str] = {
    "input_transform": _CODE,
    "shards": "a share of the rows cannot be chosen by number; rows takes so many",
    "shards_idx": "a share of the rows cannot be chosen by number; rows takes so many",
    "message_field_training": "a turn that is not learned has weight 0 here; rename the key in the data",
    "message_field_training_detail": "parts of an answer cannot be left out",
    "split_thinking": "reasoning inside of the answer stays there",
    "chat_template_jinja": "save the template with the model's tokenizer",
    "step_separator": "a reward for each step is not supported",
    "max_completion_length": "a reward for each step is not supported",
    "train_on_last_step_only": "a reward for each step is not supported",
    "skip": "the first rows cannot be left out",
    "length": "rows of random tokens are not made",
    "sequence_length": "rows of random tokens are not made",
    "min_input_id": "rows of random tokens are not made",
    "max_input_id": "rows of random tokens are not made",
    "seed": "rows of random tokens are not made",
}
ENTRY_KEYS = frozenset({
    "path", "type", "name", "split", "revision", "data_files", "field", "text_column", "field_messages", "field_chosen",
    "field_rejected", "field_thinking", "message_field_role", "message_field_content", "message_property_mappings",
    "roles", "roles_to_train", "train_on_eos", "train_on_eot", "drop_system_message", "chat_template", *ENTRY_IGNORED,
    *ENTRY_REFUSED,
})  # fmt: skip


class Entry:
    """One set.

    Args:
        sheet: of its mapping.
        rl: whether the config has `rl` or a reward model, which read other fields.

    Attributes:
        source: the set as `data.train` has it.
        kind: "text", "chat", "raw" (a prompt of its own), "pairs" or "".
        template: of the studio, where the type says one; else "".
    """

    def __init__(self, sheet: Sheet, rl: str) -> None:
        self.sheet, self.rl = sheet, rl
        self.source: dict[str, Any] = {}
        self.columns: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.kind = self.template = ""

    def read(self) -> None:
        """Read the whole mapping.

        Raises:
            InputError: it names no path, or a value is not what its key needs.
        """
        self._where()
        self._type()
        if self.columns:
            self.source["columns"] = self.columns
        if self.tags:
            self.source["tags"] = self.tags
        self.sheet.rest({"ignored": ENTRY_IGNORED, "refused": ENTRY_REFUSED}, ENTRY_KEYS)

    def _where(self) -> None:
        sheet = self.sheet
        path, files = sheet.text("path"), sheet.words("data_files")
        if not path:
            raise sheet.error("path", "a set of data needs a path", "Add path with a file or a Hub id")
        if path.startswith(_ADDRESSES):
            sheet.refused("path", "the data is at an address: download it, and name the file")
        else:
            sheet.tell("path", "mapped", "data.train")
        self.source["path"] = path
        if files and path in _LOADERS:
            self.source["path"] = files[0]
            if len(files) > 1:
                sheet.refused("data_files", f"one file of {len(files)} is taken; name the others as sets of their own")
            else:
                sheet.tell("data_files", "mapped", "data.train")
        elif files:
            sheet.refused("data_files", "files of a set cannot be chosen; subset and split can")
        for key, ours in (("name", "subset"), ("revision", "revision")):
            if value := sheet.text(key):
                self.source[ours] = value
                sheet.tell(key, "mapped", "data.train")
        self._split()

    def _split(self) -> None:
        split = self.sheet.text("split")
        if not split:
            return
        found = split_of(split)
        self.source |= found.of_set()
        self.sheet.tell("split", found.status, "data.train", found.why)

    # ---- what a row means

    def _type(self) -> None:
        given = self.sheet.raw("type")
        if isinstance(given, dict):
            self._written_out({str(key): str(value) for key, value in given.items()})
            return
        kind = self.sheet.text("type") or ""
        if self.rl:
            self._pairs(kind)
        elif kind.startswith(("chat_template", "sharegpt")) or kind in ("messages", "chat_template.default"):
            self._chat(kind)
        elif kind in ("completion", "pretrain"):
            column = self.sheet.text("text_column") or self.sheet.text("field") or "text"
            self.kind = "text"
            self.source["format"] = "text"
            self._map("text", column)
            for key in ("field", "text_column"):
                self.sheet.tell(key, "mapped", "data.train")
            why = "a text over the limit goes on in the next example, and short ones share one"
            self.sheet.tell("type", "approximated", "method.documents", why)
        elif (columns := columns_of(kind)) is not None:
            self._raw(columns)
            why = "the same fixed prompt, without the model's chat template: in chat the model is then asked otherwise"
            self.sheet.tell("type", "mapped", "data.train", why)
        elif kind == "input_output":
            self.sheet.refused("type", "segments with labels of their own: write them as prompt and completion")
        elif kind:
            self.sheet.refused("type", _CODE if "." in kind else f"{kind:.40} is a prompt that the studio has not")
        else:
            self.sheet.refused("type", "rows that are tokens already are not read")

    def _raw(self, columns: dict[str, str]) -> None:
        self.kind = "raw"
        self.columns |= columns
        self.source |= {"format": "prompt_completion", "reading": "raw"}

    def _written_out(self, given: dict[str, str]) -> None:
        fields = {key: value for key, value in given.items() if key.startswith("field_")}
        if self.rl and {"field_chosen", "field_rejected", "chosen_format", "prompt_format", "field_completion"} & set(
            given
        ):
            self.kind = "pairs"
            self.source["reading"] = "raw"
            for name in ("prompt", "chosen", "rejected", "completion", "label"):
                if f"field_{name}" in given or f"{name}_format" in given:
                    names = {name: fields.get(f"field_{name}", name), "system": fields.get("field_system", "system")}
                    self._map(name, formatted(given.get(f"{name}_format", f"{{{name}}}"), names))
            self.sheet.tell("type", "mapped", "data.train")
            return
        self._raw(user_columns(given))
        self.sheet.tell("type", "mapped", "data.train")

    def _chat(self, kind: str) -> None:
        sheet = self.sheet
        self.kind = "chat"
        self.source["format"] = "messages"
        shared = kind.startswith("sharegpt")
        column = sheet.text("field_messages") or ("conversations" if shared else "messages")
        self._map("messages", column)
        sheet.tell("field_messages", "mapped", "data.train")
        why = "a type that Axolotl refuses by now; read as turns with from and value" if shared else ""
        sheet.tell("type", "mapped", "data.train", why)
        self._names()
        self._roles()
        self._trained()

    def _names(self) -> None:
        sheet = self.sheet
        mapping = {str(key): str(value) for key, value in sheet.mapping("message_property_mappings").items()}
        for ours in ("role", "content"):
            old = f"message_field_{ours}"
            name = mapping.pop(ours, None) or sheet.text(old)
            if name and name != ours:
                self.tags[ours] = name
            sheet.tell(old, "mapped", "data.train")
        thinking = sheet.text("field_thinking") or mapping.pop("reasoning_content", None) or "reasoning_content"
        mapping.pop("tool_calls", None)
        if sheet.has("field_thinking"):
            known = thinking in _REASONING
            sheet.tell("field_thinking", "mapped" if known else "refused", "data.train" if known else "",
                       "" if known else f"reasoning is read from {', '.join(_REASONING)}")  # fmt: skip
        if sheet.has("message_property_mappings"):
            left = [f"{key}: {value}" for key, value in mapping.items() if key != value]
            if left:
                sheet.refused("message_property_mappings", f"{', '.join(left):.80} has no place in a turn here")
            else:
                sheet.tell("message_property_mappings", "mapped", "data.train")

    def _roles(self) -> None:
        sheet = self.sheet
        missing = []
        for role, words in sheet.mapping("roles").items():
            names = [str(one) for one in words] if isinstance(words, list) else [str(words)]
            own = "observation" if role == "tool" else role
            odd = [name for name in names if SYNONYMS.get(name.lower()) != role]
            if own not in ("user", "assistant", "system", "observation"):
                missing.append(role)
            elif odd:
                self.tags[own] = odd[0]
                missing += odd[1:]
        if missing:
            sheet.refused("roles", f"one word for each role: {', '.join(missing):.80} is not read")
        elif sheet.has("roles"):
            sheet.tell("roles", "mapped", "data.train")
        if sheet.has("drop_system_message"):
            drops = sheet.flag("drop_system_message")
            sheet.tell("drop_system_message", "refused" if drops else "ignored", "",
                       "system messages stay; remove them from the data" if drops else "it is off")  # fmt: skip

    def _trained(self) -> None:
        """Which turns count. The end of an answer's turn always does, since the model has to learn to stop."""
        sheet = self.sheet
        trained = sheet.words("roles_to_train")
        if sheet.has("roles_to_train"):
            own = {SYNONYMS.get(role.lower(), role) for role in trained or []}
            if own == {"assistant"}:
                sheet.tell("roles_to_train", "mapped", "method.train_on")
            elif "assistant" in own:
                why = "whole conversations count then, with what the template writes between the turns"
                sheet.approximated("roles_to_train", "method.train_on", "all", why)
            else:
                sheet.refused("roles_to_train", "answers are always learned; a weight of 0 takes one out")
        for key in ("train_on_eos", "train_on_eot"):
            word = sheet.word(key)
            if word == "none":
                sheet.refused(key, "the end of each answer counts, or the model would not learn to stop")
            elif word == "turn":
                sheet.tell(key, "mapped", "method.train_on", "the end of each answer counts")
            elif word is not None:
                sheet.tell(key, "approximated", "method.train_on", "the end of each answer counts, and no other")
        if template := sheet.text("chat_template"):
            sheet.tell("chat_template", "mapped", "data.template")
            self.template = template

    # ---- pairs, ratings, prompts

    def _pairs(self, kind: str) -> None:
        sheet = self.sheet
        kind = kind.removeprefix(".dpo.")  # the types of DPO, which other methods name so
        base, _, word = kind.partition(".")
        if base == "chat_template" or kind.startswith("bradley_terry"):
            self.kind = "pairs"
            if kind.startswith("bradley_terry"):
                # The question is in a column of its own there, with a system text beside it.
                self._map("instruction", "input")
            elif word != "argilla" and word != "argilla_chat":
                self._map("messages", sheet.text("field_messages") or "messages")
            for key, ours in (("field_chosen", "chosen"), ("field_rejected", "rejected")):
                self._map(ours, sheet.text(key) or ours)
                sheet.tell(key, "mapped", "data.train")
            sheet.tell("field_messages", "mapped", "data.train")
            sheet.tell("type", "mapped", "data.train")
            self._names()
            self._roles()
        elif base in _TEMPLATES and word in _PAIR_COLUMNS:
            self.kind, self.template = "pairs", base
            self.source["reading"] = "conversation"
            for ours, column in _PAIR_COLUMNS[word].items():
                self._map(ours, column)
            why = f"a conversation in the template {base}, as it is written out there"
            sheet.tell("type", "mapped", "data.template", why)
        elif kind.startswith("passthrough"):
            self.kind = "pairs"
            self.source["reading"] = "raw"
            sheet.tell("type", "mapped", "data.train")
        else:
            sheet.refused("type", _CODE if "." in kind or not kind else f"{kind:.40} makes no pairs here")
        if template := sheet.text("chat_template"):
            sheet.tell("chat_template", "mapped", "data.template")
            self.template = template

    def _map(self, role: str, column: str) -> None:
        if column != role:
            self.columns[role] = column
