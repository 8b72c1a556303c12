"""A run as an Axolotl config: only keys that Axolotl knows, and a comment for what has no counterpart."""

from __future__ import annotations

from typing import Any

from studio.config.run import RunConfig
from studio.errors import InputError
from studio.interop.axolotl.reading import TITLE
from studio.interop.axolotl.sets import write_sets
from studio.interop.report import Exported, by_part, rows_at_a_time
from studio.interop.sheets.outgoing import Outgoing

NAME = "axolotl.yml"
# Templates of ours that Axolotl has under a name of its own.
_TEMPLATES = {"auto": "tokenizer_default", "chatml": "chatml", "llama3": "llama3", "gemma": "gemma", "phi": "phi_3",
              "mistral": "mistral_v1"}  # fmt: skip
_TRUNCATION = {"error": "raise", "drop": "drop", "cut": "truncate"}
# Without a plan nobody knows what the model reads; this is what most examples of Axolotl have.
_LENGTH = 2048
# Steps of warmup, where a share cannot be given and nobody knows how many steps there are.
_WARMUP = 10
_RL = ("dpo", "orpo", "simpo", "kto", "grpo")


def write(config: RunConfig) -> Exported:
    """Return a run as Axolotl's YAML.

    Args:
        config: the run.

    Raises:
        InputError: Axolotl has no such method.
    """
    kind = config.method.kind
    if kind.name not in _RL and kind.rows != "answers" and kind.result != "scorer":
        raise InputError(
            f"{TITLE} has no {kind.title}", where="method.name", fix="Choose another tool, or train it here"
        )
    out = Outgoing(config, TITLE)
    _model(out)
    _tuning(out)
    write_sets(out)
    _data(out)
    _method(out)
    _training(out)
    return Exported(TITLE, {NAME: out.yaml()}, f"axolotl train {NAME}", out.report())


def _model(out: Outgoing) -> None:
    model = out.config.model
    out.model("base_model")
    if model.revision != "main":
        out.put("revision_of_model", model.revision, "model.revision")
    if model.trust_remote_code:
        out.put("trust_remote_code", True, "model.trust_remote_code")
    if model.dtype == "auto":
        out.put("bf16", "auto", "model.dtype")
    else:
        out.put("bf16", model.dtype == "bfloat16", "model.dtype")
    if model.attention != "auto":
        out.put("attn_implementation", model.attention, "model.attention")
    if model.rope_scaling != "none":
        rope = {"rope_scaling": {"rope_type": model.rope_scaling, "factor": model.rope_factor}}
        out.put("overrides_of_model_config", rope, "model.rope_scaling")
        out.tell("model.rope_factor", "mapped", "overrides_of_model_config")


def _tuning(out: Outgoing) -> None:
    tuning = out.config.tuning
    if not tuning.kind.adapter:
        out.tell("tuning.name", "mapped", "adapter", "Without the key all weights are trained")
        return
    quantized = tuning.kind.quantized
    four = quantized and tuning.bits == "4"
    out.put("adapter", "qlora" if four else "lora", "tuning.name")
    if quantized:
        out.put("load_in_4bit" if four else "load_in_8bit", True, "tuning.bits")
    if four and (tuning.quant_type != "nf4" or not tuning.double_quant):
        kwargs = {"bnb_4bit_quant_type": tuning.quant_type, "bnb_4bit_use_double_quant": tuning.double_quant}
        out.put("bnb_config_kwargs", kwargs, "tuning.quant_type")
        out.tell("tuning.double_quant", "mapped", "bnb_config_kwargs")
    if tuning.uses_dora:
        out.put("peft_use_dora", True, "tuning.dora" if quantized else "tuning.name")
    out.put("lora_r", tuning.rank, "tuning.rank")
    alpha = 2 * tuning.rank if tuning.alpha == "auto" else tuning.alpha
    if alpha == int(alpha):
        out.put("lora_alpha", int(alpha), "tuning.alpha")
    else:
        out.put("lora_alpha", max(1, round(alpha)), "tuning.alpha", "A whole number is needed", "approximated")
    out.put("lora_dropout", tuning.dropout, "tuning.dropout")
    if tuning.target_modules == "all-linear":
        out.put("lora_target_linear", True, "tuning.target_modules")
    else:
        out.put("lora_target_modules", tuning.target_modules, "tuning.target_modules")
    for path, key in (
        ("tuning.rslora", "peft_use_rslora"), ("tuning.rank_pattern", "lora_rank_pattern"),
        ("tuning.alpha_pattern", "lora_alpha_pattern"), ("tuning.layers_to_transform", "peft_layers_to_transform"),
        ("tuning.adapter", "lora_model_dir"), ("tuning.modules_to_save", "lora_modules_to_save"),
        ("tuning.lora_plus_ratio", "loraplus_lr_ratio"),
    ):  # fmt: skip
        out.changed(path, key)
    if out.reads("tuning.init") and tuning.init != "default":
        out.put("peft_init_lora_weights", tuning.init, "tuning.init")


