"""A run as a config of LLaMA-Factory: only keys that it knows, and a comment for what has no counterpart there.

Every option that the run reads and that is not as the tool would have it anyway gets a line in the report; one without
a counterpart is refused there, and a comment in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.config import RunConfig
from studio.config.describe import OptionSpec, options_of, value_at
from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError
from studio.interop.llama_factory.datafiles import write_datasets
from studio.interop.llama_factory.keys import BACK, SCHEDULE_KEYS, TITLE, targets_back
from studio.interop.llama_factory.methods import PAIRWISE, STAGES, WITHOUT_REFERENCE
from studio.interop.report import Exported, Line, Status, by_part, rows_at_a_time
from studio.interop.yamltext import document

CONFIG = "train.yaml"
# For the embedded model, where it comes from.
_EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
_STAGE_OF = {ours: theirs for theirs, ours in STAGES.items()}
_USUAL_SIZE = 7e9  # parameters of the model whose usual rate is written where the size is not known here
_MICRO = 8  # examples at a time at most, where the studio chooses
# Theirs where ours says another thing by default, and those that change nothing in the result.
_KL_COEF = 0.2
_NO_COUNTERPART = "LLaMA-Factory has no counterpart"
_BREAK = "The line break that many templates write behind an answer counts there; with turns it does here, too"


class _Out:
    """The keys of theirs so far, and what was said of ours."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.values = config, config.model_dump(mode="json")
        self.specs = {spec.path: spec for spec in options_of(RunConfig)}
        self.keys: dict[str, Any] = {}
        self.report: list[Line] = []

    def get(self, path: str) -> Any:
        return value_at(self.values, path)

    def reads(self, path: str) -> bool:
        spec = self.specs[path]
        needed = self.get(spec.needs[0]) if spec.needs else None
        return spec.applies(self.config.method.name, self.config.tuning.name) and spec.is_read_with(needed)

    def put(self, path: str, keys: dict[str, Any], why: str = "", status: Status = "mapped") -> None:
        self.keys |= keys
        self.report.append(Line(path, status, ", ".join(keys), why))

    def lose(self, path: str, why: str = _NO_COUNTERPART) -> None:
        self.report.append(Line(path, "refused", "", why))


def write_config(config: RunConfig) -> Exported:
    """Return a run as files for LLaMA-Factory: train.yaml, dataset_info.json, and the data as it reads it.

    Raises:
        InputError: it has no such method.
    """
    out = _Out(config)
    _model(out)
    _method(out)
    _tuning(out)
    data = write_datasets(out.config, out.put)
    _training(out)
    said = {line.key for line in out.report}
    for path, spec in out.specs.items():
        if path not in said and path not in _SILENT and out.reads(path) and not _usual(spec, out.get(path)):
            out.lose(path)
    order = {path: at for at, path in enumerate(out.specs)}
    report = sorted(out.report, key=lambda line: order.get(line.key, 0))
    told = [line for line in report if line.status in ("refused", "approximated")]
    head = [f"Run with: llamafactory-cli train {CONFIG}", *(f"{one.status}: {one.key} - {one.why}" for one in told)]
    files = {CONFIG: document(out.keys, head), "dataset_info.json": data.info}
    return Exported(TITLE, files, f"llamafactory-cli train {CONFIG}", report, data.rows)


def _usual(spec: OptionSpec, value: Any) -> bool:
    return bool(value == spec.default)


# Said by others, or without any effect on what is trained.
_SILENT = {
    "data.stopping_strategy",
    "data.validation_split",
    "training.keep_best",
    "tuning.merge_adapter",
}


def _precision(out: _Out) -> None:
    """Without bf16 nothing is converted there: trained weights are float32, frozen ones as their files have them."""
    dtype, adapter = out.get("model.dtype"), out.config.tuning.kind.adapter
    if dtype == "bfloat16":
        out.put("model.dtype", {"bf16": True})
    elif adapter:
        why = "Without bf16 the frozen weights are computed in the numbers of their files there, often bfloat16"
        out.put("model.dtype", {}, why, "approximated")
    else:
        why = "Without bf16 all that is trained is computed in float32 there"
        out.put("model.dtype", {}, why, "mapped" if dtype == "float32" else "approximated")


