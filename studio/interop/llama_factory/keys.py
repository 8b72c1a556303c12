"""All keys of LLaMA-Factory (main at ff6d4d1, and 0.9.5); those of the training are shared with other tools.

From reading its dataclasses in `src/llamafactory/hparams`; docs/interop.md says what was looked at.
"""

from __future__ import annotations

import json
from typing import Any

from studio.interop.draft import Draft
from studio.interop.rules import ONE_DEVICE, STREAMED, UNBUFFERED, Rule, approximated, ignored, mapped, refused, table
from studio.interop.training_arguments import RULES
from studio.interop.values import flag, number, one_of, text, whole, words
from studio.models.plan.schedule import scheduler_arguments

TITLE = "LLaMA-Factory"
ATTENTION = {
    "auto": "auto", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3",
}  # fmt: skip
ROPE = {word: word for word in ("linear", "dynamic", "yarn", "llama3")}
BACK = {ours: theirs for theirs, ours in ATTENTION.items()}
# What a schedule has here beside its name, and cannot do without there.
SCHEDULE_KEYS = {"cosine_with_min_lr": scheduler_arguments("cosine_with_min_lr", 0, 0.0)}
_MEDIA = "Only text is trained on here"
_NOTHING = "With this value it asks for nothing"
_ENGINE = "It is for another engine than the one that trains here"
_ASKED = "A run's answers are asked for in Chat, with their own settings"


def targets(value: Any) -> str | list[str]:
    """The layers that get an adapter."""
    named = words(value)
    return "all-linear" if "all" in named else named


def targets_back(value: Any) -> str:
    """The same as one text."""
    return "all" if value == "all-linear" else ",".join(value)


def _alpha(value: Any) -> Any:
    return number(value) or "auto"


def _trust(draft: Draft, value: bool) -> None:
    why = "Its examples set it by habit. Set model.trust_remote_code yourself if the model brings code that you trust"
    draft.say("trust_remote_code", "ignored", why=why if value else _NOTHING)


def _unsloth(draft: Draft, value: bool) -> None:
    if value and draft.reads("training.engine"):
        draft.map("use_unsloth", "training.engine", "unsloth")
    elif value:
        why = "Unsloth's engine does not have this method or tuning here"
        draft.say("use_unsloth", "refused", "training.engine", why)
    else:
        draft.say("use_unsloth", "ignored", why=_NOTHING)


def _no_checkpointing(draft: Draft, value: bool) -> None:
    draft.map("disable_gradient_checkpointing", "training.activation_checkpointing", not value)


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping, also as JSON."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("a mapping of settings is needed")
    return found


def _schedule_keys(draft: Draft, given: dict[str, Any]) -> None:
    name = draft.get("lr_scheduler_type", text, "linear").lower()
    if not given or given == SCHEDULE_KEYS.get(name):
        draft.say("lr_scheduler_kwargs", "ignored", why="A run has this setting anyway" if given else _NOTHING)
    else:
        draft.say("lr_scheduler_kwargs", "refused", why="The schedules have their usual settings here")


def _on_cpu(draft: Draft, value: bool) -> None:
    if not value:
        draft.say("use_cpu", "ignored", why=_NOTHING)
        return
    wide = "model.dtype" not in draft.values and not draft.get("fp16", flag, False)
    why = "Without bf16 frozen weights are computed in the numbers of their files there, here in float32"
    draft.map("use_cpu", "training.device", "cpu", why if wide else "")
    if wide:
        draft.set("model.dtype", "float32", "use_cpu")


def _unshuffled(draft: Draft, value: bool) -> None:
    draft.map("disable_shuffling", "data.shuffle", not value)


