"""An Axolotl config as a run: its parts one after the other, then every key that is left."""

from __future__ import annotations

from studio.interop.axolotl import data, method, model, training
from studio.interop.axolotl.keys import IGNORED, NEAR, REFUSED
from studio.interop.reading import Given
from studio.interop.report import Imported
from studio.interop.sheets.configfile import with_file
from studio.interop.sheets.sheet import Sheet

TITLE = "Axolotl"
# Keys that the other modules of this package read.
READ = frozenset({
    "base_model", "model_revision", "revision_of_model", "trust_remote_code", "model_type", "type_of_model",
    "tokenizer_type", "processor_type", "tokenizer_config", "attn_implementation", "xformers_attention",
    "sage_attention", "flex_attention", "flash_attention", "sdp_attention", "eager_attention", "model_config",
    "overrides_of_model_config", "model_kwargs", "overrides_of_model_kwargs", "bf16", "bfloat16", "fp16", "float16",
    "float32", "special_tokens", "adapter", "load_in_4bit", "load_in_8bit", "bnb_config_kwargs", "lora_r", "lora_alpha",
    "lora_dropout", "lora_target_linear", "lora_target_modules", "lora_modules_to_save", "lora_model_dir",
    "loraplus_lr_ratio", "peft_use_dora", "peft_use_rslora", "peft_init_lora_weights", "lora_rank_pattern",
    "lora_alpha_pattern", "peft_layers_to_transform", "datasets", "pretraining_dataset", "test_datasets",
    "val_set_size", "shuffle_merged_datasets", "curriculum_sampling", "dataset_exact_deduplication",
    "default_system_message", "pretraining_sample_concatenation", "chat_template", "eot_tokens", "rl", "rl_beta",
    "orpo_alpha", "reward_model", "center_rewards_coefficient", "dpo_loss_type", "dpo_loss_weights",
    "dpo_label_smoothing", "simpo_gamma", "cpo_alpha", "kto_desirable_weight", "kto_undesirable_weight", "trl",
    "neftune_noise_alpha", "train_on_inputs", "sequence_len", "excess_length_strategy", "micro_batch_size",
    "gradient_accumulation_steps", "batch_size", "sample_packing", "num_epochs", "max_steps", "learning_rate",
    "batch_flattening", "lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio", "warmup_ratio", "warmup_steps",
    "optimizer", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "seed", "evals_per_epoch",
    "eval_steps", "eval_strategy", "evaluation_strategy", "early_stopping_patience", "load_best_model_at_end",
    "metric_for_best_model", "save_steps", "saves_per_epoch", "save_strategy", "save_total_limit", "use_wandb",
    "wandb_project", "wandb_mode", "use_tensorboard", "use_trackio", "use_mlflow", "gradient_checkpointing",
    "activation_offloading", "plugins",
})  # fmt: skip
# Keys that are on by themselves.
_ON = ("peft_autocast_adapter_dtype",)
KEYS = frozenset({*READ, *IGNORED, *NEAR, *REFUSED})


def read(given: Given) -> Imported:
    """Return an Axolotl config as a run.

    Args:
        given: its keys; those of a command line (`axolotl train x.yml --learning-rate 1e-4`) over those of the file.

    Raises:
        InputError: no model or no data is named, or a value is not what its key needs; with the line.
    """
    sheet = Sheet(with_file(given, TITLE), TITLE)
    model.read_model(sheet)
    model.read_tuning(sheet)
    entries = data.read_sets(sheet)
    method.read_method(sheet, [entry.kind for entry in entries])
    data.read_validation(sheet)
    data.read_template(sheet, entries)
    training.read_duration(sheet)
    training.read_training(sheet)
    _plugins(sheet)
    sheet.rest({"ignored": IGNORED, "approximated": NEAR, "refused": REFUSED}, KEYS, on=_ON)
    return sheet.done()


def _plugins(sheet: Sheet) -> None:
    plugins = sheet.words("plugins")
    if not plugins:
        return
    known = ("liger", "cut_cross_entropy", "kernels", "swanlab", "lm_eval", "expert_parallel", "densemixer")
    odd = [one for one in plugins if not any(f".{word}." in f".{one}." for word in known)]
    if odd:
        names = ", ".join(one.rpartition(".")[2] for one in odd)
        sheet.refused("plugins", f"they are Python code, which is not run: {names:.100}")
    else:
        sheet.ignored("plugins", "faster kernels, trackers and the like, which change nothing that is learned")
