"""ms-swift's command lines as a run: `swift sft`, `swift pt` and `swift rlhf --rlhf_type …`."""

from __future__ import annotations

from typing import Any

from studio.interop.command import Command
from studio.interop.ms_swift.keys import IGNORED, NEAR, REFUSED, USUAL
from studio.interop.reading import Given
from studio.interop.report import Imported
from studio.interop.sheets import arguments, names
from studio.interop.sheets.configfile import with_file
from studio.interop.sheets.sheet import Sheet
from studio.interop.trl.method import READ as METHOD_KEYS
from studio.interop.trl.method import read_method
from studio.tunings import adapter_for

TITLE = "ms-swift"
# `rlhf_type`, the trainer of TRL that it stands on, our method, and the beta that ms-swift takes.
_RLHF: tuple[tuple[str, str, str, float | None], ...] = (
    ("dpo", "dpo", "dpo", 0.1), ("orpo", "orpo", "orpo", 0.1), ("simpo", "cpo", "simpo", 2.0),
    ("cpo", "cpo", "orpo", 0.1), ("kto", "kto", "kto", 0.1), ("rm", "reward", "reward", None),
    ("ppo", "ppo", "ppo", None), ("grpo", "grpo", "grpo", 0.04),
)  # fmt: skip
# What its trainers take without a key, where TRL takes something else.
_OWN: dict[str, Any] = {
    "loss_type": "grpo", "temperature": 0.9, "max_completion_length": 512, "simpo_gamma": 1.0,
}  # fmt: skip
_PARTS = ("sft", "pt", "rlhf")
_HUBS = ("HF::", "hf::", "MS::", "ms::")
_INIT = ("gaussian", "pissa", "olora", "orthogonal")
READ = frozenset({
    "model", "model_id_or_path", "model_revision", "torch_dtype", "attn_impl", "rope_scaling", "tuner_type",
    "train_type", "sft_type", "adapters", "quant_method", "quant_bits", "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant", "lora_rank", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save",
    "use_rslora", "use_dora", "init_weights", "lorap_lr_ratio", "dataset", "val_dataset", "split_dataset_ratio",
    "dataset_shuffle", "train_dataloader_shuffle", "columns", "interleave_prob", "stopping_strategy", "system",
    "max_length",
    "truncation_strategy", "loss_scale", "rlhf_type", "rpo_alpha", "enable_dft_loss", "advantage_estimator",
    "reward_model", *METHOD_KEYS, *arguments.READ,
})  # fmt: skip
KEYS = frozenset({*READ, *IGNORED, *NEAR, *REFUSED})


def starts(command: Command) -> bool:
    """Whether a command is a training of ms-swift."""
    if command.program == "swift":
        return command.words[:1] in [(part,) for part in _PARTS]
    return command.program in ("swift.cli.sft", "swift.cli.pt", "swift.cli.rlhf")


def read(given: Given) -> Imported:
    """Return a command of ms-swift as a run.

    Args:
        given: its options, or a YAML with them.

    Raises:
        InputError: no model or no data is named, or a value is not what its key needs; with the line.
    """
    command = given.command
    part = "sft"
    if command is not None:
        part = next((one for one in _PARTS if one in (*command.words[:1], command.program.rpartition(".")[2])), "sft")
    elif "rlhf_type" in given.values:
        part = "rlhf"
    sheet = Sheet(with_file(given, TITLE), TITLE)
    _model(sheet)
    _method(sheet, part)
    full = _tuning(sheet)
    _data(sheet, part)
    groups = sheet.offers("method.num_generations")
    usual = arguments.Defaults(
        1, 1e-5 if full else 1e-4, "cosine", decay=0.1, beta2=0.95, least_batch=0 if groups else 16
    )
    arguments.read_arguments(sheet, usual)
    _order(sheet, groups)
    sheet.leave_usual(USUAL)
    sheet.rest({"ignored": IGNORED, "approximated": NEAR, "refused": REFUSED}, KEYS, on=USUAL)
    return sheet.done()


