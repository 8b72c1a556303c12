"""The studio's PPO beside the last one that TRL had (1.12.0), on the demo's sums, with the same reward and settings.

    pip install --target FOLDER --no-deps trl==1.12.0
    python -m tests.benchmarks.beside.ppo_against_trl FOLDER [seed ...]
Prints the mean reward of each batch of answers as JSON lines. TRL runs in a process of its own with FOLDER before the
installed TRL. It trains a value model of its own in full; the studio's is a second adapter over the shared base.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from studio.jobs import JobFolder
from studio.settings import ASSETS
from tests.benchmarks.methods import reported
from tests.conftest import run_studio

BATCHES, BATCH, EPOCHS, RATE, LENGTH, WANTED = 20, 16, 4, 3e-4, 24, 6


def ours(home: Path, seed: int) -> dict[str, Any]:
    """Train with the studio; {"reward": [...], "kl": [...], "seconds"}."""
    sets = [f"training.seed={seed}", f"training.max_steps={BATCHES * EPOCHS}", "training.scheduler=constant",
            "training.warmup=0", f"training.learning_rate={RATE}", "training.save_steps=1000"]  # fmt: skip
    extra = [part for value in sets for part in ("--set", value)]
    done = run_studio("train", "demo/ppo", "--name", f"ppo-{seed}", "--json", *extra, home=home, seconds=3600)
    assert done.code == 0, done.stderr
    job = JobFolder(Path(done.json["path"]))
    # Each batch is reported once for every update that it is used in.
    return {
        "reward": reported(job, "reward")[::EPOCHS],
        "kl": reported(job, "objective/kl")[::EPOCHS],
        "seconds": done.json["seconds"],
    }


def theirs(model_path: str, rows: Path, seed: int) -> dict[str, Any]:
    """Train with TRL 1.12.0, in this process."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from studio.train.rewards.functions import last_number

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    tokenizer.pad_token = "<|endoftext|>"  # the chat model's own is its EOS, which PPOTrainer takes for padding
    data = [json.loads(line) for line in rows.read_text().splitlines()]
    asked = {row["prompt"][-1]["content"]: row["answer"] for row in data}

    class Inner(nn.Module):
        """In place of a backbone: hands the ids on, so that `score` can read the text."""

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return SimpleNamespace(hidden_states=(input_ids,))

    class RuleReward(nn.Module):
        """The demo's rewards numeric and length, as a reward model."""

        base_model_prefix = "inner"

        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def score(self, ids: Any) -> Any:
            values = [self.value(tokenizer.decode(row)) for row in ids]
            return torch.tensor(values)[:, None, None].expand(-1, ids.shape[1], 1)

        def value(self, text: str) -> float:
            before, _, said = text.rpartition("<|im_start|>assistant\n")
            question = before.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
            said = said.partition("<|im_end|>")[0].partition("<|endoftext|>")[0]
            right = float(last_number(said) is not None and last_number(said) == last_number(asked[question]))
            count = len(tokenizer(said, add_special_tokens=False)["input_ids"])
            return right + max(0.0, 1.0 - abs(count - WANTED) / WANTED)

    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False) for row in data
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder, per_device_train_batch_size=4, gradient_accumulation_steps=4, num_mini_batches=1,
                num_ppo_epochs=EPOCHS, total_episodes=BATCHES * BATCH, response_length=LENGTH, stop_token="eos",
                temperature=0.7, learning_rate=RATE, lr_scheduler_type="constant", kl_coef=0.05, cliprange=0.2,
                vf_coef=0.1, gamma=1.0, lam=0.95, seed=seed, use_cpu=True, bf16=False, report_to="none",
                save_strategy="no", num_sample_generations=0, logging_steps=1, gradient_checkpointing=False,
            ),
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32),
            ref_model=None,
            reward_model=RuleReward(),
            value_model=AutoModelForSequenceClassification.from_pretrained(
                model_path, num_labels=1, dtype=torch.float32
            ),
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
            eval_dataset=Dataset.from_dict({"input_ids": prompts[:4]}),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )  # fmt: skip
        began = time.monotonic()
        trainer.train()
        history = [entry for entry in trainer.state.log_history if "objective/scores" in entry]
        return {
            "reward": [entry["objective/scores"] for entry in history],
            "kl": [entry["objective/kl"] for entry in history],
            "seconds": time.monotonic() - began,
        }


def main() -> None:
    """Run both for each seed."""
    if sys.argv[1] == "--theirs":
        print(json.dumps(theirs(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
        return
    folder, seeds = sys.argv[1], [int(word) for word in sys.argv[2:]] or [42, 43, 44]
    with tempfile.TemporaryDirectory() as kept:
        home = Path(kept) / "home"
        for seed in seeds:
            print(json.dumps({"who": "studio", "seed": seed, **ours(home, seed)}), flush=True)
            model = home / "models" / "smollm2-135m-instruct"
            command = [sys.executable, "-m", "tests.benchmarks.beside.ppo_against_trl", "--theirs", str(model)]
            command += [str(ASSETS / "demo" / "sums_train.jsonl"), str(seed)]
            path = os.pathsep.join([folder, str(ASSETS.parent)])
            done = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            answer = json.loads(done.stdout.strip().splitlines()[-1])
            print(json.dumps({"who": "trl 1.12.0", "seed": seed, **answer}), flush=True)


if __name__ == "__main__":
    main()
