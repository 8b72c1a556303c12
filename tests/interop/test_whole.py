"""Whole configs as people write them today, in the style of each tool's examples: what each becomes, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.interop.reading import read_given
from studio.interop.report import Imported
from studio.interop.tools import import_given

SIMPO = """\
### model
model_name_or_path: org/llama-8b-instruct
trust_remote_code: true

### method
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
pref_beta: 2.5
pref_loss: simpo  # choices: [sigmoid (dpo), orpo, simpo]
simpo_gamma: 1.4

### dataset
dataset: pairs
template: llama3
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16

### output
output_dir: saves/simpo
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
report_to: none  # choices: [none, wandb, tensorboard, swanlab, mlflow]

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null

### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""
KTO = """\
model_name_or_path: org/qwen-7b
stage: kto
do_train: true
finetuning_type: lora
lora_rank: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target: q_proj,k_proj,v_proj,o_proj
pref_beta: 0.2
pref_ftx: 0.1
kto_chosen_weight: 1.0
kto_rejected_weight: 1.33
dataset: ratings
template: qwen
cutoff_len: 4096
overwrite_cache: true
output_dir: saves/kto
save_strategy: epoch
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 5.0e-6
num_train_epochs: 1.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
flash_attn: fa2
enable_liger_kernel: true
val_size: 100
eval_strategy: "no"
"""
GRPO = """\
base_model: org/qwen-1.5b
load_in_8bit: false
load_in_4bit: false
strict: false
rl: grpo
trl:
  beta: 0.001
  max_completion_length: 1024
  use_vllm: true
  vllm_mode: colocate
  vllm_server_host: 0.0.0.0
  vllm_server_port: 8000
  vllm_server_timeout: 300
  reward_funcs: [rewards.accuracy_reward]
  reward_weights: [1.0]
  num_generations: 16
  num_iterations: 1
  loss_type: dr_grpo
  scale_rewards: false
  epsilon: 0.2
  epsilon_high: 0.28
  temperature: 0.7
  top_p: 1.0
  mask_truncated_completions: true
  sync_ref_model: false
  log_completions: true
vllm:
  host: 0.0.0.0
  port: 8000
  tensor_parallel_size: 2
  gpu_memory_utilization: 0.85
  dtype: auto
chat_template: qwen_25
datasets:
  - path: org/maths
    name: main
    type: rewards.prompt_transform
    split: train[:2000]
skip_prepare_dataset: true
val_set_size: 0.0
output_dir: ./outputs/grpo
adapter: lora
lora_r: 32
lora_alpha: 64
lora_target_linear: true
peft_autocast_adapter_dtype: false
sequence_len: 2048
sample_packing: false
gradient_accumulation_steps: 4
micro_batch_size: 16
max_steps: 500
num_epochs: 1
optimizer: adamw_torch_fused
lr_scheduler: constant_with_warmup
learning_rate: 1.0e-6
max_grad_norm: 0.2
warmup_steps: 10
bf16: true
tf32: true
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
attn_implementation: flash_attention_2
save_strategy: no
use_wandb: false
seed: 3407
"""
DPO = """\
model_name_or_path: org/qwen-1.7b
dtype: bfloat16
dataset_name: org/preferences
dataset_train_split: train_prefs[:5000]
dataset_test_split: test_prefs
output_dir: out
loss_type: [sigmoid]
label_smoothing: 0.1
beta: 0.05
truncation_mode: keep_end
max_length: 2048
disable_dropout: true
learning_rate: 5.0e-7
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: true
num_train_epochs: 1
lr_scheduler_type: cosine
warmup_ratio: 0.1
optim: paged_adamw_8bit
bf16: true
eval_strategy: steps
eval_steps: 200
save_strategy: "no"
report_to: none
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: [q_proj, k_proj, v_proj, o_proj]
push_to_hub: false
seed: 0
"""
SWIFT = """\
CUDA_VISIBLE_DEVICES=0,1,2,3 \\
NPROC_PER_NODE=4 \\
swift rlhf \\
    --rlhf_type grpo \\
    --model org/qwen-7b \\
    --reward_funcs accuracy format \\
    --reward_weights 1 0.5 \\
    --use_vllm true \\
    --vllm_mode colocate \\
    --vllm_gpu_memory_utilization 0.5 \\
    --sleep_level 1 \\
    --train_type lora \\
    --torch_dtype bfloat16 \\
    --dataset 'org/maths#5000' \\
    --max_completion_length 2048 \\
    --num_train_epochs 1 \\
    --per_device_train_batch_size 4 \\
    --gradient_accumulation_steps 2 \\
    --learning_rate 1e-6 \\
    --save_steps 200 \\
    --save_total_limit 2 \\
    --max_length 4096 \\
    --warmup_ratio 0.05 \\
    --dataset_shuffle false \\
    --num_generations 8 \\
    --system 'examples/train/grpo/prompt.txt' \\
    --scale_rewards none \\
    --top_p 0.9 \\
    --top_k 50 \\
    --deepspeed zero2 \\
    --log_completions true \\
    --num_iterations 1 \\
    --beta 0.001
"""


