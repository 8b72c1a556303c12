"""A config of LLaMA-Factory as a run, or as an export where it only merges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.errors import InputError
from studio.foreign import as_path
from studio.interop.command import Command
from studio.interop.draft import Draft
from studio.interop.llama_factory.datasets import read_datasets
from studio.interop.llama_factory.deepspeed import read_deepspeed
from studio.interop.llama_factory.keys import KEYS, NAMES, TITLE
from studio.interop.llama_factory.methods import read_method, read_tuning
from studio.interop.llama_factory.templates import read_template
from studio.interop.reading import Given, read_file
from studio.interop.report import Imported
from studio.interop.rules import nearest
from studio.interop.training_arguments import batch
from studio.interop.values import flag, number, text, whole

_CONFIGS = (".yaml", ".yml", ".json")
_TRAINS = ("stage", "do_train", "finetuning_type", "dataset", "learning_rate", "per_device_train_batch_size")
_ABOVE = 4
_DEVICES = "CUDA_VISIBLE_DEVICES"


def read_config(given: Given) -> Imported:
    """Return a YAML or JSON config, or a command line, as a run with what became of each key.

    Raises:
        InputError: a value cannot be read, or it neither trains nor exports.
    """
    whole_config = _with_file(given)
    draft = Draft(whole_config, TITLE)
    trains = any(draft.has(key) for key in _TRAINS) and not _only_predicts(draft)
    if given.command is not None and "export" in given.command.words:
        trains = False
    if not trains and not draft.has("export_dir"):
        raise InputError(
            "this config neither trains nor exports", where=given.where,
            fix="Chat with a model in the Chat tab; measure it with studio evaluate",
        )  # fmt: skip
    if not draft.has("model_name_or_path"):
        if _is_of_v1(draft):
            raise InputError(
                f"this is a config of {TITLE}'s new trainer (v1), which is not read here", where=given.where,
                fix="Write it with the keys of llamafactory-cli train, such as model_name_or_path and dataset",
            )  # fmt: skip
        near = nearest("model_name_or_path", [key for key in whole_config.values if key not in NAMES])
        raise InputError("model_name_or_path is missing", where=given.where, fix=near or "Add the model")
    if draft.has("export_dir"):
        _export(draft)
    if not trains:
        return _merged(draft)
    read_tuning(draft)
    read_method(draft)
    _precision(draft)
    _batch(draft, given.command)
    read_datasets(draft)
    read_template(draft)
    read_deepspeed(draft)
    if not draft.has("disable_gradient_checkpointing"):
        why = f"Not given: {TITLE} recomputes activations unless it is turned off"
        draft.map("disable_gradient_checkpointing", "training.activation_checkpointing", True, why)
    draft.apply(KEYS)
    _variables(draft, given.command)
    return draft.done()


def _is_of_v1(draft: Draft) -> bool:
    return draft.has("model") and any(draft.has(key) for key in ("model_class", "train_dataset", "sample_backend"))


def _with_file(given: Given) -> Given:
    """The values of a command line over those of the file that it names; `--no_key` becomes false."""
    if given.command is None:
        return given
    values: dict[str, Any] = {}
    for key, value in given.values.items():
        off = key.startswith("no_") and key not in NAMES and key[3:] in NAMES and value is True
        values[key[3:] if off else key] = False if off else value
    words = [word for word in given.command.words if word not in ("train", "export")]
    files = [word for word in words if word.endswith(_CONFIGS)]
    for word in words:
        key, equals, value = word.partition("=")
        if equals and word not in files:
            values[key] = value
    given = replace(given, values=values)
    if not files:
        return given
    if not given.local or (given.folder is None and not as_path(files[0]).is_file()):
        raise InputError(
            f"the command reads {files[0]}, which is not here", where=given.where,
            fix="Import that file, and change what the command changes",
        )  # fmt: skip
    file = as_path(files[0])
    # A script names it from where it is started, which is often a folder above it.
    near = [] if given.folder is None else [given.folder, *given.folder.parents][:_ABOVE]
    places = [file, *(folder / file for folder in near)]
    return given.merged(read_file(next((one for one in places if one.is_file()), file)))


def _only_predicts(draft: Draft) -> bool:
    return draft.get("do_predict", flag, False) and not draft.get("do_train", flag, False)


def _precision(draft: Draft) -> None:
    """Of bf16, fp16 and pure_bf16 there is one option here: what the model computes with."""
    keys = ("bf16", "pure_bf16", "fp16")
    wide = not draft.offers("tuning.rank") and not any(draft.get(key, flag, False) for key in keys)
    if wide:
        draft.map("bf16", "model.dtype", "float32", "Not set: all that is trained is computed in float32 there")
    for key in keys[1:] if wide else keys:
        if not draft.has(key):
            continue
        if not draft.get(key, flag):
            draft.say(key, "ignored", why="With this value it asks for nothing")
        elif key == "fp16":
            why = "Nothing is trained in float16 here: bfloat16 where the device is fast with it, else float32"
            draft.say(key, "approximated", "model.dtype", why)
        else:
            pure = "What is trained stays in float32, or small updates would be lost" if key == "pure_bf16" else ""
            draft.map(key, "model.dtype", "bfloat16", pure, "approximated" if pure else "mapped")


def _batch(draft: Draft, command: Command | None) -> None:
    times = command.processes or 1 if command is not None else 1
    visible = (command.variables.get(_DEVICES, "") if command is not None else "").split(",")
    if command is not None and command.processes is None and command.program in ("llamafactory-cli", "lmf"):
        times = max(1, len([one for one in visible if one.strip()]))  # it starts a process for each
    batch(draft, times)
    if draft.reads("method.kl_target") and (kept := draft.get("ppo_buffer_size", whole, 1)) > 1:
        draft.set("training.batch_size", draft.values["training.batch_size"] * kept, "ppo_buffer_size")


def _variables(draft: Draft, command: Command | None) -> None:
    """What was set in front of the command."""
    for name in command.variables if command is not None else ():
        if name == _DEVICES:
            draft.say(name, "ignored", why="training.device says where a run computes; any takes the first free one")


def _export(draft: Draft) -> None:
    """What is merged and saved: an export of the run here."""
    export: dict[str, Any] = {"to": "folder", "what": "merged", "path": draft.get("export_dir", text)}
    draft.say("export_dir", "mapped", "export: path", "A new folder; nothing that is there is overwritten")
    if draft.has("export_size"):
        size = draft.get("export_size", number)
        draft.say(
            "export_size", "approximated", "export: shard_gb", f"Files of {size:g} GB; a folder has the usual size here"
        )
    if draft.has("export_quantization_bit"):
        why = "GPTQ is not made here; export to gguf with a type such as q4_k_m"
        draft.say("export_quantization_bit", "refused", "export: types", why)
    draft.exports.append(export)
    if draft.has("export_hub_model_id"):
        repo = draft.get("export_hub_model_id", text)
        draft.exports.append({"to": "hub", "what": "merged", "repo": repo})
        draft.say("export_hub_model_id", "mapped", "export: repo")


def _merged(draft: Draft) -> Imported:
    """A config that only exports: the run that is exported knows its model, adapter and template."""
    known = "The run that is exported has it: studio export RUN"
    for key in draft.given.values:
        if key in NAMES and not key.startswith("export_"):
            draft.say(key, "ignored", why=known)
    draft.apply(KEYS, defaults=False)
    return draft.exported()
