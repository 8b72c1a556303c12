"""The card of an exported child says that it was merged, and of what; not that it was trained on some data."""

from __future__ import annotations

from typing import Any

from studio.export.card import model_card
from studio.export.origins.run import RunOrigin
from studio.jobs.store.folder import create_job
from studio.settings import Settings

ENTRY: dict[str, Any] = {
    "type": "merged", "dtype": "bfloat16", "greedy": None, "prompts_compared": 3, "prompt_ids_equal": True, "top1": 1.0,
    "mean_kl": 0.0, "exact_match": None, "verdict": "as trained", "notes": [],
}  # fmt: skip
REPORT: dict[str, Any] = {"name": "child", "base_model": "the base", "reference": {"positions": 512}}


def test_a_childs_card_names_its_parents(settings: Settings) -> None:
    config = {"recipe": "…", "parents": {"orders": "20261129-orders", "./style": "/style"}, "like": {"data": {}}}
    card = model_card(RunOrigin(create_job(settings.jobs, "merge", "child", config)), REPORT, ENTRY)
    assert "This is the base, merged from orders, style, weights in bfloat16" in card.replace("\\", "")
    assert "fine-tuned" not in card and "demo/train" not in card


def test_a_runs_card_names_its_training(settings: Settings) -> None:
    config = {"method": {"name": "sft"}, "tuning": {"name": "lora"}, "data": {"train": [{"path": "rows.jsonl"}]}}
    card = model_card(RunOrigin(create_job(settings.jobs, "train", "run", config)), REPORT, ENTRY)
    assert "fine-tuned (SFT, LoRA) on rows.jsonl" in card.replace("\\", "")