def _data(out: Outgoing) -> None:
    data = out.config.data
    if data.max_length == "auto":
        why = "The studio takes what the model reads; set it to the longest example"
        out.put("sequence_len", _LENGTH, "data.max_length", why, "approximated")
    else:
        out.put("sequence_len", data.max_length, "data.max_length")
    out.put("excess_length_strategy", _TRUNCATION[data.truncation], "data.truncation")
    if isinstance(data.validation, str):
        out.tell("data.validation", "mapped", "test_datasets")
    else:
        out.put("val_set_size", data.validation, "data.validation")
    if data.template in _TEMPLATES:
        out.put("chat_template", _TEMPLATES[data.template], "data.template")
    if data.deduplicate == "exact":
        out.put("dataset_exact_deduplication", True, "data.deduplicate")
    if not data.shuffle:
        out.put("curriculum_sampling", True, "data.shuffle")
    if data.system:
        why = "Axolotl gives it to templates that have a place for it"
        out.put("default_system_message", data.system, "data.system", why, "approximated")


def _method(out: Outgoing) -> None:
    method, name = out.config.method, out.config.method.name
    out.tell("method.name", "mapped", "rl")
    if name in _RL:
        out.put("rl", name, "method.name")
        out.put("remove_unused_columns", False)
    elif method.kind.result == "scorer":
        out.put("reward_model", True, "method.name")
        out.put("type_of_model", "AutoModelForSequenceClassification")
        if method.center_rewards_coefficient:
            out.put("center_rewards_coefficient", method.center_rewards_coefficient,
                    "method.center_rewards_coefficient")  # fmt: skip
    if out.reads("method.beta"):
        beta = method.kind.beta if method.beta == "auto" else method.beta
        out.put("rl_beta", beta, "method.beta")
    if out.reads("method.dpo_loss"):
        out.put("dpo_loss_type", list(method.dpo_loss), "method.dpo_loss")
        out.changed("method.dpo_loss_weights", "dpo_loss_weights")
        out.changed("method.label_smoothing", "dpo_label_smoothing")
    if out.reads("method.simpo_gamma"):
        out.put("simpo_gamma", method.simpo_gamma, "method.simpo_gamma")
        out.put("cpo_alpha", 0.0)
    for path, key in (("method.desirable_weight", "kto_desirable_weight"),
                      ("method.undesirable_weight", "kto_undesirable_weight"),
                      ("method.neftune_noise_alpha", "neftune_noise_alpha")):  # fmt: skip
        out.changed(path, key)
    if out.reads("method.train_on"):
        out.put("train_on_inputs", method.train_on == "all")
        if method.train_on == "last":
            out.refused("method.train_on", "every answer of a conversation counts there")
        elif method.train_on == "turns":
            why = "The line break behind an answer does not count there"
            out.tell("method.train_on", "approximated", "train_on_inputs", why)
        else:
            out.tell("method.train_on", "mapped", "train_on_inputs")
    if method.kind.plain:
        out.tell("method.documents", "approximated", "datasets", "A text over the limit is cut into pieces there")
    if method.kind.completions(method) > 1:
        _groups(out)


