"""A run as a script: imports, model, rows, trainer, in the order in which a person writes them."""

from __future__ import annotations

from typing import Any

from studio.config.run import RunConfig
from studio.errors import InputError
from studio.interop.report import Exported, Line
from studio.interop.scripts.arguments import arguments_of
from studio.interop.scripts.rewards import Code, write_rewards
from studio.interop.scripts.rows import write_rows
from studio.interop.scripts.source import call, source
from studio.interop.scripts.trainers import Trainer, trainer_of
from studio.interop.sheets.outgoing import Outgoing
from studio.methods import METHODS
from studio.tunings import TUNINGS

NAME = "train.py"
_MISSING = "It is not in this script"
# Of LoraConfig, with the option that it stands for.
_NOT_IN_UNSLOTH = {"rank_pattern": "rank_pattern", "alpha_pattern": "alpha_pattern", "use_dora": "dora",
                   "init_lora_weights": "init"}  # fmt: skip
_UNSLOTH_LENGTH = 2048  # what it reads without being told


def write_trl(config: RunConfig) -> Exported:
    """Return a run as a script on TRL and PEFT.

    Args:
        config: the run.

    Raises:
        InputError: TRL has no such trainer.
    """
    out = Outgoing(config, "TRL", _MISSING)
    trainer = trainer_of(config)
    if trainer is None:
        raise InputError(
            f"TRL has no {METHODS[config.method.name].title} since 1.13", where="method.name",
            fix="Choose another method, or train it in the studio",
        )  # fmt: skip
    return _script(out, trainer, _plain_model(out), f"python {NAME}")


def write_unsloth(config: RunConfig) -> Exported:
    """Return a run as a script on Unsloth and TRL.

    Args:
        config: the run.

    Raises:
        InputError: Unsloth does not have the method or the tuning.
    """
    out = Outgoing(config, "Unsloth", _MISSING)
    trainer = trainer_of(config)
    for kinds, name, where in (
        (METHODS, config.method.name, "method.name"),
        (TUNINGS, config.tuning.name, "tuning.name"),
    ):
        if not kinds[name].unsloth or trainer is None:
            have = ", ".join(one for one in kinds if kinds[one].unsloth)
            raise InputError(f"Unsloth has no {kinds[name].title}", where=where, fix=f"It has {have}")
    assert trainer is not None
    return _script(out, trainer, _unsloth_model(out), f"python {NAME}")


def _script(out: Outgoing, trainer: Trainer, model: tuple[list[str], str, bool], command: str) -> Exported:
    imports, lines, adapter = model
    config = out.config
    rows = write_rows(out, trainer)
    rewards, scored = write_rewards(out) if trainer.rows == "prompts" else (Code(), "")
    before, arguments = arguments_of(out, trainer, rows.validation != "None")
    given = {"model": "model", "args": "args", "train_dataset": "dataset"}
    given |= {"eval_dataset": "validation"} if rows.validation != "None" else {}
    given |= {"processing_class": "tokenizer"} | ({"peft_config": "peft_config"} if adapter else {})
    given |= {"reward_funcs": scored} if scored else {}
    out.tell("training.seed", "mapped", "set_seed")
    out.tell("method.name", "mapped", f"{trainer.name}Trainer")
    out.tell("tuning.name", "mapped", "LoraConfig" if config.tuning.kind.adapter else "")
    standard = [*(["import math"] if before else []), *rows.standard, *rewards.standard]
    several = "concatenate_datasets, " if len(out.config.data.train) > 1 else ""
    head = [
        *standard, *([""] if standard else []), *[line for line in imports if "unsloth" in line],
        "import torch", f"from datasets import {several}load_dataset",
        *[line for line in imports if "unsloth" not in line],
        f"from {trainer.module} import {trainer.name}Config, {trainer.name}Trainer", *rewards.own,
    ]  # fmt: skip
    start = [f"set_seed({out.config.training.seed})",
             "bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()"]  # fmt: skip
    end = [
        *before, f"args = {trainer.name}Config(", *(f"    {name}={value}," for name, value in arguments.items()), ")",
        f"trainer = {trainer.name}Trainer(", *(f"    {name}={value}," for name, value in given.items()), ")",
        *(["tokenizer.chat_template = template"] if rows.trimmed else []),
        "trainer.train()", 'trainer.save_model("outputs/model")',
    ]  # fmt: skip
    report = out.report()
    code = "\n".join([*head, "", *start, lines])
    functions = [*rows.functions, *rewards.functions]
    defined = "\n\n\n".join([code, *functions])
    gap = "\n\n\n" if functions else "\n\n"
    text = f"{_docstring(out, report)}\n\n{defined}{gap}{rows.lines}\n\n" + "\n".join(end) + "\n"
    return Exported(out.tool, {NAME: text}, command, report)


