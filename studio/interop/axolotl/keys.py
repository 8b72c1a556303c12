"""Keys of an Axolotl config that no option of the studio stands for, each with what becomes of it.

Three tables: keys that change nothing that is learned, keys whose effect is near what the studio does anyway, and keys
that would train something else. Keys with a counterpart are read in the modules beside this one.
"""

from __future__ import annotations

from studio.interop.rules import ONE_DEVICE, STREAMED

# No effect on what is learned.
IGNORED: dict[str, str] = {
    "strict": "says which command-line options Axolotl takes",
    "output_dir": "a run has a folder of its own; --out names the file of this config",
    **dict.fromkeys((
        "dataset_prepared_path", "dataset_processes", "dataset_num_proc", "dataset_keep_in_memory",
        "num_dataset_shards_to_save", "push_dataset_to_hub", "is_preprocess", "preprocess_iterable",
        "skip_prepare_dataset", "streaming_multipack_buffer_size", "pretrain_multipack_buffer_size",
    ), "where and how Axolotl keeps prepared data; the studio keeps its own cache"),
    "streaming": STREAMED,
    "pretrain_multipack_attn": "documents are kept apart by method.documents",
    **dict.fromkeys((
        "dataloader_pin_memory", "dataloader_num_workers", "dataloader_prefetch_factor", "remove_unused_columns",
        "multipack_real_batches",
    ), "how batches are loaded, which changes no batch"),
    **dict.fromkeys(("pad_to_multiple_of", "pad_to_sequence_len", "dpo_padding_free"), "padding, which no loss counts"),
    **dict.fromkeys((
        "sample_packing_group_size", "sample_packing_bin_size", "sample_packing_mp_start_method",
    ), "how Axolotl searches for a packing"),
    **dict.fromkeys((
        "sample_packing_eff_est", "total_num_tokens", "total_supervised_tokens", "axolotl_config_path",
        "is_falcon_derived_model", "is_llama_derived_model", "is_mistral_derived_model", "is_qwen_derived_model",
        "model_config_type", "world_size", "local_rank",
    ), "Axolotl works it out itself"),
    **dict.fromkeys((
        "sample_packing_seq_len_multiplier", "eval_table_size", "dpo_use_logits_to_keep", "dpo_generate_during_eval",
        "eta_min", "adam_eps", "torch_dtype", "full_finetune", "debug", "test_value", "gptq_groupsize",
        "gptq_model_v1", "gptq_disable_exllama", "context_parapllel_size",
    ), "Axolotl does not read this key"),
    "eval_sample_packing": "validation rows are never packed; the loss is a mean over tokens either way",
    "hf_use_auth_token": "HF_TOKEN in the environment is used for the Hub",
    "base_model_config": "the configuration is read from the model's own folder",
    "base_model_ignore_patterns": "only the files that are needed are downloaded",
    "tokenizer_use_fast": "the tokenizer's fast form is always used",
    "tokenizer_legacy": "the tokenizer's own configuration says it",
    "tokenizer_save_jinja_files": "the chat template is saved with the tokenizer",
    "save_safetensors": "weights are always saved as safetensors",
    "device": "training.device says it",
    "device_map": ONE_DEVICE,
    **dict.fromkeys(("max_memory", "gpu_memory_limit"), "the studio plans memory from what is free"),
    **dict.fromkeys(("lora_on_cpu", "merge_lora", "merge_method"), "merging happens at export"),
    **dict.fromkeys((
        "low_cpu_mem_usage", "torchdistx_path", "experimental_skip_move_to_device", "qlora_sharded_model_loading",
    ), "how the weights get into memory, not which"),
    **dict.fromkeys((
        "ddp", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters", "use_ray",
        "ray_run_name", "ray_num_workers", "resources_per_worker",
    ), ONE_DEVICE),
    "accelerator_config": ONE_DEVICE,
    **dict.fromkeys(("gc_steps", "gc_collect_steps", "torch_empty_cache_steps"), "when memory is cleaned up"),
    **dict.fromkeys(("profiler_steps", "profiler_steps_start"), "measures the training"),
    **dict.fromkeys((
        "include_tokens_per_second", "include_tkps", "logging_steps", "wandb_entity", "wandb_name", "wandb_run_id",
        "wandb_watch", "wandb_log_model", "mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name",
        "hf_mlflow_log_artifacts", "trackio_project_name", "trackio_run_name", "trackio_space_id", "comet_api_key",
        "comet_workspace", "comet_project_name", "comet_experiment_key", "comet_mode", "comet_online",
        "comet_experiment_config", "use_otel_metrics", "otel_metrics_host", "otel_metrics_port", "swanlab_project",
        "swanlab_experiment_name", "swanlab_description", "swanlab_mode", "swanlab_workspace", "swanlab_api_key",
        "swanlab_log_model", "swanlab_web_host", "swanlab_api_host", "swanlab_lark_webhook_url", "swanlab_lark_secret",
        "swanlab_log_completions", "swanlab_completion_log_interval", "swanlab_completion_max_buffer",
    ), "what is logged and where; the studio records every step"),
    "save_first_step": "an extra checkpoint",
    "save_only_model": "a checkpoint always holds what is needed to resume",
    "dynamic_checkpoint": "a run saves a checkpoint when it is paused or stopped",
    **dict.fromkeys((
        "resume_from_checkpoint", "auto_resume_from_checkpoints",
    ), "resume a run of the studio with studio resume"),
    "tf32": "a faster matrix product on NVIDIA GPUs, nearly the same numbers",
    "gradient_checkpointing_kwargs": "how activations are recomputed; the numbers are the same",
    "selective_checkpointing": "which activations are recomputed; the numbers are the same",
    "layer_offloading": "where weights lie; the numbers are the same",
    **dict.fromkeys((
        "tiled_mlp", "tiled_mlp_num_shards", "tiled_mlp_use_original_mlp", "chunked_cross_entropy",
        "chunked_cross_entropy_num_chunks", "cut_cross_entropy", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel",
        "lora_embedding_kernel", "flash_attn_cross_entropy", "flash_attn_fuse_mlp", "flash_attn_rms_norm",
        "flash_attn_d512", "flash_optimum", "fused_attn_kernel", "large_head_attention", "sdpa_varlen",
        "gemma4_hybrid_attn_impl", "flex_attn_compile_kwargs", "use_kernels", "liger_rope", "liger_rms_norm",
        "liger_rms_norm_gated", "liger_layer_norm", "liger_swiglu", "liger_glu_activation", "liger_cross_entropy",
        "liger_fused_linear_cross_entropy", "dpo_use_liger_kernel", "torch_compile", "torch_compile_backend",
        "torch_compile_mode", "torch_compile_options", "deepcompile", "use_dsv4_kernels", "use_glm_dsa_kernels",
        "dsv4_shared_mlp_lora_kernel", "dsv4_fp4_grouped_mode", "dsv4_fp8_lora_kernel", "dsv4_fp8_nonexpert_mode",
        "dsv4_bf16_all", "gemma4_fp8_nonexpert", "gemma4_nf4_nonexpert", "nvfp4_merge_aware",
        "nvfp4_merge_aware_start_step",
    ), "a faster kernel of the same computation; the studio picks its own"),
    "precompute_ref_log_probs": "when the reference model is asked, not what it says",
    **dict.fromkeys((
        "experts_implementation", "llama4_linearized_experts", "use_scattermoe", "use_sonicmoe", "dense_mixer",
        "expert_backend", "moe_grouped_backend", "moe_dequant_chunk_size", "moe_bnb_fast",
    ), "how a mixture of experts is stored or computed on the GPU"),
    "eval_batch_size": "how many validation rows are computed at a time",
    **dict.fromkeys((
        "eval_max_new_tokens", "do_causal_lm_eval", "eval_causal_lm_metrics", "do_bench_eval", "bench_dataset",
        "bench_split", "lm_eval_tasks", "lm_eval_batch_size", "lm_eval_post_train", "lm_eval_model", "gradio_title",
        "gradio_share", "gradio_server_name", "gradio_server_port", "gradio_max_new_tokens", "gradio_temperature",
        "generate_samples", "num_generation_samples", "generation_max_new_tokens", "generation_temperature",
        "generation_top_p", "generation_top_k", "generation_prompt_ratio", "generation_do_sample",
    ), "for answering and benchmarks after the training; the studio has its own chat and evaluation"),
    "vllm": "answers are written by the model that is trained, in the same process",
    "use_comet": "Comet is not among the studio's trackers",
    "use_swanlab": "SwanLab is not among the studio's trackers",
    **dict.fromkeys((
        "hub_model_id", "hub_strategy", "hub_revision",
    ), "the result is uploaded by an export, which asks before"),
    **dict.fromkeys((
        "loss_watchdog_threshold", "loss_watchdog_patience",
    ), "the studio's own health checks watch the loss"),
    "greater_is_better": "the metric itself says which way is better",
    "dpo_beta": "Axolotl warns and does not use it; rl_beta is the one",
    "max_prompt_len": "no trainer of Axolotl takes it any more",
    **dict.fromkeys((
        "provider", "project_name", "secrets", "gpu", "gpu_count", "node_count", "volumes", "branch",
        "dockerfile_commands", "memory", "timeout", "memory_preprocess", "timeout_preprocess",
    ), "rents a machine; it says nothing about the training"),
}  # fmt: skip