# fmt: off
MODEL = (
    mapped("model_name_or_path", "model.path", text),
    mapped("model_revision", "model.revision", text),
    mapped("flash_attn", "model.attention", one_of(ATTENTION), BACK.get),
    approximated("rope_scaling", "model.rope_scaling", one_of(ROPE),
                 "The factor follows from cutoff_len there; here model.rope_factor says it, 2 if nothing does",
                 lambda value: None if value == "none" else value),
    Rule("trust_remote_code", "ignored", read=flag, instead=_trust, to="model.trust_remote_code"),
    Rule("use_unsloth", "mapped", "training.engine", read=flag, instead=_unsloth),
    Rule("disable_gradient_checkpointing", "mapped", "training.activation_checkpointing", read=flag,
         instead=_no_checkpointing),
    mapped("use_unsloth_gc", "training.activation_offloading", flag),
    ignored("It changes speed or memory, not the result", "enable_liger_kernel", "use_reentrant_gc",
            "low_cpu_mem_usage", "offload_folder", "use_v1_kernels", "quantization_device_map", "use_fast_tokenizer"),
    ignored("Models are kept in the studio's home, or where HF_HOME says", "cache_dir"),
    ignored("A token is never taken from a config; set HF_TOKEN", "hf_hub_token", "ms_hub_token", "om_hub_token"),
    ignored("It is only said in the log", "print_param_status"),
    ignored(_ASKED, "infer_backend", "infer_dtype", "use_kv_cache", "vllm_maxlen", "vllm_gpu_util",
            "vllm_enforce_eager", "vllm_max_lora_rank", "vllm_config", "sglang_maxlen", "sglang_mem_fraction",
            "sglang_tp_size", "sglang_config", "sglang_lora_backend"),
    Rule("upcast_layernorm", "approximated", why="Where a norm computes is the model's own matter here"),
    Rule("upcast_lmhead_output", "approximated", why="The loss is computed in float32 here anyway"),
    refused("Special tokens cannot be split here", "split_special_tokens"),
    refused("The studio adds no tokens to a model", "add_tokens", "add_special_tokens", "new_special_tokens_config",
            "resize_vocab"),
    ignored("It is only read with new tokens", "init_special_tokens"),
    refused("Such an architecture is not built here", "shift_attn", "mixture_of_depths", "train_from_scratch"),
    refused("The loss of a router is not added here", "moe_aux_loss_coef"),
    refused("An adapter is named by its folder or run here", "adapter_folder"),
    refused(_ENGINE, "use_kt"),
    ignored("It is only read with use_kt", "kt_config", "kt_cpu_activation", "kt_weight_path",
            "kt_non_expert_weight_path", "kt_expert_checkpoint_path", "kt_use_lora_experts", "kt_lora_expert_num",
            "kt_lora_expert_intermediate_size", "kt_optimize_rule", "kt_maxlen", "kt_use_cuda_graph", "kt_mode",
            "kt_force_think"),
    ignored(_MEDIA, "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches",
            "video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen", "use_audio_in_video",
            "audio_sampling_rate", "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model",
            "media_dir"),
    refused("bitsandbytes quantizes here", "quantization_method", off=("bnb", "bitsandbytes")),
    mapped("quantization_type", "tuning.quant_type", one_of({"nf4": "nf4", "fp4": "fp4"})),
    mapped("double_quantization", "tuning.double_quant", flag, default=True),
)
EXPORT = (
    ignored("Merging is done on the CPU", "export_device"),
    refused("Weights are saved as safetensors, which every loader reads", "export_legacy_format"),
    ignored("It is only read with export_quantization_bit", "export_quantization_dataset",
            "export_quantization_nsamples", "export_quantization_maxlen"),
)
DATA = (
    approximated("cutoff_len", "data.max_length", whole,
                 "A longer example loses its end; there prompt and answer are each cut in proportion",
                 lambda value: value, 2048),
    mapped("default_system", "data.system", text),
    Rule("disable_shuffling", "mapped", "data.shuffle", read=flag, instead=_unshuffled),
    ignored(STREAMED, "streaming"),
    ignored(UNBUFFERED, "buffer_size"),
    ignored("Rows are prepared as fast as this machine can, and kept", "overwrite_cache", "preprocessing_batch_size",
            "preprocessing_num_workers", "data_shared_file_system"),
    refused("Prepared data of another tool is not read; name the datasets", "tokenized_path"),
    ignored("Answers are counted by studio evaluate", "eval_num_beams"),
    refused("Padding never counts here", "ignore_pad_token_for_loss", off=(True,)),
    ignored("One validation loss is reported for all sets", "eval_on_each_dataset"),
    Rule("tool_format", "approximated", why="Tools are written as the model's chat template writes them"),
    Rule("enable_thinking", "approximated", why="Thinking is written as the model's chat template writes it"),
    Rule("preserve_thinking", "approximated", why="Thinking is written as the model's chat template writes it"),
)
METHOD = (
    mapped("lora_rank", "tuning.rank", whole, default=8),
    mapped("lora_alpha", "tuning.alpha", _alpha),
    mapped("lora_dropout", "tuning.dropout", number),
    mapped("lora_target", "tuning.target_modules", targets, targets_back),
    mapped("use_rslora", "tuning.rslora", flag),
    mapped("loraplus_lr_ratio", "tuning.lora_plus_ratio", number),
    mapped("additional_target", "tuning.modules_to_save", words, lambda value: ",".join(value)),
    ignored("It is close to the learning rate of the adapter's other parts", "loraplus_lr_embedding"),
    ignored("An export of a PiSSA run merges it into the base model", "pissa_convert"),
    ignored("It is only read with pissa_init", "pissa_iter"),
    ignored("It is only read with finetuning_type freeze", "freeze_trainable_layers", "freeze_trainable_modules",
            "freeze_extra_modules"),
    ignored("It is only read with finetuning_type oft", "oft_rank", "oft_block_size", "oft_target", "module_dropout"),
    mapped("pref_beta", "method.beta", number, default=0.1),
    mapped("simpo_gamma", "method.simpo_gamma", number, default=0.5),
    mapped("kto_chosen_weight", "method.desirable_weight", number),
    mapped("kto_rejected_weight", "method.undesirable_weight", number),
    mapped("ppo_epochs", "method.ppo_epochs", whole, default=4),
    approximated("ppo_score_norm", "method.whiten_rewards", flag,
                 "Scores are brought to mean 0 and standard deviation 1 by running statistics", bool, False),
    refused("The sum of score and penalty is not whitened here", "ppo_whiten_rewards"),
    refused("The DPO losses without label smoothing are the ones here; robust has some", "dpo_label_smoothing"),
    refused("There is no length-desensitized DPO here", "ld_alpha", off=()),
    refused("The reference is the model itself before the training", "ref_model_adapters", off=()),
    ignored("The reference is held as the model is", "ref_model_quantization_bit", "reward_model_quantization_bit"),
    refused("A reward model is one folder, or a run", "reward_model_adapters", off=()),
    refused("There is no such loss here; dft is there", "use_asft_loss", "use_eaft_loss"),
    ignored("It is only read with its loss", "asft_alpha", "eaft_alpha"),
    mapped("early_stopping_steps", "training.early_stopping", whole),
    refused("There is no such optimizer here", "use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon"),
    refused("No blocks are added here", "use_llama_pro"),
    ignored("It is only read with its optimizer", "galore_target", "galore_rank", "galore_update_interval",
            "galore_scale", "galore_proj_type", "galore_layerwise", "apollo_target", "apollo_rank",
            "apollo_update_interval", "apollo_scale", "apollo_proj", "apollo_proj_type", "apollo_scale_type",
            "apollo_layerwise", "apollo_scale_front", "badam_mode", "badam_start_block", "badam_switch_mode",
            "badam_switch_interval", "badam_update_ratio", "badam_mask_mode", "badam_verbose"),
    refused("SwanLab is none of the trackers here", "use_swanlab"),
    ignored("It is only read with use_swanlab", "swanlab_project", "swanlab_workspace", "swanlab_run_name",
            "swanlab_mode", "swanlab_api_key", "swanlab_logdir", "swanlab_lark_webhook_url", "swanlab_lark_secret"),
    ignored("The page draws it", "plot_loss"),
    ignored("The token accuracy is always reported", "compute_accuracy"),
    ignored("The speed is always reported", "include_effective_tokens_per_second"),
    refused(_ENGINE, "use_mca", "use_megatron_bridge", "use_hyper_parallel"),
    ignored("It is only read with use_hyper_parallel", "hyper_parallel_args", "hyper_parallel_cp_size"),
    refused("FP8 needs another engine", "fp8"),
    ignored("It is only read with fp8", "fp8_backend", "fp8_enable_fsdp_float8_all_gather"),
)
TRAINING = (
    Rule("lr_scheduler_kwargs", "ignored", read=_mapping, instead=_schedule_keys),
    Rule("use_cpu", "mapped", "training.device", read=flag, instead=_on_cpu),
)
OTHER = (
    ignored(ONE_DEVICE, "ray_num_workers", "ray_init_kwargs", "master_addr", "master_port", "ray_run_name",
            "ray_storage_path", "ray_storage_filesystem", "resources_per_worker", "placement_strategy"),
    ignored("The torch profiler is not started", "enable_torch_profiler", "profiler_output_dir", "profiler_wait_steps",
            "profiler_warmup_steps", "profiler_active_steps", "profiler_repeat", "profiler_record_shapes",
            "profiler_profile_memory", "profiler_with_stack", "profile_modules"),
    ignored("It is only read by the Megatron engines", "tensor_model_parallel_size", "pipeline_model_parallel_size",
            "expert_model_parallel_size", "context_parallel_size", "virtual_pipeline_model_parallel_size",
            "sequence_parallel", "recompute_granularity", "recompute_method", "recompute_num_layers",
            "account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split", "bias_activation_fusion",
            "apply_rope_fusion", "masked_softmax_fusion", "cross_entropy_loss_fusion", "moe_grouped_gemm",
            "moe_token_dispatcher_type", "calculate_per_token_loss", "use_distributed_optimizer",
            "overlap_param_gather", "overlap_grad_reduce", "use_packed_sequences", "mixed_precision",
            "megatron_pretrained_checkpoint", "export_hf_on_finish", "extra_config", "cutoff_len_per_batch"),
    ignored(_ASKED, "do_sample", "top_p", "top_k", "num_beams", "max_length", "repetition_penalty", "length_penalty",
            "skip_special_tokens", "temperature", "max_new_tokens"),
)
# fmt: on
# What `reader` and `datasets` say themselves, because it depends on other keys.
SAID = (
    "stage",
    "finetuning_type",
    "quantization_bit",
    "use_dora",
    "adapter_name_or_path",
    "create_new_adapter",
    "pissa_init",
    "pref_loss",
    "pref_ftx",
    "pref_bco_weight",
    "ref_model",
    "ppo_target",
    "ppo_buffer_size",
    "reward_model",
    "reward_model_type",
    "train_on_prompt",
    "mask_history",
    "use_dft_loss",
    "packing",
    "neat_packing",
    "bf16",
    "fp16",
    "pure_bf16",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "template",
    "dataset",
    "dataset_dir",
    "eval_dataset",
    "max_samples",
    "val_size",
    "mix_strategy",
    "interleave_probs",
    "export_dir",
    "export_size",
    "export_quantization_bit",
    "export_hub_model_id",
)  # fmt: skip
KEYS = {**RULES, **table(*MODEL, *EXPORT, *DATA, *METHOD, *TRAINING, *OTHER)}
# Checkpointing is on there whatever this says; only `disable_gradient_checkpointing` counts.
for _key in ("gradient_checkpointing", "activation_checkpointing"):
    KEYS[_key] = Rule(_key, "ignored", why="Only disable_gradient_checkpointing counts there")
NAMES = frozenset({*KEYS, *SAID})