def _model(out: _Out) -> None:
    path = out.get("model.path")
    known = path == EMBEDDED_MODEL
    out.put("model.path", {"model_name_or_path": _EMBEDDED if known else path}, "Its name on the Hub" if known else "",
            "approximated" if known else "mapped")  # fmt: skip
    if (revision := out.get("model.revision")) != "main":
        out.put("model.revision", {"model_revision": revision})
    _precision(out)
    attention = out.get("model.attention")
    if attention in BACK:
        out.put("model.attention", {} if attention == "auto" else {"flash_attn": BACK[attention]})
    if (rope := out.get("model.rope_scaling")) != "none":
        out.put("model.rope_scaling", {"rope_scaling": rope})
        out.put("model.rope_factor", {}, "There it follows from cutoff_len", "approximated")
    if out.get("model.trust_remote_code"):
        out.put("model.trust_remote_code", {"trust_remote_code": True}, "An import leaves it off", "approximated")


def _method(out: _Out) -> None:
    name = out.config.method.name
    if name in WITHOUT_REFERENCE:
        if out.reads("method.orpo_loss") and out.get("method.orpo_loss") != name:
            raise _lacking(f"the loss {out.get('method.orpo_loss')}", "method.orpo_loss")
        out.put("method.name", {"stage": "dpo", "pref_loss": name})
    elif name in _STAGE_OF:
        out.put("method.name", {"stage": _STAGE_OF[name]})
    else:
        raise _lacking(f"the method {name}", "method.name")
    out.keys |= {"do_train": True}
    if out.reads("method.dpo_loss"):
        _dpo(out)
    if out.reads("method.beta"):
        beta = out.get("method.beta")
        out.put("method.beta", {"pref_beta": out.config.method.kind.beta if beta == "auto" else beta})
    for path, key in (
        ("method.simpo_gamma", "simpo_gamma"), ("method.desirable_weight", "kto_chosen_weight"),
        ("method.undesirable_weight", "kto_rejected_weight"), ("method.neftune_noise_alpha", "neftune_noise_alpha"),
    ):  # fmt: skip
        if out.reads(path) and not _usual(out.specs[path], out.get(path)):
            out.put(path, {key: out.get(path)})
    if out.reads("method.train_on"):
        keys = {"all": {"train_on_prompt": True}, "last": {"mask_history": True}}
        tokens = out.get("method.train_on")
        exact = tokens in ("turns", "all")
        out.put("method.train_on", keys.get(tokens, {}), "" if exact else _BREAK, "mapped" if exact else "approximated")
    if out.reads("method.loss") and out.get("method.loss") == "dft":
        out.put("method.loss", {"use_dft_loss": True})
    if out.reads("method.documents"):
        out.put("method.documents", {"packing": out.get("method.documents") == "join"})
    if out.reads("method.kl_target"):
        _ppo(out)


def _lacking(what: str, where: str) -> InputError:
    return InputError(f"{TITLE} does not have {what}", where=where, fix="Train it here, or choose another method")


def _dpo(out: _Out) -> None:
    """One loss, alone or with the likelihood of the chosen answer beside it."""
    losses, weights = out.get("method.dpo_loss"), out.get("method.dpo_loss_weights")
    weights = weights or [1.0] * len(losses)
    first = [loss for loss in losses if loss in PAIRWISE]
    share = dict(zip(losses, weights, strict=True))
    if len(first) == 1 and set(losses) <= {first[0], "sft"} and share[first[0]] > 0:
        out.put("method.dpo_loss", {"pref_loss": first[0]})
        if "sft" in share:
            why = "The likelihood of the chosen answer, by answer there and by token here"
            out.put("method.dpo_loss_weights", {"pref_ftx": share["sft"] / share[first[0]]}, why, "approximated")
        elif share[first[0]] != 1:
            out.lose("method.dpo_loss_weights", "A single loss has no weight there")
    else:
        out.lose("method.dpo_loss", f"It has {', '.join(PAIRWISE)}, each alone or with sft beside it")
        out.lose("method.dpo_loss_weights")


