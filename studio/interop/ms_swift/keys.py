"""Keys of ms-swift's commands that no option of the studio stands for, each with what becomes of it."""

from __future__ import annotations

from studio.interop.rules import ONE_DEVICE, STREAMED, UNBUFFERED
from studio.interop.sheets import arguments

_VLLM = "answers are written by the model that is trained, in the same process"
_LOGGED = "what is logged; the studio records every step"
_CACHE = "where and how prepared data is kept; the studio keeps its own cache"
_IMAGES = "images and sound are not supported, and nothing of them is trained"
_SERVING = "for answers and benchmarks; the studio has its own chat and evaluation"
_NOT_HERE = "it is not among the studio's options for this method"
_TUNER = "an adapter that the studio has not"
_TEACHER = "distillation from a teacher is not supported"

IGNORED: dict[str, str] = {
    **{key: why for key, why in arguments.IGNORED.items() if key != "data_seed"},
    **dict.fromkeys(
        (
            "use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size",
            "vllm_pipeline_parallel_size", "vllm_enable_expert_parallel", "vllm_max_num_seqs", "vllm_max_model_len",
            "vllm_disable_custom_all_reduce", "vllm_enforce_eager", "vllm_limit_mm_per_prompt", "vllm_max_lora_rank",
            "vllm_enable_prefix_caching", "vllm_use_async_engine", "vllm_quantization", "vllm_reasoning_parser",
            "vllm_disable_cascade_attn", "vllm_mm_processor_cache_gb", "vllm_speculative_config", "vllm_engine_kwargs",
            "vllm_data_parallel_size", "vllm_enable_lora", "vllm_server_base_url", "vllm_server_host",
            "vllm_server_port", "vllm_server_timeout", "vllm_server_group_port", "vllm_server_pass_dataset",
            "enable_flattened_weight_sync", "async_generate", "sleep_level", "move_model_batches", "offload_optimizer",
            "offload_model", "generation_batch_size", "steps_per_generation", "num_generations_eval",
            "local_rollout_forward_batch_size", "num_mini_batches", "num_sample_generations", "infer_backend",
        ),
        _VLLM,
    ),
    **dict.fromkeys(
        (
            "swanlab_token", "swanlab_project", "swanlab_workspace", "swanlab_exp_name",
            "swanlab_notification_method", "swanlab_webhook_url", "swanlab_secret", "swanlab_sender_email",
            "swanlab_receiver_email", "swanlab_smtp_server", "swanlab_smtp_port", "swanlab_email_language",
            "swanlab_mode", "log_completions", "wandb_log_unique_prompts", "log_entropy",
            "log_rollout_offpolicy_metrics", "enable_channel_loss",
        ),
        _LOGGED,
    ),
    **dict.fromkeys(
        (
            "load_from_cache_file", "lazy_tokenize", "packing_num_proc", "packing_strategy", "packing_length",
            "download_mode", "strict", "disable_auto_column_mapping",
            "load_args", "load_data_args", "add_version", "create_checkpoint_symlink", "to_cached_dataset",
            "val_dataset_shuffle", "max_shard_size", "safe_serialization", "check_model", "use_flash_ckpt",
        ),
        _CACHE,
    ),
    **dict.fromkeys(
        ("freeze_vit", "freeze_aligner", "vit_gradient_checkpointing", "max_pixels", "norm_bbox", "vit_lr",
         "aligner_lr"), _IMAGES,
    ),
    **dict.fromkeys(
        ("max_new_tokens", "stream", "stop_words", "num_beams", "logprobs", "top_logprobs", "max_logprobs",
         "eval_use_evalscope", "eval_dataset", "eval_dataset_args", "eval_limit", "eval_generation_config",
         "extra_eval_args", "eval_backend", "eval_metric", "predict_with_generate", "result_path", "write_batch_size",
         "structured_outputs_regex"), _SERVING,
    ),
    "streaming": STREAMED,
    "shuffle_buffer_size": UNBUFFERED,
    "data_seed": "the run's seed is used for all choices",
    "task_type": "it follows from the method",
    "model_type": "the model itself says it",
    "template_backend": "the chat template is the tokenizer's own",
    "padding_side": "padding is never counted",
    "use_hf": "data and models come from the Hugging Face Hub",
    "ignore_args_error": "what is not known is reported",
    "device_map": ONE_DEVICE,
    "max_memory": "the studio plans memory from what is free",
    "tuner_backend": "training.engine unsloth is the other engine",
    "enable_npu_model_patch": "for other devices",
    "local_repo_path": "the code of transformers is used",
    "use_logits_to_keep": "a faster computation of the same loss",
    "lora_dtype": "the adapter is held in float32",
    "bnb_4bit_compute_dtype": "the studio chooses by the device",
    "bnb_4bit_quant_storage": "for sharded training only",
    "agent_template": "tools are written as the chat template writes them",
    "resume_only_model": "resume a run of the studio with studio resume",
    "add_non_thinking_prefix": "reasoning is written as the chat template writes it",
    "disable_ignore_empty_think": "reasoning is written as the chat template writes it",
    "enable_thinking": "reasoning is written as the chat template writes it",
    "preserve_thinking": "reasoning is written as the chat template writes it",
    "early_stop_interval": "training.early_stopping counts validations",
    "port": _SERVING,
    "use_ray": ONE_DEVICE,
    "device_groups": ONE_DEVICE,
    "teacher_tag_key": _TEACHER,
}  # fmt: skip
NEAR: dict[str, str] = {
    **arguments.NEAR,
    "sequence_parallel_size": ONE_DEVICE,
    "zero_hpz_partition_size": ONE_DEVICE,
    "deepspeed_autotp_size": ONE_DEVICE,
    "data_parallel_size": ONE_DEVICE,
    "experts_impl": "a faster kernel of the same computation; the studio picks its own",
    "router_aux_loss_coef": "the model's own value is kept",
    "max_model_len": "data.max_length is the limit of a row",
    "acc_strategy": "accuracy is counted by tokens",
    "is_binary_loss_scale": "a token counts or does not",
    "use_chat_template": "conversations are written in the chat template, plain texts without",
    "template": "the model's own chat template; data.template chooses another one",
    "model_name": "names are not put into the data: replace {{NAME}} and {{AUTHOR}} in it",
    "model_author": "names are not put into the data: replace {{NAME}} and {{AUTHOR}} in it",
    "max_epochs": "num_train_epochs says how long",
}  # fmt: skip
REFUSED: dict[str, str] = {
    **arguments.REFUSED,
    **dict.fromkeys(
        ("external_plugins", "custom_register_path", "callbacks", "loss_func", "reward_model_plugin",
         "multi_turn_scheduler", "gym_env"), "it names Python code, which is not run",
    ),
    **dict.fromkeys(
        ("freeze_parameters", "freeze_parameters_regex", "freeze_parameters_ratio", "trainable_parameters",
         "trainable_parameters_regex", "freeze_llm", "llamapro_num_new_blocks", "llamapro_num_groups"),
        "single weights cannot be chosen; tuning.name full trains all of them",
    ),
    **dict.fromkeys(
        (
            "lora_ga_batch_size", "lora_ga_iters", "lora_ga_max_length", "lora_ga_direction", "lora_ga_scale",
            "lora_ga_stable_gamma", "fourier_n_frequency", "fourier_scaling", "boft_block_size", "boft_block_num",
            "boft_n_butterfly_factor", "boft_dropout", "vera_rank", "vera_projection_prng_key", "vera_dropout",
            "vera_d_initial", "adapter_act", "adapter_length", "adalora_target_r", "adalora_init_r", "adalora_tinit",
            "adalora_tfinal", "adalora_beta1", "adalora_beta2", "adalora_orth_reg_weight", "reft_layer_key",
            "adalora_deltaT", "reft_layers", "reft_rank", "reft_intervention_type", "reft_args", "use_swift_lora",
            "target_parameters", "lora_bias",
        ),
        _TUNER,
    ),
    **dict.fromkeys(
        (
            "use_galore", "galore_target_modules", "galore_rank", "galore_update_proj_gap", "galore_scale",
            "galore_proj_type", "galore_optim_per_parameter", "galore_with_embedding", "galore_quantization",
            "galore_proj_quant", "galore_proj_bits", "galore_proj_group_size", "galore_cos_threshold",
            "galore_gamma_proj", "galore_queue_size", "optimizer",
        ),
        "an optimizer that the studio has not",
    ),
    **dict.fromkeys(("lisa_activated_layers", "lisa_step_interval"), "LISA is not supported"),
    **dict.fromkeys(
        (
            "teacher_model", "teacher_adapters", "teacher_model_type", "teacher_model_revision", "teacher_deepspeed",
            "teacher_model_server", "offload_teacher_model", "teacher_kl_coef", "lmbda", "seq_kd", "gkd_logits_topk",
            "sft_alpha", "advantage_reweight", "rlsd_lambda", "rlsd_reweight_clip_range", "rlsd_lambda_warmup_steps",
            "rlsd_lambda_decay_steps", "rlsd_negative_only", "sdar_loss_coef", "sdar_gate_beta",
        ),
        _TEACHER,
    ),
    **dict.fromkeys(
        (
            "num_iterations", "epsilon_high", "delta", "top_entropy_quantile", "importance_sampling_level", "tau_pos",
            "tau_neg", "kl_in_reward", "real_tau", "fipo_decay_rate", "fipo_clip_range", "fipo_clip_high_only",
            "fipo_safety_threshold", "rollout_importance_sampling_mode", "rollout_importance_sampling_threshold",
            "off_policy_sequence_mask_delta", "dynamic_sample", "max_resample_times", "overlong_filter",
            "soft_max_length", "soft_cache_length", "cosine_min_len_value_wrong", "cosine_max_len_value_wrong",
            "cosine_min_len_value_correct", "cosine_max_len_value_correct", "cosine_max_len", "repetition_n_grams",
            "repetition_max_penalty", "chord_sft_dataset", "chord_sft_per_device_train_batch_size",
            "chord_enable_phi_function", "chord_mu_warmup_steps", "chord_mu_decay_steps", "chord_mu_peak",
            "chord_mu_valley", "max_turns", "completion_length_limit_scope", "use_gym_env", "cliprange_value",
            "missing_eos_penalty", "reward_adapters", "reward_model_type", "reward_model_revision", "reward_template",
        ),
        _NOT_HERE,
    ),
    **dict.fromkeys(("top_p", "top_k", "min_p", "repetition_penalty"),
                    "completions are sampled from the model's own probabilities, at method.temperature"),
    **dict.fromkeys(("sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha", "ref_model", "ref_adapters",
                     "ref_model_type", "ref_model_revision"), "the reference model is the model as it was"),
    **dict.fromkeys(("ld_alpha", "discopop_tau"), "it is not among the studio's options for this loss"),
    **dict.fromkeys(("num_labels", "problem_type", "mrl_dims"), "classifiers and embeddings are not trained"),
    **dict.fromkeys(("cached_dataset", "cached_val_dataset"), "rows that are tokens already are not read"),
    "custom_dataset_info": "name the files of its sets themselves",
    "new_special_tokens": "tokens cannot be added to the vocabulary",
    "model_kwargs": "the model is loaded with the studio's own arguments",
    "init_strategy": "the studio trains on; it does not begin with random weights",
    "hqq_axis": "weights are held in few bits by bitsandbytes only",
    "response_prefix": "answers are written as the data has them",
    "target_regex": "a pattern cannot be given; tuning.target_modules takes names",
}  # fmt: skip
USUAL: dict[str, tuple[object, ...]] = {
    "top_p": (1,), "top_k": (-1, 0), "repetition_penalty": (1,), "num_iterations": (1,), "lora_bias": ("none",),
    "importance_sampling_level": ("token",), "top_entropy_quantile": (1,), "num_labels": (1,),
    "ref_model_mixup_alpha": (0.6,), "ref_model_sync_steps": (512,), "discopop_tau": (0.05,),
    "max_resample_times": (3,), "cliprange_value": (0.2,), "acc_strategy": ("token",),
}  # fmt: skip