def _model(sheet: Sheet) -> None:
    key = "model" if sheet.has("model") else "model_id_or_path"
    if not sheet.has(key):
        raise sheet.error("model", "no model is named", "Add --model with a folder or a Hub id")
    why = "ms-swift takes it from ModelScope unless it is told otherwise; here it comes from the Hugging Face Hub"
    sheet.mapped(key, "model.path", sheet.text(key), "" if sheet.flag("use_hf") else why)
    if revision := sheet.text("model_revision"):
        sheet.mapped("model_revision", "model.revision", revision)
    names.attention(sheet, "attn_impl")
    arguments.read_dtype(sheet, "torch_dtype")
    rope = sheet.text("rope_scaling")
    if rope in ("linear", "dynamic", "yarn"):
        sheet.approximated("rope_scaling", "model.rope_scaling", rope, "by a factor of 2; model.rope_factor says it")
    elif rope:
        sheet.refused("rope_scaling", "model.rope_scaling has one of linear, dynamic, yarn and llama3")


def _method(sheet: Sheet, part: str) -> None:
    if part == "pt":
        sheet.set("method.name", "pretrain")
        _packing(sheet)
    elif part == "rlhf":
        word = (sheet.text("rlhf_type") or "dpo").lower()
        row = next((one for one in _RLHF if one[0] == word), None)
        if row is None:
            sheet.refused("rlhf_type", f"the studio has no {word:.30}; a DPO stands in its place")
            row = _RLHF[0]
        else:
            sheet.tell("rlhf_type", "mapped", "method.name")
        _, trainer, name, beta = row
        if word == "simpo" and not sheet.has("loss_type"):
            sheet.given.values["loss_type"] = "simpo"
        if trainer == "grpo":
            _estimator(sheet)
        read_method(sheet, trainer, name, _OWN if beta is None else {**_OWN, "beta": beta})
        if sheet.has("rpo_alpha") and sheet.offers("method.dpo_loss"):
            _likelihood(sheet)
    else:
        sheet.set("method.name", "sft")
        _packing(sheet)
        scale = sheet.text("loss_scale")
        words = (("default", "assistant"), ("all", "all"), ("last_round", "last"))
        if scale is None:
            sheet.set("method.train_on", "assistant")
        elif scale in dict(words):
            sheet.mapped("loss_scale", "method.train_on", dict(words)[scale])
        else:
            sheet.approximated("loss_scale", "method.train_on", "assistant", "all tokens of an answer count the same")
        if sheet.flag("enable_dft_loss"):
            sheet.mapped("enable_dft_loss", "method.loss", "dft")
    for key in ("loss_scale", "rpo_alpha", "enable_dft_loss", "advantage_estimator", "rlhf_type", *METHOD_KEYS):
        if sheet.has(key) and not sheet.told(key):
            sheet.ignored(key, "this method does not read it")


def _estimator(sheet: Sheet) -> None:
    estimator = sheet.text("advantage_estimator")
    if estimator in sheet.specs["method.grpo_algorithm"].choices:
        sheet.mapped("advantage_estimator", "method.grpo_algorithm", estimator)
    elif estimator:
        sheet.refused("advantage_estimator", f"the studio has no {estimator:.30}")


def _likelihood(sheet: Sheet) -> None:
    """Read the weight of the chosen answer's likelihood, which is added to the losses that are named."""
    losses = list(sheet.value("method.dpo_loss") or ["sigmoid"])
    weights = list(sheet.value("method.dpo_loss_weights") or [1.0] * len(losses))
    if not (alpha := sheet.number("rpo_alpha")):
        sheet.ignored("rpo_alpha", "it is 0")
    elif "sft" in losses:
        sheet.refused("rpo_alpha", "the loss sft is among loss_type, and has its weight there")
    else:
        sheet.set("method.dpo_loss", [*losses, "sft"])
        why = "the likelihood of the chosen answer is added with this weight"
        sheet.approximated("rpo_alpha", "method.dpo_loss_weights", [*weights, alpha], why)


