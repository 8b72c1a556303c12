"""TRL's command lines and their YAML as a run: `trl sft --model_name_or_path … --dataset_name …`, or its scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.interop.command import Command
from studio.interop.reading import Given
from studio.interop.report import Imported
from studio.interop.sheets import arguments, names
from studio.interop.sheets.configfile import with_file
from studio.interop.sheets.sheet import Sheet
from studio.interop.sheets.splits import held_out, split_of
from studio.interop.trl.keys import IGNORED, NEAR, REFUSED, USUAL
from studio.interop.trl.method import READ as METHOD_KEYS
from studio.interop.trl.method import read_method
from studio.methods import METHODS as OURS
from studio.tunings import adapter_for

TITLE = "TRL"
# Its subcommands and scripts, and our method with what TRL takes for the learning rate.
METHODS: tuple[tuple[str, str, float], ...] = (
    ("sft", "sft", 2e-5), ("dpo", "dpo", 1e-6), ("kto", "kto", 1e-6), ("reward", "reward", 1e-4),
    ("reward_modeling", "reward", 1e-4), ("grpo", "grpo", 1e-6), ("rloo", "grpo", 1e-6), ("orpo", "orpo", 1e-6),
    ("cpo", "simpo", 1e-6), ("ppo", "ppo", 3e-6),
)  # fmt: skip
_WORDS = {word: (method, rate) for word, method, rate in METHODS}
# Of a YAML alone: keys that only one of them has.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ppo", ("num_ppo_epochs", "total_episodes", "vf_coef")), ("grpo", ("num_generations", "reward_funcs")),
    ("kto", ("desirable_weight", "undesirable_weight")), ("cpo", ("simpo_gamma", "cpo_alpha")),
    ("reward", ("center_rewards_coefficient",)),
    ("sft", ("packing", "assistant_only_loss", "completion_only_loss", "dataset_text_field")),
    ("dpo", ("beta", "ld_alpha", "loss_weights", "f_divergence_type")),
)  # fmt: skip
_ADAPTER = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora", "use_dora",
    "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant",
)  # fmt: skip
READ = frozenset({
    "model_name_or_path", "model", "model_revision", "trust_remote_code", "attn_implementation", "dtype",
    "torch_dtype", "use_peft", *_ADAPTER, "dataset_name", "dataset_config", "dataset_train_split",
    "dataset_test_split", "datasets", "test_split_size", "dataset_text_field", "max_length", "max_seq_length",
    *METHOD_KEYS, *arguments.READ,
})  # fmt: skip
KEYS = frozenset({*READ, *IGNORED, *NEAR, *REFUSED})


def kind_of(command: Command) -> str:
    """Which of TRL's trainers a command starts; "" where it is none of its own."""
    if command.program == "trl":
        return command.words[0] if command.words and command.words[0] in _WORDS else ""
    word = command.program.removesuffix(".py").rpartition(".")[2]
    known = {"model_name_or_path", "dataset_name"} & command.options.keys() or "config" in command.options
    return word if word in _WORDS and known else ""


def read(given: Given) -> Imported:
    """Return a config or command of TRL as a run.

    Args:
        given: its keys; those of a command line over those of the file that its `--config` names.

    Raises:
        InputError: no model or no data is named, or a value is not what its key needs; with the line.
    """
    sheet = Sheet(_without_negations(with_file(given, TITLE)), TITLE)
    word = kind_of(given.command) if given.command else ""
    if not word:
        word = next((one for one, signs in _SIGNS if any(sheet.has(key) for key in signs)), "sft")
        why = f"A file does not say which trainer it is for; its keys are those of {word}"
        sheet.note(f"trl {word}", "approximated", "method.name", why)
    method, rate = _WORDS[word]
    _model(sheet)
    read_method(sheet, word, method)
    read_adapter(sheet)
    _data(sheet)
    _length(sheet, word)
    arguments.read_arguments(sheet, arguments.Defaults(8, rate, shuffle=word != "kto"))
    if word in ("grpo", "rloo") and (shuffled := sheet.flag("shuffle_dataset")) is not None:
        sheet.mapped("shuffle_dataset", "data.shuffle", shuffled)
    sheet.leave_usual(USUAL)
    sheet.rest({"ignored": IGNORED, "approximated": NEAR, "refused": REFUSED}, KEYS, on=USUAL)
    return sheet.done()


