"""The keys of transformers' TrainingArguments, which several tools share, in the names of versions 4 and 5.

What a tool means differently it says itself, before it applies these rules or with rules of its own over them.
"""

from __future__ import annotations

from typing import Any

from studio.config.describe import options_of
from studio.config.training import TrainingConfig
from studio.interop.draft import Draft
from studio.interop.rules import ONE_DEVICE, Rule, approximated, ignored, mapped, refused, table
from studio.interop.values import flag, number, text, whole, words

_OPTIONS = {spec.path: spec for spec in options_of(TrainingConfig)}
SCHEDULERS, OPTIMIZERS = _OPTIONS["scheduler"].choices, _OPTIONS["optimizer"].choices
TRACKERS = _OPTIONS["report_to"].choices
_OTHER_NAMES = {
    "adamw_hf": "adamw_torch", "adamw": "adamw_torch", "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit", "lion_bnb_8bit": "lion_8bit",
}  # fmt: skip
_RECORD = "Every step is recorded"
_SPEED = "It changes speed or memory, not the result; the studio chooses for itself"
_FOLDER = "A run has a folder of its own in the studio's home"


def batch(draft: Draft, times: int = 1) -> None:
    """Say what becomes of the batch: per device, accumulated and by several processes there, one number here.

    Args:
        draft: the import.
        times: processes that each take batches of their own.

    Raises:
        InputError: a value is no number.
    """
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
    micro, steps = draft.get(keys[0], whole, 8), draft.get(keys[1], whole, 1)
    size = micro * steps * times
    of = f" × {times} processes" if times > 1 else ""
    why = f"Examples per update: {micro} at a time × {steps} accumulated{of} = {size}"
    draft.set("training.batch_size", size, keys[1] if draft.has(keys[1]) else keys[0])
    draft.set("training.micro_batch_size", micro, keys[0])
    if draft.has(keys[0]):
        draft.say(keys[0], "mapped", "training.micro_batch_size", "" if draft.has(keys[1]) else why)
    if draft.has(keys[1]):
        draft.say(keys[1], "mapped", "training.batch_size", why)


def _max_steps(draft: Draft, value: int) -> None:
    if value > 0:
        draft.map("max_steps", "training.max_steps", value)
    else:
        draft.say("max_steps", "ignored", why="With this value there is no limit")


def _scheduler(draft: Draft, value: str) -> None:
    word = value.lower()
    if word in SCHEDULERS:
        draft.map("lr_scheduler_type", "training.scheduler", word)
    else:
        why = f"There is no scheduler {word}; choose one of {', '.join(SCHEDULERS)}"
        draft.say("lr_scheduler_type", "refused", "training.scheduler", why)


def _optimizer(draft: Draft, value: str) -> None:
    word = _OTHER_NAMES.get(value.lower(), value.lower())
    if word in OPTIMIZERS:
        draft.map("optim", "training.optimizer", word)
    else:
        why = f"There is no optimizer {word}; choose one of {', '.join(OPTIMIZERS)}"
        draft.say("optim", "refused", "training.optimizer", why)


def _warmup_steps(draft: Draft, value: float) -> None:
    """A number of steps becomes a share where the steps of the run are known; below 1 it is one (transformers 5)."""
    steps = draft.get("max_steps", whole, 0)
    if value == 0:
        draft.say("warmup_steps", "ignored", why="None, or what warmup_ratio says")
    elif value < 1:
        draft.map("warmup_steps", "training.warmup", value)
    elif steps > 0:
        share = round(min(1.0, value / steps), 6)
        draft.map("warmup_steps", "training.warmup", share, f"A share of the {steps} steps")
    else:
        share = draft.specs["training.warmup"].default
        why = f"The studio takes a share of the steps, which are not known yet: {share} is written; change it"
        draft.map("warmup_steps", "training.warmup", share, why, "approximated")


def _warmup_ratio(draft: Draft, value: float) -> None:
    if draft.get("warmup_steps", number, 0) > 0:
        draft.say("warmup_ratio", "ignored", why="warmup_steps takes its place")
    else:
        draft.map("warmup_ratio", "training.warmup", value)