# Something near it happens here: no option for it, and the numbers of the run are not quite the same.
NEAR: dict[str, str] = {
    **dict.fromkeys((
        "deepspeed", "fsdp",
    ), f"{ONE_DEVICE}. Its batch is that of one of them: multiply training.batch_size by their number"),
    **dict.fromkeys((
        "fsdp_config", "fsdp_version", "fsdp_final_state_dict_type", "dp_shard_size", "dp_replicate_size",
        "sequence_parallel_degree", "context_parallel_size", "heads_k_stride", "ring_attn_func",
        "tensor_parallel_size", "expert_parallel_size", "expert_parallel_backend", "expert_parallel_num_nvl_bytes",
        "expert_parallel_num_rdma_bytes", "expert_parallel_token_capacity", "expert_parallel_fallback_on_unsupported",
    ), ONE_DEVICE),
    **dict.fromkeys(("fp32_norms", "fp32_norm_classes"), "normalization is computed in float32 anyway"),
    "auto_find_batch_size": "the studio plans the micro-batch from the memory that is free",
    "group_by_length": "rows of similar length in an update are computed together anyway",
    "dataloader_drop_last": "a last, smaller update is made",
    **dict.fromkeys((
        "sample_packing_sequentially", "shuffle_before_merging_datasets",
    ), "rows are shuffled in each epoch"),
    "embeddings_skip_upcast": "embeddings are held like the other weights",
    "peft_autocast_adapter_dtype": "the adapter is held in float32",
    "quantize_moe_experts": "experts are held like the other weights",
    "lr_quadratic_warmup": "the rate rises linearly",
    "cosine_constant_lr_ratio": "the cosine goes on to the end",
    **dict.fromkeys(("adam_beta3", "adam_epsilon2"), "the optimizer's own value"),
    **dict.fromkeys((
        "mean_resizing_embeddings", "shrink_embeddings", "fix_untrained_tokens",
    ), "the vocabulary keeps its size"),
    "resize_token_embeddings_to_32x": "the vocabulary keeps its size, which changes the speed only",
    "liger_use_token_scaling": "method.loss dft is the same weighting; set it if that is meant",
    "chat_template_kwargs": "the template is rendered without arguments",
    "tokenizer_use_mistral_common": "the tokenizer's Hugging Face files are used",
}  # fmt: skip

