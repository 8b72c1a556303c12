"""SFT with LoRA equals plain TRL and PEFT on the same batches, at every step.

The plain side shares nothing with the studio but the model: it masks with a chat template that marks the answers
(`{% generation %}`), and lets TRL compute its own loss over all positions.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from studio.settings import ASSETS, Settings
from tests.parity.made import logged, make_trainer

STEPS = 20
BATCH = 4
RATE = 1e-3
# Both sides add up the same numbers in another order; fp32 keeps seven digits.
TOLERANCE = 1e-3
MARKED = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n'}}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{m['content'] + '<|im_end|>'}}{% endgeneration %}{{'\n'}}"
    "{% else %}{{m['content'] + '<|im_end|>\n'}}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "rows.jsonl"
    lines = (ASSETS / "demo" / "train.jsonl").read_text(encoding="utf-8").splitlines()[: STEPS * BATCH]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def plain_losses(model_path: Path, rows_file: Path, output: Path) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    rows = []
    for line in rows_file.read_text(encoding="utf-8").splitlines():
        encoded = tokenizer.apply_chat_template(
            json.loads(line)["messages"], chat_template=MARKED, tokenize=True, return_dict=True,
            return_assistant_tokens_mask=True,
        )  # fmt: skip
        labels = [
            token if counts else -100
            for token, counts in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        ]
        rows.append({"input_ids": encoded["input_ids"], "labels": labels})
    set_seed(42)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    arguments = SFTConfig(
        output_dir=str(output), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=RATE,
        lr_scheduler_type="cosine", warmup_steps=1, logging_steps=1, report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, seed=42, save_strategy="no", disable_tqdm=True, max_length=None,
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
    )
    trainer.train()
    return logged(trainer)


def studio_losses(model_path: Path, rows_file: Path, output: Path, settings: Settings) -> list[float]:
    raw = {
        "model": {"path": str(model_path), "dtype": "float32"},
        "data": {"train": [{"path": str(rows_file)}], "validation": 0},
        "training": {"max_steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "warmup": 1 / STEPS},
    }
    made = make_trainer(raw, model_path, output, settings)
    assert made.setup.plan.dtype == "float32"
    assert not made.setup.plan.autocast
    assert made.setup.engine_loss
    made.trainer.args.save_strategy = "no"
    made.trainer.train()
    return logged(made.trainer)


@pytest.mark.long
def test_the_loss_of_each_step_equals_plain_trl_and_peft(model_path, rows_file, tmp_path, settings) -> None:
    plain = plain_losses(model_path, rows_file, tmp_path / "plain")
    studio = studio_losses(model_path, rows_file, tmp_path / "studio", settings)
    assert len(plain) == len(studio) == STEPS
    differences = [abs(a - b) / abs(a) for a, b in zip(plain, studio, strict=True)]
    print("\nparity: largest relative difference", max(differences), "mean", sum(differences) / STEPS)
    assert max(differences) <= TOLERANCE
    assert sum(differences) / STEPS <= TOLERANCE / 2
    assert plain[-1] < plain[0] / 2