def _trackers(draft: Draft, value: Any) -> None:
    named = [word.lower() for word in ([] if str(value).lower() in ("none", "[]", "false") else words(value))]
    taken = [word for word in named if word in TRACKERS]
    lost = [word for word in named if word not in (*TRACKERS, "none", "all")]
    if lost:
        why = f"{', '.join(lost)} is none of the trackers here: {', '.join(TRACKERS)}"
        draft.map("report_to", "training.report_to", taken, why, "approximated" if taken else "refused")
    elif "all" in named:
        why = "All that are installed there; name those that you want"
        draft.map("report_to", "training.report_to", [], why, "approximated")
    else:
        draft.map("report_to", "training.report_to", taken)


def _every(key: str, strategy: tuple[str, ...], to: str) -> Rule:
    """Steps between validations or checkpoints; a share of the run becomes auto."""

    def steps(draft: Draft, value: float) -> None:
        named = next((draft.get(one, text) for one in strategy if draft.has(one)), "")
        if named.lower() in ("epoch", "no", "false", "best"):
            draft.say(key, "ignored", why=f"It is not read with {strategy[0]}: {named}")
        elif value < 1:
            draft.map(key, to, "auto", "A share of the run there", "approximated")
        else:
            draft.map(key, to, whole(value))

    return Rule(key, "mapped", to, read=number, instead=steps)


def _strategy(key: str, to: str, auto: str, off: str) -> Rule:
    def how(draft: Draft, value: Any) -> None:
        word = str(value).lower()
        if word == "steps":
            draft.say(key, "mapped", to)
        elif word in ("no", "false"):
            draft.say(key, "approximated", to, off)
        else:
            draft.map(key, to, "auto", auto, "mapped" if word == "epoch" and "epoch" in auto else "approximated")

    return Rule(key, "mapped", to, read=str, instead=how)


def _metric(value: Any) -> str:
    word = text(value)
    return word if word.startswith("eval_") or word == "auto" else f"eval_{word}"


def _push(draft: Draft, value: bool) -> None:
    repo = draft.get("hub_model_id", text, "")
    if not value:
        draft.say("push_to_hub", "ignored", why="With this value it asks for nothing")
    elif not repo:
        draft.say("push_to_hub", "refused", why="hub_model_id is not given; studio export RUN --to hub asks for a name")
    else:
        draft.exports.append({"to": "hub", "what": "merged", "repo": repo})
        draft.say("push_to_hub", "approximated", why="An export after the training uploads the result")


def _repo(draft: Draft, value: str) -> None:
    pushed = draft.get("push_to_hub", flag, False)
    why = "" if pushed else "Nothing is uploaded without push_to_hub"
    draft.say("hub_model_id", "mapped" if pushed else "ignored", "export: repo" if pushed else "", why)


def _on_cpu(key: str) -> Rule:
    def device(draft: Draft, value: bool) -> None:
        if value:
            draft.map(key, "training.device", "cpu")
        else:
            draft.say(key, "ignored", why="With this value it asks for nothing")

    return Rule(key, "mapped", "training.device", read=flag, instead=device)


def _sampling(draft: Draft, value: str) -> None:
    if value.lower() == "sequential":
        draft.map("train_sampling_strategy", "data.shuffle", False)
    else:
        draft.say("train_sampling_strategy", "ignored", why=_SPEED)