def _order(sheet: Sheet, groups: bool) -> None:
    """Read whether rows are shuffled: once before the training, and in each epoch; GRPO has the first switch only."""
    once, again = sheet.flag("dataset_shuffle"), sheet.flag("train_dataloader_shuffle")
    last = once if groups else again
    switches = ("dataset_shuffle", "train_dataloader_shuffle")
    if last is False and once is False:
        for key in switches:
            sheet.tell(key, "mapped", "data.shuffle")
        sheet.set("data.shuffle", False, "dataset_shuffle")
    elif last is False:
        why = "rows are shuffled once there, and in each epoch here; data.shuffle false keeps their order"
        sheet.tell("train_dataloader_shuffle", "approximated", "data.shuffle", why)
    for key in switches:
        if sheet.has(key) and not sheet.told(key):
            sheet.ignored(key, "rows are shuffled in each epoch, and there, too")


def _packing(sheet: Sheet) -> None:
    if sheet.flag("packing"):
        why = "an update has a fixed number of examples here, where ms-swift fills rows up to max_length"
        sheet.approximated("packing", "training.padding_free", True, why)
    elif sheet.has("packing"):
        sheet.ignored("packing", "it is off")
    if (free := sheet.flag("padding_free")) is not None:
        sheet.mapped("padding_free", "training.padding_free", bool(free or sheet.flag("packing")))


def _tuning(sheet: Sheet) -> bool:
    key = next((one for one in ("tuner_type", "train_type", "sft_type") if sheet.has(one)), "tuner_type")
    word = (sheet.text(key) or "lora").lower()
    bits = sheet.whole("quant_bits")
    if word == "full":
        sheet.mapped(key, "tuning.name", "full")
        for other in READ:
            if other in _ADAPTER and sheet.has(other):
                sheet.ignored(other, "a full finetune has no adapter")
        return True
    dora = bool(sheet.flag("use_dora"))
    quantized = bits in (4, 8) and sheet.text("quant_method") in (None, "bnb")
    sheet.set("tuning.name", adapter_for(quantized=quantized, dora=dora))
    if word in ("lora", "longlora", "lora_llm"):
        sheet.tell(key, "mapped" if word == "lora" else "approximated", "tuning.name",
                   "" if word == "lora" else "a plain LoRA")  # fmt: skip
    else:
        sheet.refused(key, f"the studio has no {word:.30}; a plain LoRA stands in its place")
    if quantized:
        sheet.mapped("quant_bits", "tuning.bits", str(bits))
        sheet.tell("quant_method", "mapped", "tuning.name")
        if (kind := sheet.text("bnb_4bit_quant_type")) in ("nf4", "fp4"):
            sheet.mapped("bnb_4bit_quant_type", "tuning.quant_type", kind)
        if (double := sheet.flag("bnb_4bit_use_double_quant")) is not None:
            sheet.mapped("bnb_4bit_use_double_quant", "tuning.double_quant", double)
        sheet.set("tuning.dora", dora)
    for other in ("quant_bits", "quant_method"):
        if sheet.has(other) and not sheet.told(other):
            sheet.refused(other, "weights are held in 4 or 8 bits by bitsandbytes only")
    sheet.tell("use_dora", "mapped", "tuning.name")
    _adapter(sheet, quantized)
    return False


_ADAPTER = (
    "adapters", "quant_method", "quant_bits", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "lora_rank",
    "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "use_rslora", "use_dora", "init_weights",
    "lorap_lr_ratio",
)  # fmt: skip