def _docstring(out: Outgoing, report: list[Line]) -> str:
    config = out.config
    tuning = TUNINGS[config.tuning.name]
    trained = f"with {tuning.title}" if tuning.adapter else "of all weights"
    title = f"{METHODS[config.method.name].title} {trained}, from Finetune Studio."
    lost = [line for line in report if line.status in ("refused", "approximated")]
    if not lost:
        return f'"""{title}"""'
    told = "\n".join(f"- {line.key}: {line.why}." for line in lost)
    return f'"""{title}\n\nNot quite as in the studio:\n{_quoted(told)}\n"""'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _dtype(out: Outgoing) -> str:
    dtype = out.config.model.dtype
    out.tell("model.dtype", "mapped", "dtype")
    if dtype != "auto":
        return f"torch.{dtype}"
    # All weights that are trained are held in float32, or small updates would be lost.
    return "torch.bfloat16 if bf16 else torch.float32" if out.config.tuning.kind.adapter else "torch.float32"


def _plain_model(out: Outgoing) -> tuple[list[str], str, bool]:
    model, tuning = out.config.model, out.config.tuning
    out.model("model")
    path = source(out.values["model"])
    scorer = out.config.method.kind.result == "scorer"
    kind = "AutoModelForSequenceClassification" if scorer else "AutoModelForCausalLM"
    options = [f"dtype={_dtype(out)}"]
    options += ["num_labels=1"] if scorer else []
    options += _origin(out)
    if model.attention != "auto":
        options.append(f"attn_implementation={source(model.attention)}")
        out.tell("model.attention", "mapped", "attn_implementation")
    names = [kind, "AutoTokenizer", "set_seed"]
    lines = []
    if tuning.kind.quantized:
        names.insert(2, "BitsAndBytesConfig")
        options.append("quantization_config=quantization")
        lines += call("quantization = BitsAndBytesConfig", _bits(out))
    lines.append(f"tokenizer = AutoTokenizer.from_pretrained({path})")
    lines += call(f"model = {kind}.from_pretrained", [path, *options])
    lines += ["model.config.pad_token_id = tokenizer.pad_token_id"] if scorer else []
    imports = [f"from transformers import {', '.join(sorted(names))}"]
    if tuning.kind.adapter:
        imports.insert(0, "from peft import LoraConfig")
        settings = _adapter(out)
        settings["task_type"] = "SEQ_CLS" if scorer else "CAUSAL_LM"
        lines.append("peft_config = LoraConfig(")
        lines += [f"    {name}={source(value)}," for name, value in settings.items()]
        lines.append(")")
    return imports, "\n".join(lines), tuning.kind.adapter


def _bits(out: Outgoing) -> list[str]:
    tuning = out.config.tuning
    for name in ("bits", "quant_type", "double_quant"):
        out.tell(f"tuning.{name}", "mapped", "quantization_config")
    if tuning.bits == "8":
        return ["load_in_8bit=True"]
    return [
        "load_in_4bit=True", f"bnb_4bit_quant_type={source(tuning.quant_type)}",
        f"bnb_4bit_use_double_quant={tuning.double_quant}",
        "bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32",
    ]  # fmt: skip