_EVAL = ("eval_strategy", "evaluation_strategy")
_SHARED_EVAL = (
    "training.eval_steps",
    "Once per epoch there; auto is eight times per run",
    "Where there are validation rows, the studio validates; the weights do not depend on it",
)
# fmt: off
RULES = table(
    mapped("learning_rate", "training.learning_rate", number, default=5e-5),
    mapped("num_train_epochs", "training.epochs", number, default=3.0),
    Rule("max_steps", "mapped", "training.max_steps", read=whole, write=whole, instead=_max_steps),
    Rule(
        "lr_scheduler_type", "mapped", "training.scheduler", read=text, write=str, default="linear",
        instead=_scheduler,
    ),
    Rule(
        "warmup_ratio", "mapped", "training.warmup", read=number, write=float, default=0.0, instead=_warmup_ratio
    ),
    Rule("warmup_steps", "mapped", "training.warmup", read=number, instead=_warmup_steps),
    Rule(
        "optim", "mapped", "training.optimizer", read=text, write=str, default="adamw_torch_fused", instead=_optimizer
    ),
    mapped("weight_decay", "training.weight_decay", number, default=0.0),
    mapped("max_grad_norm", "training.max_grad_norm", number, default=1.0),
    mapped("seed", "training.seed", whole, default=42),
    mapped("load_best_model_at_end", "training.load_best_model_at_end", flag),
    mapped("metric_for_best_model", "training.metric_for_best_model", _metric),
    mapped("save_total_limit", "training.save_total_limit", whole),
    mapped("neftune_noise_alpha", "method.neftune_noise_alpha", number),
    Rule("report_to", "mapped", "training.report_to", write=list, none=True, instead=_trackers),
    _every("eval_steps", _EVAL, "training.eval_steps"),
    _every("save_steps", ("save_strategy",), "training.save_steps"),
    _strategy("eval_strategy", *_SHARED_EVAL),
    _strategy("evaluation_strategy", *_SHARED_EVAL),
    _strategy("save_strategy", "training.save_steps", "Once per epoch, as auto",
              "A run always keeps checkpoints, from which it resumes; keep_checkpoints says which stay"),
    approximated("gradient_checkpointing", "training.activation_checkpointing", flag, "The same, by another name"),
    approximated("activation_checkpointing", "training.activation_checkpointing", flag, "The same, by another name"),
    _on_cpu("use_cpu"),
    _on_cpu("no_cuda"),
    Rule("train_sampling_strategy", "mapped", "data.shuffle", read=text, instead=_sampling),
    Rule("push_to_hub", "approximated", read=flag, instead=_push),
    Rule("hub_model_id", "mapped", read=text, instead=_repo),
    Rule("data_seed", "approximated", why="The order of the rows comes from training.seed"),
    refused("AdamW has its usual values here", "adam_beta1", off=(0.9,)),
    refused("AdamW has its usual values here", "adam_beta2", off=(0.999,)),
    refused("AdamW has its usual values here", "adam_epsilon", off=(1e-8,)),
    refused("The optimizers and schedulers have their usual settings here", "optim_args", "lr_scheduler_kwargs",
            "optim_target_modules"),
    refused("The loss has no label smoothing here", "label_smoothing_factor"),
    ignored("Greater or smaller follows from the metric", "greater_is_better"),
    ignored(_FOLDER, "output_dir", "overwrite_output_dir", "logging_dir"),
    ignored("A run is named when it is started: studio train FILE --name NAME", "run_name", "project"),
    ignored("A run trains", "do_train", "do_eval"),
    ignored("Answers are counted by studio evaluate", "do_predict", "predict_with_generate", "generation_max_length",
            "generation_num_beams", "generation_config", "prediction_loss_only", "include_for_metrics",
            "batch_eval_metrics", "include_inputs_for_metrics"),
    ignored("A run is continued with studio jobs resume, with the same result", "resume_from_checkpoint",
            "ignore_data_skip", "restore_callback_states_from_checkpoint", "save_only_model", "save_safetensors",
            "enable_jit_checkpoint"),
    ignored(_RECORD, "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter",
            "include_num_input_tokens_seen", "include_tokens_per_second", "log_level", "log_level_replica",
            "log_on_each_node", "disable_tqdm", "debug", "skip_memory_metrics"),
    ignored("It belongs to a tracker's page, not to the training", "trackio_space_id", "trackio_bucket_id",
            "trackio_static_space_id"),
    ignored("An export to the Hub asks for it", "hub_token", "hub_private_repo", "hub_strategy", "hub_always_push",
            "hub_revision", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"),
    ignored(ONE_DEVICE, "ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
            "ddp_static_graph", "ddp_backend", "fsdp", "fsdp_config", "fsdp_min_num_params",
            "fsdp_transformer_layer_cls_to_wrap", "deepspeed", "local_rank", "accelerator_config",
            "parallelism_config", "average_tokens_across_devices", "save_on_each_node", "ray_scope", "xpu_backend",
            "tpu_num_cores", "tpu_metrics_debug", "mp_parameters", "sharded_ddp"),
    ignored(_SPEED, "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
            "dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "torch_compile",
            "torch_compile_backend", "torch_compile_mode", "tf32", "use_liger_kernel", "liger_kernel_config",
            "use_cache", "torch_empty_cache_steps", "auto_find_batch_size", "per_device_eval_batch_size",
            "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object", "bf16_full_eval",
            "fp16_full_eval", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", "group_by_length",
            "length_column_name", "sortish_sampler", "full_determinism", "use_mps_device", "jit_mode_eval", "use_ipex",
            "half_precision_backend", "fp16_opt_level", "torchdynamo", "past_index"),
    ignored("Rows are read by what the method needs of them", "remove_unused_columns", "label_names"),
    ignored("Validations are spread over the run", "eval_delay", "eval_on_start"),
    refused("The last batch of an epoch is never dropped here", "dataloader_drop_last"),
)
# fmt: on