def _adapter(sheet: Sheet, quantized: bool) -> None:
    names.lora_size(sheet, "lora_rank", 8)
    modules = sheet.words("target_modules")
    if modules:
        whole = "all-linear" in modules
        sheet.mapped("target_modules", "tuning.target_modules", "all-linear" if whole else modules)
    names.saved_modules(sheet, "modules_to_save")
    if (rslora := sheet.flag("use_rslora")) is not None:
        sheet.mapped("use_rslora", "tuning.rslora", rslora)
    init = sheet.text("init_weights")
    if init in _INIT and not quantized:
        sheet.mapped("init_weights", "tuning.init", init)
    elif init == "true":
        sheet.ignored("init_weights", "the adapter starts as usual")
    elif init:
        sheet.refused("init_weights", f"the adapter starts as usual, not with {init:.30}")
    if (ratio := sheet.number("lorap_lr_ratio")) is not None and sheet.reads("tuning.lora_plus_ratio"):
        sheet.mapped("lorap_lr_ratio", "tuning.lora_plus_ratio", ratio)
    elif sheet.has("lorap_lr_ratio"):
        sheet.refused("lorap_lr_ratio", "LoRA+ does not go with DoRA here")
    adapters = sheet.words("adapters")
    if adapters:
        more = "" if len(adapters) == 1 else "the first one"
        sheet.mapped("adapters", "tuning.adapter", adapters[0], more)


def _data(sheet: Sheet, part: str) -> None:
    given = sheet.raw("dataset")
    listed = given if isinstance(given, list) else [given]
    if not given:
        raise sheet.error("dataset", "no data is named", "Add --dataset with a file or a Hub id")
    sources = [_source(str(one)) for one in listed]
    sheet.mapped("dataset", "data.train", sources)
    columns = sheet.raw("columns")
    if columns is not None:
        sheet.refused("columns", "name them for each file in data.train, as columns")
    tests = sheet.raw("val_dataset")
    if tests:
        first = _source(str(tests[0] if isinstance(tests, list) else tests))
        sheet.mapped("val_dataset", "data.validation", first["path"])
    share = sheet.number("split_dataset_ratio")
    if not tests and share is not None and 0 <= share < 1:
        sheet.mapped("split_dataset_ratio", "data.validation", float(share))
    elif not tests:
        sheet.default("split_dataset_ratio", "data.validation", 0.0)
    weights = sheet.numbers("interleave_prob")
    if weights and len(weights) == len(sources):
        for source, weight in zip(sources, weights, strict=True):
            source["weight"] = weight
        sheet.tell("interleave_prob", "mapped", "data.train")
    elif weights:
        sheet.refused("interleave_prob", "one weight for each set is needed")
    if word := sheet.text("stopping_strategy"):
        sheet.mapped("stopping_strategy", "data.stopping_strategy", word)
    system = sheet.text("system")
    if system and system.lower().endswith(".txt"):
        sheet.refused("system", "ms-swift reads the prompt from this file: write its text into data.system")
    elif system:
        sheet.mapped("system", "data.system", system)
    length = sheet.whole("max_length")
    if length:
        sheet.mapped("max_length", "data.max_length", length)
    strategy = sheet.text("truncation_strategy")
    if strategy == "split" or (strategy is None and part == "pt"):
        sheet.set("data.truncation", "cut")
        sheet.set("method.documents", "join")
        sheet.tell("truncation_strategy", "approximated", "method.documents", "documents also share an example")
    elif strategy == "right":
        sheet.mapped("truncation_strategy", "data.truncation", "cut")
    elif strategy == "left":
        sheet.approximated("truncation_strategy", "data.truncation", "cut", "the start of a row is kept, not its end")
    else:
        sheet.set("data.truncation", "drop")
        sheet.tell("truncation_strategy", "mapped", "data.truncation")


def _source(given: str) -> dict[str, Any]:
    """A set as ms-swift names it: `org/name:subset#500`, a file, with the hub it is on in front."""
    path = given
    for hub in _HUBS:
        path = path.removeprefix(hub)
    source: dict[str, Any] = {"path": path}
    name, mark, count = path.rpartition("#")
    if mark and count.isdigit() and int(count):
        source = {"path": name, "rows": int(count)}
    name, mark, subset = source["path"].rpartition(":")
    if mark and name.count("/") == 1 and "/" not in subset and "." not in subset:
        source |= {"path": name, "subset": subset}
    return source