def _groups(out: Outgoing) -> None:
    method = out.config.method
    settings: dict[str, Any] = {
        "num_generations": method.num_generations, "max_completion_length": method.max_completion_length,
        "temperature": method.temperature, "epsilon": method.clip_range, "loss_type": method.grpo_loss,
    }  # fmt: skip
    if method.rewards == ["python"] and method.reward_python:
        file, _, function = method.reward_python.rpartition(":")
        settings["reward_funcs"] = [f"{file.removesuffix('.py').replace('/', '.')}.{function}"]
        out.tell("method.reward_python", "mapped", "trl")
        out.tell("method.rewards", "mapped", "trl")
    else:
        out.refused("method.rewards", "rewards are Python functions there: name them in trl.reward_funcs")
    out.put("trl", settings)
    for path in ("num_generations", "max_completion_length", "temperature", "clip_range", "grpo_loss"):
        out.tell(f"method.{path}", "mapped", "trl")


def _training(out: Outgoing) -> None:
    training = out.config.training
    micro = rows_at_a_time(out.config, (1, 2))
    why = by_part(out.config.method, training.batch_size, micro)
    out.put("micro_batch_size", micro, "training.micro_batch_size", why, "approximated" if why else "mapped")
    out.put("gradient_accumulation_steps", training.batch_size // micro, "training.batch_size")
    out.put("num_epochs", training.epochs, "training.epochs")
    out.changed("training.max_steps", "max_steps")
    rate, why = out.rate()
    out.put("learning_rate", rate, "training.learning_rate", why, "approximated" if why else "mapped")
    out.put("lr_scheduler", training.scheduler, "training.scheduler")
    if out.reads("method.simpo_gamma"):  # whose trainer takes no share
        steps = training.max_steps
        count = round(training.warmup * steps) if steps is not None else _WARMUP
        why = f"A share of {training.warmup:g} in the studio; it takes a number of steps with this method"
        out.put("warmup_steps", count if training.warmup else 0, "training.warmup", why, "approximated")
    else:
        out.put("warmup_ratio", training.warmup, "training.warmup")
    out.put("optimizer", training.optimizer, "training.optimizer")
    out.put("weight_decay", training.weight_decay, "training.weight_decay")
    out.put("max_grad_norm", training.max_grad_norm, "training.max_grad_norm")
    out.put("seed", training.seed, "training.seed")
    automatic = training.activation_checkpointing == "auto"
    out.put("gradient_checkpointing", automatic or bool(training.activation_checkpointing),
            "training.activation_checkpointing")  # fmt: skip
    if training.activation_offloading != "auto" and training.activation_checkpointing:
        out.put("activation_offloading", "hidden_states" if training.activation_offloading else False,
                "training.activation_offloading")  # fmt: skip
    if out.reads("training.padding_free") and training.padding_free:
        out.put("batch_flattening", "auto", "training.padding_free")
    if out.reads("training.padding_free"):
        out.put("sample_packing", False)
    _steps(out)
    trackers = (("tensorboard", "use_tensorboard"), ("trackio", "use_trackio"), ("mlflow", "use_mlflow"),
                ("wandb", "use_wandb"))  # fmt: skip
    for word, key in trackers:
        if word in training.report_to:
            out.put(key, True, "training.report_to")
    out.put("output_dir", "./outputs")


def _steps(out: Outgoing) -> None:
    training, validates = out.config.training, bool(out.config.data.validation)
    saves = training.save_steps
    if saves == "auto":
        out.put("saves_per_epoch", 1, "training.save_steps")
    else:
        out.put("save_steps", saves, "training.save_steps")
    out.put("save_total_limit", training.save_total_limit, "training.save_total_limit")
    evals = training.eval_steps
    if not validates:
        return
    if evals == "auto":
        times = max(1, round(8 / training.epochs))
        out.put("evals_per_epoch", times, "training.eval_steps", "Eight in the run", "approximated")
    else:
        out.put("eval_steps", evals, "training.eval_steps")
    patience = training.early_stopping
    if patience is not None:
        if isinstance(saves, int) and isinstance(evals, int) and saves % evals == 0:
            out.put("early_stopping_patience", patience, "training.early_stopping")
        else:
            out.refused("training.early_stopping",
                        "it needs save_steps and eval_steps as numbers, one a multiple of the other")  # fmt: skip
    if training.load_best_model_at_end:
        out.put("load_best_model_at_end", True, "training.load_best_model_at_end")
    if training.metric_for_best_model != "auto":
        out.put("metric_for_best_model", training.metric_for_best_model, "training.metric_for_best_model")