def _ppo(out: _Out) -> None:
    if out.get("method.rewards") != ["model"]:
        raise _lacking("rewards other than a reward model", "method.rewards")
    out.put("method.rewards", {})
    out.put("method.reward_model", {"reward_model": out.get("method.reward_model")})
    target = out.get("method.kl_target")
    if target is None:
        out.put("method.kl_target", {}, "Its coefficient is always adapted, to 6 if nothing is said", "approximated")
    else:
        out.put("method.kl_target", {"ppo_target": target})
    if out.get("method.kl_coef") != _KL_COEF:
        out.lose("method.kl_coef", f"Its coefficient begins at {_KL_COEF}")
    out.put("method.ppo_epochs", {"ppo_epochs": out.get("method.ppo_epochs")})
    out.put("method.whiten_rewards", {"ppo_score_norm": out.get("method.whiten_rewards")})
    out.put("method.max_completion_length", {"max_new_tokens": out.get("method.max_completion_length")})
    out.put("method.temperature", {"temperature": out.get("method.temperature"), "top_p": 1.0, "top_k": 0})


def _tuning(out: _Out) -> None:
    kind = out.config.tuning.kind
    out.put("tuning.name", {"finetuning_type": "lora" if kind.adapter else "full"})
    if not kind.adapter:
        return
    if kind.quantized:
        out.put("tuning.bits", {"quantization_bit": int(out.get("tuning.bits")), "quantization_method": "bnb"})
    if out.config.tuning.uses_dora:
        out.keys["use_dora"] = True
        if out.reads("tuning.dora"):
            out.put("tuning.dora", {"use_dora": True})
    out.put("tuning.rank", {"lora_rank": out.get("tuning.rank")})
    alpha = out.get("tuning.alpha")
    whole = 2 * out.get("tuning.rank") if alpha == "auto" else max(1, round(alpha))
    if alpha in ("auto", whole):
        out.put("tuning.alpha", {"lora_alpha": whole})
    else:
        out.put("tuning.alpha", {"lora_alpha": whole}, "A whole number there", "approximated")
    out.put("tuning.target_modules", {"lora_target": targets_back(out.get("tuning.target_modules"))})
    plain: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("tuning.dropout", "lora_dropout", float), ("tuning.rslora", "use_rslora", bool),
        ("tuning.lora_plus_ratio", "loraplus_lr_ratio", float), ("tuning.adapter", "adapter_name_or_path", str),
        ("tuning.merge_adapter", "create_new_adapter", bool), ("tuning.quant_type", "quantization_type", str),
        ("tuning.modules_to_save", "additional_target", ",".join), ("tuning.double_quant", "double_quantization", bool),
    )  # fmt: skip
    alone = () if out.get("tuning.adapter") else ("tuning.merge_adapter",)  # there is nothing to merge
    for path, key, write in plain:
        if out.reads(path) and path not in alone and not _usual(out.specs[path], out.get(path)):
            out.put(path, {key: write(out.get(path))})
    # It does not start so where a reference is held, or a value head.
    plain_loss = out.config.method.kind.cost.reference == "never"
    if out.reads("tuning.init") and out.get("tuning.init") == "pissa" and plain_loss:
        out.put("tuning.init", {"pissa_init": True, "pissa_iter": -1})


def _training(out: _Out) -> None:
    _batch(out)
    rate = out.get("training.learning_rate")
    if rate == "auto":
        rules = (one for one in out.config.method.kind.rates if one.adapter == out.config.tuning.kind.adapter)
        size = 0.135e9 if out.get("model.path") == EMBEDDED_MODEL else _USUAL_SIZE
        rate = next(one.value for one in rules if size < one.below)
        why = f"auto goes by the model's size; this is the rate for {size / 1e9:g} billion parameters"
        out.put("training.learning_rate", {"learning_rate": rate}, why, "approximated")
    else:
        out.put("training.learning_rate", {"learning_rate": rate})
    out.put("training.epochs", {"num_train_epochs": out.get("training.epochs")})
    _schedule(out)
    out.put("training.optimizer", {"optim": out.get("training.optimizer")})
    for path, key in (
        ("training.max_steps", "max_steps"), ("training.weight_decay", "weight_decay"),
        ("training.max_grad_norm", "max_grad_norm"), ("training.early_stopping", "early_stopping_steps"),
    ):  # fmt: skip
        if not _usual(out.specs[path], out.get(path)):
            out.put(path, {key: out.get(path)})
    if (metric := out.get("training.metric_for_best_model")) != "auto":
        out.put("training.metric_for_best_model", {"metric_for_best_model": metric})
    if out.get("training.activation_checkpointing") is False:
        out.put("training.activation_checkpointing", {"disable_gradient_checkpointing": True})
    else:
        out.put("training.activation_checkpointing", {}, "It recomputes activations unless it is turned off")
    path = "training.activation_offloading"
    if out.get(path) != "auto" and out.reads(path):
        out.put(path, {"use_unsloth_gc": out.get(path)})
    if out.get("training.padding_free") and out.reads("training.padding_free"):
        if out.reads("method.documents"):
            out.lose("training.padding_free", "Documents are packed there as method.documents says")
        else:
            why = "It fills rows up to the limit, so that an update has another number of examples"
            out.put("training.padding_free", {"neat_packing": True}, why, "approximated")
    _rhythm(out)
    out.put("training.seed", {"seed": out.get("training.seed")})
    out.put("training.report_to", {"report_to": out.get("training.report_to") or "none"})
    if out.get("training.engine") == "unsloth" and out.reads("training.engine"):
        out.put("training.engine", {"use_unsloth": True})
    device = out.get("training.device")
    if device == "cpu":
        out.put("training.device", {"use_cpu": True})
    elif device != "any":
        out.lose("training.device", f"Set CUDA_VISIBLE_DEVICES={device.partition(':')[2]} in front of the command")
    if out.get("training.devices") != "auto":
        out.lose("training.devices", "The file is for one process: divide gradient_accumulation_steps by their number")
    if out.get("training.nodes") != 1:
        out.lose("training.nodes", "Several machines are started with FORCE_TORCHRUN=1 NNODES=N NODE_RANK=n there")
    if out.get("training.parallel") != "auto":
        out.lose("training.parallel", "Several processes are started with FORCE_TORCHRUN=1 and compute as ddp there")
    out.keys |= {"output_dir": "saves/run", "logging_steps": 1, "plot_loss": True, "overwrite_output_dir": True}