def _adapter(out: Outgoing) -> dict[str, Any]:
    tuning = out.config.tuning
    alpha = 2 * tuning.rank if tuning.alpha == "auto" else tuning.alpha
    settings: dict[str, Any] = {
        "r": tuning.rank, "lora_alpha": alpha, "lora_dropout": tuning.dropout, "target_modules": tuning.target_modules,
    }  # fmt: skip
    for name, theirs in (
        ("rslora", "use_rslora"), ("rank_pattern", "rank_pattern"), ("alpha_pattern", "alpha_pattern"),
        ("layers_to_transform", "layers_to_transform"), ("modules_to_save", "modules_to_save"),
    ):  # fmt: skip
        value = getattr(tuning, name)
        if value and out.reads(f"tuning.{name}"):
            settings[theirs] = value
            out.tell(f"tuning.{name}", "mapped", theirs)
    if tuning.uses_dora:
        settings["use_dora"] = True
        out.tell("tuning.dora", "mapped", "use_dora")
    if out.reads("tuning.init") and tuning.init != "default":
        settings["init_lora_weights"] = tuning.init
        out.tell("tuning.init", "mapped", "init_lora_weights")
    for name in ("rank", "alpha", "dropout", "target_modules", "name"):
        out.tell(f"tuning.{name}", "mapped", "LoraConfig")
    return settings


def _unsloth_model(out: Outgoing) -> tuple[list[str], str, bool]:
    model, tuning, method = out.config.model, out.config.tuning, out.config.method
    out.model("model")
    limit = _UNSLOTH_LENGTH if out.config.data.max_length == "auto" else out.config.data.max_length
    settings = _adapter(out)
    for theirs, ours in _NOT_IN_UNSLOTH.items():
        if theirs in settings:
            del settings[theirs]
            out.refused(f"tuning.{ours}", "Unsloth's adapters have no such option")
    options = [
        f"max_seq_length={limit + (method.max_completion_length if method.kind.online else 0)}",
        f"load_in_4bit={tuning.kind.quantized and tuning.bits == '4'}",
    ]
    options += ["load_in_8bit=True"] if tuning.kind.quantized and tuning.bits == "8" else []
    if model.dtype != "auto":
        options.append(f"dtype={_dtype(out)}")
    options += _origin(out)
    adapter = [f"{name}={source(value)}" for name, value in settings.items()]
    lines = [
        *call("model, tokenizer = FastLanguageModel.from_pretrained", [source(out.values["model"]), *options]),
        "model = FastLanguageModel.get_peft_model(", "    model,", *(f"    {one}," for one in adapter),
        f"    use_gradient_checkpointing={_checkpointing(out)},", f"    random_state={out.config.training.seed},", ")",
    ]  # fmt: skip
    for name in ("bits", "quant_type", "double_quant"):
        out.tell(f"tuning.{name}", "mapped", "load_in_4bit")
    return ["from unsloth import FastLanguageModel", "from transformers import set_seed"], "\n".join(lines), False


def _checkpointing(out: Outgoing) -> str:
    """By its word "unsloth" activations are offloaded, too."""
    saving, offloading = out.config.training.activation_checkpointing, out.config.training.activation_offloading
    out.tell("training.activation_offloading", "mapped", "use_gradient_checkpointing")
    return '"unsloth"' if saving and offloading else str(bool(saving))


def _origin(out: Outgoing) -> list[str]:
    """Which state of the model is read, and whether its own code is run."""
    model = out.config.model
    options: list[str] = []
    if model.revision != "main":
        options.append(f"revision={source(model.revision)}")
        out.tell("model.revision", "mapped", "revision")
    if model.trust_remote_code:
        options.append("trust_remote_code=True")
        out.tell("model.trust_remote_code", "mapped", "trust_remote_code")
    return options
