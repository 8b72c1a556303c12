"""A completed run of a two-layer model, which can be exported in seconds: adapter, data, losses, versions."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.train.loop.saving import save_tokenizer
from tests.export.conftest import perturb
from tests.parity.made import make_tiny


def make_tiny_run(jobs: Path, model_path: Path, base: Path) -> JobFolder:
    """Make the run.

    Args:
        jobs: folder of the jobs.
        model_path: the embedded model, for its tokenizer.
        base: folder that is made for the base model.
    """
    make_tiny(model_path, base)
    data = {"train": [{"path": "demo/train.jsonl"}], "validation": "demo/validation.jsonl"}
    config = {"data": data, "method": {"name": "sft"}, "tuning": {"name": "lora", "rank": 4}}
    run = create_job(jobs, "train", "tiny run", config)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(5)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    perturb(model, 0.3).save_pretrained(run.model)
    save_tokenizer(AutoTokenizer.from_pretrained(base), base, run.model, trust_remote_code=False)
    sources = [
        {"path": "demo/train.jsonl", "part": "train", "kept": 560, "tokens": 61_234, "commit": ""},
        {"path": "demo/validation.jsonl", "part": "validation", "kept": 40, "tokens": 4_000, "commit": ""},
    ]  # fmt: skip
    told = {"sources": sources, "train_rows": 560, "validation_rows": 40, "tokens": 61_234, "supervised_tokens": 20_123}
    write_json(run.environment_path, {
        "base_model": {"name": str(base), "path": str(base), "source": "local"}, "data": told,
        "versions": {"transformers": "5.23.0", "finetune-studio": "0.9"},
    })  # fmt: skip
    events = EventWriter(run.events_path)
    for step in range(1, 41):
        values = {"loss": 3.0 / step} | ({"eval_loss": 3.2 / step} if step % 10 == 0 else {})
        events.write("metric", step=step, values=values)
    events.close()
    write_state(run.state_path, JobState(status="completed"))
    return run