def imported(text: str, ending: str, command: str, folder: Path) -> Imported:
    file = folder / f"run{ending}"
    file.write_text(text, encoding="utf-8")
    return import_given(read_given(f"{command} {file}" if command else str(file)))


@pytest.mark.parametrize(
    ("text", "ending", "command", "expected", "refused"),
    [
        (SIMPO, ".yaml", "llamafactory-cli train",
         {"method.name": "simpo", "method.beta": 2.5, "method.simpo_gamma": 1.4, "tuning.target_modules": "all-linear",
          "training.batch_size": 8, "data.validation": 0.1, "training.eval_steps": 500, "training.report_to": [],
          "model.trust_remote_code": False},
         set()),
        (KTO, ".yaml", "",
         {"method.name": "kto", "method.beta": 0.2, "method.undesirable_weight": 1.33, "tuning.alpha": 32,
          "model.attention": "flash_attention_2", "training.save_steps": "auto", "training.epochs": 1.0,
          "data.system": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
         {"pref_ftx"}),
        (GRPO, ".yml", "axolotl train",
         {"method.name": "grpo", "method.grpo_loss": "dr_grpo", "method.beta": 0.001, "method.num_generations": 16,
          "method.temperature": 0.7, "method.clip_range": 0.2, "method.max_completion_length": 1024,
          "method.reward_python": "rewards.py:accuracy_reward", "method.trust_reward_code": False,
          "training.batch_size": 64, "training.max_steps": 500, "training.warmup": 0.02, "training.max_grad_norm": 0.2,
          "training.keep_checkpoints": "none", "training.report_to": [], "data.validation": 0.0},
         {"trl.scale_rewards", "trl.epsilon_high", "trl.mask_truncated_completions", "datasets[0].type"}),
        (DPO, ".yaml", "trl dpo --config",
         {"method.name": "dpo", "method.beta": 0.05, "method.dpo_loss": ["sigmoid"], "method.label_smoothing": 0.0,
          "data.validation": "org/preferences", "data.validation_split": "test_prefs", "training.batch_size": 16,
          "training.keep_checkpoints": "none", "training.eval_steps": 200, "training.seed": 0,
          "training.optimizer": "paged_adamw_8bit", "tuning.rank": 32},
         {"label_smoothing"}),
        (SWIFT, ".sh", "",
         {"method.name": "grpo", "method.grpo_loss": "grpo", "method.temperature": 0.9, "method.beta": 0.001,
          "training.batch_size": 32, "training.learning_rate": 1e-6, "data.shuffle": False, "data.system": None,
          "tuning.name": "lora", "tuning.rank": 8, "data.validation": 0.0},
         {"scale_rewards", "reward_funcs", "reward_weights", "system", "top_p", "top_k"}),
    ],
    ids=["llama-factory-simpo", "llama-factory-kto", "axolotl-grpo", "trl-dpo", "ms-swift-grpo"],
)  # fmt: skip
def test_a_config_of_today_is_a_run_and_what_is_refused_is_said(
    text: str, ending: str, command: str, expected: dict[str, Any], refused: set[str], tmp_path: Path
) -> None:
    result = imported(text, ending, command, tmp_path)
    config = build(RunConfig, result.run).model_dump()
    found = {path: config[path.partition(".")[0]][path.partition(".")[2]] for path in expected}
    assert found == expected
    assert {line.key for line in result.report if line.status == "refused"} == refused
    assert not [line.key for line in result.report if line.status == "unknown"]


@pytest.mark.parametrize(
    ("text", "ending", "command", "rows", "split"),
    [
        (GRPO, ".yml", "", 2000, "train"), (DPO, ".yaml", "trl dpo --config", 5000, "train_prefs"),
        (SWIFT, ".sh", "", 5000, "train"), (SIMPO, ".yaml", "", 1000, "train"),
    ],
)  # fmt: skip
def test_their_rows_are_counted(text: str, ending: str, command: str, rows: int, split: str, tmp_path: Path) -> None:
    config = build(RunConfig, imported(text, ending, command, tmp_path).run)
    assert [(source.rows, source.split) for source in config.data.train] == [(rows, split)]
