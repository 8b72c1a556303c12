"""The trained model's answers, with which those of an export are compared."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from studio.export.proof.greedy import greedy_answers
from tests.train.engine.test_fused import SIZES


def test_settings_of_the_model_do_not_change_the_likeliest_answer() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    prompts = [("a", [5, 6, 7]), ("b", [8, 9])]
    before = greedy_answers(model, prompts, [])
    settings = {"repetition_penalty": 3.0, "suppress_tokens": [one.ids[0] for one in before], "no_repeat_ngram_size": 1}
    model.generation_config.update(**settings)
    assert greedy_answers(model, prompts, []) == before
    assert model.generation_config.repetition_penalty == 3.0