def _without_negations(given: Given) -> Given:
    """`--no_gradient_checkpointing` of a command line as `gradient_checkpointing: false`."""
    values, lines = dict(given.values), dict(given.lines)
    for key in given.values:
        name = key.removeprefix("no_")
        if name != key and name in KEYS and key not in KEYS and values[key] is True:
            values[name], lines[name] = not values.pop(key), lines.get(key, 0)
    return replace(given, values=values, lines=lines)


def _model(sheet: Sheet) -> None:
    key = next((one for one in ("model_name_or_path", "model", "sft_model_path") if sheet.has(one)), "")
    if not key:
        raise sheet.error("model_name_or_path", "no model is named", "Add it with a folder or a Hub id")
    sheet.mapped(key, "model.path", sheet.text(key))
    if revision := sheet.text("model_revision"):
        sheet.mapped("model_revision", "model.revision", revision)
    read_trust(sheet, "trust_remote_code")
    names.attention(sheet, "attn_implementation")
    arguments.read_dtype(sheet, "dtype" if sheet.has("dtype") else "torch_dtype")


def read_trust(sheet: Sheet, key: str) -> None:
    """Read whether a model's code may run; a config from elsewhere cannot allow it."""
    if sheet.flag(key):
        sheet.refused(key, "code of a model runs only if you say so: set it yourself once you have read the code")
    elif sheet.has(key):
        sheet.mapped(key, "model.trust_remote_code", False)


def read_adapter(sheet: Sheet) -> None:
    """Read which weights are trained, and how the others are held."""
    four, eight = bool(sheet.flag("load_in_4bit")), bool(sheet.flag("load_in_8bit"))
    if not sheet.flag("use_peft"):
        sheet.set("tuning.name", "full")
        sheet.tell("use_peft", "mapped", "tuning.name")
        for key, on in (("load_in_4bit", four), ("load_in_8bit", eight)):
            if on:
                sheet.refused(key, "weights held in few bits cannot be trained without an adapter (use_peft)")
        for key in _ADAPTER:
            if sheet.has(key) and not sheet.told(key):
                sheet.ignored(key, "without use_peft there is no adapter")
        return
    dora = bool(sheet.flag("use_dora"))
    sheet.mapped("use_peft", "tuning.name", adapter_for(quantized=four or eight, dora=dora))
    if four or eight:
        sheet.set("tuning.bits", "4" if four else "8")
        sheet.mapped("use_dora", "tuning.dora", dora)
        kind = sheet.text("bnb_4bit_quant_type")
        if kind in ("nf4", "fp4"):
            sheet.mapped("bnb_4bit_quant_type", "tuning.quant_type", kind)
        if four and (nested := sheet.flag("use_bnb_nested_quant")) is not None:
            sheet.mapped("use_bnb_nested_quant", "tuning.double_quant", nested)
        elif four:
            sheet.default("use_bnb_nested_quant", "tuning.double_quant", False)
    for key in ("load_in_4bit", "load_in_8bit", "use_dora"):
        sheet.tell(key, "mapped", "tuning.name") if not sheet.told(key) else None
    names.lora_size(sheet, "lora_r", 16)
    if (rslora := sheet.flag("use_rslora")) is not None:
        sheet.mapped("use_rslora", "tuning.rslora", rslora)
    modules = sheet.words("lora_target_modules")
    if modules:
        sheet.mapped("lora_target_modules", "tuning.target_modules",
                     "all-linear" if modules == ["all-linear"] else modules)  # fmt: skip
    else:
        why = "Not given: PEFT then takes the query and value layers of most models"
        sheet.set("tuning.target_modules", ["q_proj", "v_proj"])
        sheet.note("lora_target_modules", "approximated", "tuning.target_modules", why)
    names.saved_modules(sheet, "lora_modules_to_save")


