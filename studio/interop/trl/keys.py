"""Keys of TRL's configs that no option of the studio stands for, each with what becomes of it."""

from __future__ import annotations

from studio.interop.rules import ONE_DEVICE, STREAMED
from studio.interop.sheets import arguments

_VLLM = "answers are written by the model that is trained, in the same process"
_GRPO = "it is not among the studio's options for this method"
_SAMPLED = "completions are sampled from the model's own probabilities, at method.temperature"
_REFERENCE = "the reference model stays as it was"

IGNORED: dict[str, str] = {
    **arguments.IGNORED,
    **dict.fromkeys(
        (
            "use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode", "vllm_server_base_url",
            "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port",
            "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size",
            "vllm_importance_sampling_correction", "vllm_importance_sampling_mode",
            "vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap",
            "use_transformers_continuous_batching", "transformers_continuous_batching_config",
            "use_transformers_paged", "cache_implementation", "generation_batch_size", "steps_per_generation",
            "num_generations_eval", "local_rollout_forward_batch_size", "num_mini_batches",
        ),
        _VLLM,
    ),
    **dict.fromkeys(
        ("log_completions", "log_multimodal", "num_completions_to_print", "log_unique_prompts",
         "log_completions_hub_repo", "num_sample_generations"), "completions are recorded anyway",
    ),
    "ignore_bias_buffers": "for several processes only",
    "dataset_streaming": STREAMED,
    "streaming": STREAMED,
    "lora_task_type": "it follows from the method",
    "bnb_4bit_quant_storage": "for sharded training only",
    "use_kernels": "a faster kernel of the same computation; the studio picks its own",
    "dataset_kwargs": "how TRL prepares the rows; the studio has a way of its own",
    "eval_packing": "validation rows are never packed; the loss is a mean over tokens either way",
    "packing_strategy": "examples are computed each by itself in one row",
    "shuffle_dataset": "rows are shuffled in each epoch",
    "disable_dropout": "a model's own dropout is off in the models that are trained today",
    "pad_token": "padding is never counted",
    "padding_value": "padding is never counted",
    "is_encoder_decoder": "the model itself says it",
    "generate_during_eval": "the studio has its own evaluation",
    "precompute_ref_log_probs": "when the reference model is asked, not what it says",
    "precompute_ref_batch_size": "when the reference model is asked, not what it says",
    "use_logits_to_keep": "a faster computation of the same loss",
    "model_init_kwargs": "the model is loaded as model.dtype and model.attention say",
    "ref_model_init_kwargs": "the reference model is loaded like the model",
    "accelerate_config": ONE_DEVICE,
    "config_file": ONE_DEVICE,
    "env": "what is set for the process; the studio has its own",
    "exp_name": "a run has a name of its own",
}  # fmt: skip
NEAR: dict[str, str] = {
    **arguments.NEAR,
    "eos_token": "the tokenizer's own end token is kept; a turn ends as the chat template ends it",
    "router_aux_loss_coef": "the model's own value is kept",
    "truncation_mode": "the start of a row is kept, not its end",
    "max_prompt_length": "prompt and answer have one limit, data.max_length",
    "chat_template_kwargs": "the template is rendered without arguments",
    "use_adaptive_entropy": "no entropy is added to the loss",
    "cast_lm_head_to_fp32": "the output layer is computed like the others",
}
REFUSED: dict[str, str] = {
    **arguments.REFUSED,
    **dict.fromkeys(("top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs"), _SAMPLED),
    **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), _REFERENCE),
    **dict.fromkeys(
        (
            "num_iterations", "delta", "epsilon_high", "sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos",
            "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg", "importance_sampling_level",
            "multi_objective_aggregation", "mask_truncated_completions", "top_entropy_quantile", "entropy_coef",
            "entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target",
            "max_tool_calling_iterations", "off_policy_mask_threshold", "use_bias_correction_kl",
            "vllm_structured_outputs_regex", "normalize_advantages", "reward_clip_range", "token_level_kl",
            "missing_eos_penalty", "cliprange_value", "stop_token", "stop_token_id", "kl_estimator",
        ),
        _GRPO,
    ),
    **dict.fromkeys(
        ("ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "use_weighting", "discopop_tau", "rpo_alpha",
         "reference_free", "alpha"), "it is not among the studio's options for this loss",
    ),
    "lora_target_parameters": "an adapter beside single tensors is not supported",
    "chat_template_path": "save the template with the model's tokenizer; data.template auto then uses it",
    "value_model_path": "the value head is trained from the policy",
    "max_completion_length_eval": "validation is like the training",
    "tools": "they are Python code, which is not run",
}  # fmt: skip
# What a key has by itself, with which it asks for nothing.
USUAL: dict[str, tuple[object, ...]] = {
    "top_p": (1,), "top_k": (0, -1), "repetition_penalty": (1,), "num_iterations": (1,),
    "f_divergence_type": ("reverse_kl",), "importance_sampling_level": ("token",), "truncation_mode": ("keep_start",),
    "multi_objective_aggregation": ("sum_then_normalize",), "top_entropy_quantile": (1,),
    "ref_model_mixup_alpha": (0.6,), "ref_model_sync_steps": (512, 64), "f_alpha_divergence_coef": (0.5, 1),
    "discopop_tau": (0.05,), "cliprange_value": (0.2,), "use_bias_correction_kl": (True, "true", "True"),
}  # fmt: skip
