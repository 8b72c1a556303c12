"""A run as a script: imports, model, rows, trainer, in the order in which a person writes them."""

from __future__ import annotations

from typing import Any

from studio.config.run import RunConfig
from studio.errors import InputError
from studio.interop.report import Exported, Line
from studio.interop.scripts.rewards import Code, write_rewards
from studio.interop.scripts.rows import write_rows
from studio.interop.scripts.source import call, source
from studio.interop.scripts.trainers import Trainer, trainer_of
from studio.interop.sheets.outgoing import Outgoing
from studio.methods import METHODS
from studio.tunings import TUNINGS

NAME = "train.py"
_MISSING = "It is not in this script"
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


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
    functions, rows, validation = write_rows(out, trainer)
    rewards, scored = write_rewards(out) if trainer.rows == "prompts" else (Code(), "")
    arguments = _arguments(out, trainer, validation)
    given = {"model": "model", "args": "args", "train_dataset": "dataset"}
    given |= {"eval_dataset": "validation"} if validation != "None" else {}
    given |= {"processing_class": "tokenizer"} | ({"peft_config": "peft_config"} if adapter else {})
    given |= {"reward_funcs": scored} if scored else {}
    out.tell("training.seed", "mapped", "set_seed")
    out.tell("method.name", "mapped", f"{trainer.name}Trainer")
    out.tell("tuning.name", "mapped", "LoraConfig" if config.tuning.kind.adapter else "")
    several = "concatenate_datasets, " if len(out.config.data.train) > 1 else ""
    head = [
        *rewards.standard, *([""] if rewards.standard else []), *[line for line in imports if "unsloth" in line],
        "import torch", f"from datasets import {several}load_dataset",
        *[line for line in imports if "unsloth" not in line],
        f"from {trainer.module} import {trainer.name}Config, {trainer.name}Trainer", *rewards.own,
    ]  # fmt: skip
    start = [f"set_seed({out.config.training.seed})",
             "bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()"]  # fmt: skip
    end = [
        f"args = {trainer.name}Config(", *(f"    {name}={value}," for name, value in arguments.items()), ")",
        f"trainer = {trainer.name}Trainer(", *(f"    {name}={value}," for name, value in given.items()), ")",
        "trainer.train()", 'trainer.save_model("outputs/model")',
    ]  # fmt: skip
    report = out.report()
    code = "\n".join([*head, "", *start, lines])
    defined = "\n\n\n".join([code, *functions, *rewards.functions])
    gap = "\n\n\n" if functions or rewards.functions else "\n\n"
    text = f"{_docstring(out, report)}\n\n{defined}{gap}{rows}\n\n" + "\n".join(end) + "\n"
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
    if model.revision != "main":
        options.append(f"revision={source(model.revision)}")
        out.tell("model.revision", "mapped", "revision")
    if model.attention != "auto":
        options.append(f"attn_implementation={source(model.attention)}")
        out.tell("model.attention", "mapped", "attn_implementation")
    if model.trust_remote_code:
        options.append("trust_remote_code=True")
        out.tell("model.trust_remote_code", "mapped", "trust_remote_code")
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
    tuning, seed = out.config.tuning, out.config.training.seed
    out.model("model")
    limit = out.config.data.max_length
    settings = _adapter(out)
    settings.pop("init_lora_weights", None)
    targets = settings["target_modules"]
    settings["target_modules"] = list(_LINEAR) if targets == "all-linear" else targets
    lines = [
        "model, tokenizer = FastLanguageModel.from_pretrained(",
        f"    {source(out.values['model'])},",
        f"    max_seq_length={2048 if limit == 'auto' else limit},",
        f"    load_in_4bit={tuning.kind.quantized and tuning.bits == '4'},",
        *(["    load_in_8bit=True,"] if tuning.kind.quantized and tuning.bits == "8" else []),
        ")",
        "model = FastLanguageModel.get_peft_model(",
        "    model,",
        *(f"    {name}={source(value)}," for name, value in settings.items()),
        '    use_gradient_checkpointing="unsloth",',
        f"    random_state={seed},",
        ")",
    ]
    for name in ("bits", "quant_type", "double_quant"):
        out.tell(f"tuning.{name}", "mapped", "load_in_4bit")
    return ["from unsloth import FastLanguageModel", "from transformers import set_seed"], "\n".join(lines), False


def _arguments(out: Outgoing, trainer: Trainer, validation: str) -> dict[str, str]:
    training = out.config.training
    chosen = training.micro_batch_size
    micro = max(part for part in (1, 2, 4) if training.batch_size % part == 0) if chosen == "auto" else chosen
    rate, why = out.rate()
    out.tell("training.learning_rate", "approximated" if why else "mapped", "learning_rate", why)
    steps = training.max_steps
    found: dict[str, Any] = {
        "output_dir": "outputs", "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": training.batch_size // micro, "num_train_epochs": training.epochs,
    }  # fmt: skip
    if steps is not None:
        found["max_steps"] = steps
    found |= {
        "learning_rate": rate, "lr_scheduler_type": training.scheduler,
        # A share where the number of steps is not known.
        "warmup_steps": round(training.warmup * steps) if steps is not None else training.warmup,
        "optim": training.optimizer, "weight_decay": training.weight_decay, "max_grad_norm": training.max_grad_norm,
        "seed": training.seed, "logging_steps": 1,
    }  # fmt: skip
    if not out.config.data.shuffle:
        found["train_sampling_strategy"] = "sequential"
        out.tell("data.shuffle", "mapped", "train_sampling_strategy")
    if validation != "None":
        found |= {
            "eval_strategy": "steps",
            "eval_steps": 0.125 if training.eval_steps == "auto" else training.eval_steps,
        }
        out.tell("training.eval_steps", "mapped", "eval_steps")
    by_epoch = training.save_steps == "auto"
    found |= {"save_strategy": "epoch"} if by_epoch else {"save_strategy": "steps", "save_steps": training.save_steps}
    found["save_total_limit"] = training.save_total_limit
    found["report_to"] = training.report_to or "none"
    found["gradient_checkpointing"] = training.activation_checkpointing is True
    for name in ("batch_size", "micro_batch_size", "epochs", "max_steps", "scheduler", "warmup", "optimizer",
                 "weight_decay", "max_grad_norm", "save_steps", "save_total_limit", "report_to",
                 "activation_checkpointing"):  # fmt: skip
        out.tell(f"training.{name}", "mapped", f"{trainer.name}Config")
    found |= trainer.options(out)
    text = {name: source(value) for name, value in found.items()}
    exact = out.config.model.dtype == "float32"
    return {**text, "bf16": "False" if exact else "bf16", "use_cpu": "not torch.cuda.is_available()"}