def _data(sheet: Sheet) -> None:
    sets = sheet.raw("datasets")
    validates = (sheet.text("eval_strategy") or sheet.text("evaluation_strategy") or "no").lower() not in (
        "no",
        "false",
    )
    share = sheet.number("test_split_size")
    if sets:
        found = [_mixed(sheet, at, one) for at, one in enumerate(sets if isinstance(sets, list) else [sets])]
        sheet.tell("datasets", "mapped", "data.train", "its entries follow")
        sheet.ignored("dataset_name", "datasets comes first")
    elif name := sheet.text("dataset_name"):
        source: dict[str, Any] = {"path": name}
        sheet.tell("dataset_name", "mapped", "data.train")
        if subset := sheet.text("dataset_config"):
            source["subset"] = subset
            sheet.tell("dataset_config", "mapped", "data.train")
        _split(sheet, "dataset_train_split", source)
        found = [source]
    else:
        raise sheet.error("dataset_name", "no data is named", "Add it with a file or a Hub id")
    field = sheet.text("dataset_text_field")
    for source in found:
        if field and field != "text":
            source["columns"] = {"text": field}
        # TRL joins the texts of a prompt and its answer as they stand.
        source["reading"] = "raw"
    sheet.tell("dataset_text_field", "mapped", "data.train")
    sheet.set("data.train", found, "datasets" if sets else "dataset_name")
    if share is not None and not sets:
        sheet.ignored("test_split_size", "TRL reads it with datasets only")
    if sets and share is not None and 0 < share < 1:
        sheet.mapped("test_split_size", "data.validation", share)
    elif validates and not sets:
        test = held_out(sheet.text("dataset_test_split") or "test", found[0]["path"], found)
        sheet.set("data.validation", test.validation, "dataset_test_split")
        if test.split:
            sheet.set("data.validation_split", test.split, "dataset_test_split")
        to = "data.validation_split" if test.split else "data.validation"
        sheet.tell("dataset_test_split", test.status, to, test.why)
    else:
        sheet.set("data.validation", 0.0)
    if not sheet.told("dataset_test_split"):
        sheet.ignored("dataset_test_split", "without eval_strategy nothing is validated")


def _split(sheet: Sheet, key: str, source: dict[str, Any]) -> None:
    if given := sheet.text(key):
        split = split_of(given)
        source |= split.of_set()
        sheet.tell(key, split.status, "data.train", split.why)


def _mixed(sheet: Sheet, at: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise sheet.error("datasets", "each set is a mapping with a path")
    part = sheet.part(value, f"datasets[{at}].")
    path, files = part.text("path"), part.words("data_files")
    if path in ("json", "csv", "parquet", "text") and files:
        path = files[0]
        part.tell("data_files", "mapped" if len(files) == 1 else "approximated", "data.train",
                  "" if len(files) == 1 else "the first file; name the others as sets of their own")  # fmt: skip
    if not path:
        raise part.error("path", "a set of data needs a path", "Add path with a file or a Hub id")
    part.tell("path", "mapped", "data.train")
    source: dict[str, Any] = {"path": path}
    if subset := part.text("name"):
        source["subset"] = subset
        part.tell("name", "mapped", "data.train")
    _split(part, "split", source)
    known = frozenset({"path", "data_files", "name", "split", "columns", "fraction", "data_dir"})
    part.rest({
        "ignored": {"columns": "the columns that the method needs are taken"},
        "refused": {
            "data_files": "files of a set cannot be chosen; subset and split can",
            "data_dir": "folders of a set cannot be chosen; subset and split can",
            "fraction": "a share of the rows cannot be given; set rows to so many",
        },
    }, known)  # fmt: skip
    return source


def _length(sheet: Sheet, word: str) -> None:
    key = "max_length" if "max_length" in sheet.given.values else "max_seq_length"
    length = sheet.whole(key)
    if length is not None and length > 0:
        sheet.mapped(key, "data.max_length", length)
    elif key in sheet.given.values:
        sheet.mapped(key, "data.max_length", "auto")
    elif not OURS[sheet.value("method.name")].online:
        sheet.default("max_length", "data.max_length", 1024)
    # TRL leaves out pairs of a reward model that are too long, and truncates all other rows.
    sheet.set("data.truncation", "drop" if word.startswith("reward") else "cut")