# The run would learn something else.
REFUSED: dict[str, str] = {
    **dict.fromkeys(("input_transform", "trainer_cls"), "it names Python code"),
    "cls_model_config": "it names a class; the model's own is loaded",
    "reinit_weights": "the studio trains on; it does not begin with random weights",
    "tokens": "tokens cannot be added to the vocabulary",
    "added_tokens_overrides": "tokens cannot be renamed",
    **dict.fromkeys((
        "chat_template_jinja", "jinja_template",
    ), "save the template with the model's tokenizer; data.template auto then uses it"),
    "unfrozen_parameters": "single weights cannot be chosen; tuning.name full trains all of them",
    **dict.fromkeys((
        "freeze_mm_modules", "processor_kwargs", "image_size", "image_resize_algorithm", "role_boundaries",
    ), "images and sound are not supported"),
    "process_reward_model": "a reward for each step is not supported",
    "num_labels": "a reward model has one score",
    "dpo_use_weighting": "WPO's weights are not supported",
    "dpo_norm_loss": "it is gone from TRL",
    "rpo_alpha": "it is gone from TRL; method.dpo_loss sigmoid, sft with weights is the same idea",
    "noisy_embedding_alpha": "its name is neftune_noise_alpha",
    "gptq": "models that are quantized with GPTQ cannot be trained",
    **dict.fromkeys((
        "model_quantization_config", "model_quantization_config_kwargs", "nonexpert_quantization",
    ), "models that are quantized by themselves cannot be trained"),
    "use_onebitllms": "1-bit models cannot be trained",
    **dict.fromkeys(("fp8", "fp8_enable_fsdp_float8_all_gather"), "training in 8-bit floating point is not supported"),
    "qat": "quantization-aware training is not supported",
    "quantization": "the result is quantized at export",
    "llmcompressor": "sparse training is not supported",
    **dict.fromkeys((
        "relora", "relora_steps", "relora_prune_ratio", "relora_prune_method", "relora_cpu_offload",
    ), "ReLoRA is not supported"),
    **dict.fromkeys((
        "jagged_restart_steps", "jagged_restart_warmup_steps", "jagged_restart_anneal_steps",
    ), "restarts of the schedule are not supported"),
    **dict.fromkeys(("lisa_n_layers", "lisa_step_interval", "lisa_layers_attribute"), "LISA is not supported"),
    **dict.fromkeys(("spectrum_top_fraction", "spectrum_model_name"), "Spectrum is not supported"),
    **dict.fromkeys(("grokfast_alpha", "grokfast_lamb"), "Grokfast is not supported"),
    **dict.fromkeys(("use_mora", "mora"), "MoRA is not supported"),
    "hatchery": "training at a service is not supported",
    "ebft": "energy-based fine-tuning is not supported",
    "diffusion": "diffusion language models are not supported",
    **dict.fromkeys((
        "kd_trainer", "kd_ce_alpha", "kd_alpha", "kd_temperature", "kd_beta", "kd_normalize_topk",
        "kd_online_server_base_url", "kd_online_topk", "kd_online_server", "kd_online_timeout", "kd_temperature_min",
    ), "distillation from a teacher's probabilities is not supported"),
    **dict.fromkeys((
        "nemo_gym_enabled", "nemo_gym_dir", "nemo_gym_auto_clone", "nemo_gym_config_paths", "nemo_gym_head_port",
        "nemo_gym_server_timeout", "nemo_gym_verify_timeout", "nemo_gym_run_timeout", "nemo_gym_datasets",
        "nemo_gym_auto_start", "nemo_gym_model_name", "nemo_gym_multi_turn", "nemo_gym_max_turns",
    ), "NeMo Gym is not supported"),
    "use_eaft": "EAFT's weights are not supported; method.loss dft is a similar idea",
    **dict.fromkeys(("eaft_alpha", "eaft_k"), "EAFT's weights are not supported"),
    **dict.fromkeys((
        "use_pose", "pose_split_on_token_ids", "pose_max_context_len", "pose_num_chunks",
    ), "PoSE is not supported"),
    **dict.fromkeys((
        "scaling_softmax", "scaling_softmax_factor", "scaling_softmax_bias", "s2_attention",
    ), "another attention is not supported"),
    "min_sample_len": "short rows are not left out",
    "eval_sequence_len": "training and validation rows have one limit, data.max_length",
    **dict.fromkeys((
        "dataset_shard_num", "dataset_shard_idx",
    ), "a share of the rows cannot be chosen by number; data.train's rows takes so many"),
    "rope_scaling": "Axolotl refuses it here; it belongs into model_config",
    "max_packed_sequence_len": "Axolotl refuses it too; sample_packing is the key",
    **dict.fromkeys(("embedding_lr", "embedding_lr_scale", "lr_groups"), "one learning rate for all weights"),
    "loraplus_lr_embedding": "one learning rate for all weights but LoRA's B",
    "lr_div_factor": "a schedule of Axolotl's own",
    "optim_args": "the optimizer's own values are kept",
    **dict.fromkeys((
        "optim_target_modules", "dion_lr", "dion_momentum", "dion_rank_fraction", "dion_rank_multiple_of",
        "qgalore_rank", "qgalore_update_proj_gap", "qgalore_scale", "qgalore_proj_type", "qgalore_proj_quant",
        "qgalore_proj_bits", "qgalore_proj_group_size", "qgalore_cos_threshold", "qgalore_gamma_proj",
        "qgalore_queue_size",
    ), "an optimizer of Axolotl's own"),
    "lora_target_parameters": "an adapter beside single tensors is not supported",
    "lora_fan_in_fan_out": "only linear layers get an adapter",
    "peft_layers_pattern": "the blocks are found by themselves",
    "peft_layer_replication": "blocks cannot be repeated",
    "peft_trainable_token_indices": "single tokens cannot be trained; tuning.modules_to_save trains all of them",
    "peft_ensure_weight_tying": "PEFT's own behavior is kept",
    "peft": "PEFT's own settings cannot be given; LoftQ is not supported",
}  # fmt: skip