def _schedule(out: _Out) -> None:
    name = out.get("training.scheduler")
    keys: dict[str, Any] = {"lr_scheduler_type": name}
    why = ""
    if name in SCHEDULE_KEYS:
        keys["lr_scheduler_kwargs"] = SCHEDULE_KEYS[name]
    elif name == "warmup_stable_decay":
        why = "The last two thirds of the steps after the warmup decay there, the last tenth of all steps here"
    out.put("training.scheduler", keys, why, "approximated" if why else "mapped")
    out.put("training.warmup", {"warmup_ratio": out.get("training.warmup")})


def _batch(out: _Out) -> None:
    micro = rows_at_a_time(out.config, range(_MICRO, 0, -1))
    differs, why = by_part(out.config.method, out.config.training.batch_size, micro), ""
    if out.get("training.micro_batch_size") == "auto":
        why = "auto goes by the memory here; the result does not depend on it"
    out.put(
        "training.micro_batch_size", {"per_device_train_batch_size": micro}, differs or why,
        "approximated" if differs else "mapped",
    )  # fmt: skip
    out.put("training.batch_size", {"gradient_accumulation_steps": out.get("training.batch_size") // micro})


def _rhythm(out: _Out) -> None:
    """When it validates and saves: by epoch where the studio chooses."""
    steps = out.get("training.eval_steps")
    if out.get("data.validation") != 0:
        keys = {"eval_strategy": "epoch"} if steps == "auto" else {"eval_strategy": "steps", "eval_steps": steps}
        if steps == "auto":
            out.put("training.eval_steps", keys, "auto is eight times per run; there once per epoch", "approximated")
        else:
            out.put("training.eval_steps", keys)
    elif steps != "auto":
        out.lose("training.eval_steps", "Nothing is held out")
    saves = out.get("training.save_steps")
    if out.get("training.load_best_model_at_end"):
        if out.get("data.validation") == 0 or out.config.method.kind.result != "model" or out.config.method.kind.online:
            why = "It needs validation rows, and is not there for reward models and ppo"
            out.lose("training.load_best_model_at_end", why)
        else:
            # Where the best is loaded, it must be saved whenever it is validated.
            out.put("training.load_best_model_at_end", {"load_best_model_at_end": True})
            saves = steps
    if saves != out.get("training.save_steps"):
        why = "With load_best_model_at_end it saves when it validates"
        keys = {"save_strategy": "epoch"} if saves == "auto" else {"save_strategy": "steps", "save_steps": saves}
        out.put("training.save_steps", keys, why, "approximated")
    elif saves == "auto":
        out.put("training.save_steps", {"save_strategy": "epoch"})
    else:
        out.put("training.save_steps", {"save_strategy": "steps", "save_steps": saves})
    out.put("training.save_total_limit", {"save_total_limit": out.get("training.save_total_limit")})
