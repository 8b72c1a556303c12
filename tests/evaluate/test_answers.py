"""The two-pass evaluation says what plain greedy decoding says, row by row."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.evaluate import answers
from studio.evaluate.answers import answer_all
from studio.evaluate.questions import Question, read_questions
from studio.models.plan.batches import Batching
from studio.settings import ASSETS


@pytest.mark.long
def test_two_passes_equal_plain_greedy_decoding(trained_run, model_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained_run.model)
    questions = read_questions(ASSETS / "demo" / "test.jsonl", tokenizer, 6)
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, trained_run.model).eval()
    counted: list[int] = []
    ours = answer_all(tuned, tokenizer, questions, 80, counted.append)
    assert counted[-1] == len(questions)
    with tuned.disable_adapter():
        untrained = answer_all(tuned, tokenizer, questions, 24, lambda done: None)
    for question, answer, before in zip(questions, ours, untrained, strict=True):
        prompt = torch.tensor([question.prompt_ids])
        plain = tuned.generate(prompt, max_new_tokens=80, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        text = tokenizer.decode(plain[0, prompt.shape[1] :], skip_special_tokens=True)
        assert answer.text == text
        assert answer.right == (text == question.expected)
        assert not before.right
    assert sum(answer.right for answer in ours) >= 5


def test_questions_are_rendered_as_in_training(model_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    (question,) = read_questions(ASSETS / "demo" / "test.jsonl", tokenizer, 1)
    assert tokenizer.decode(question.prompt_ids).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(question.answer_ids) == question.expected + "<|im_end|>"


@pytest.mark.parametrize(("knows", "read"), [(0, 16), (1, 16), (2, 32), (4, 48), (13, 100), (100, 100)])
def test_a_model_that_knows_little_is_asked_at_once(monkeypatch: pytest.MonkeyPatch, knows: int, read: int) -> None:
    """Of 100 questions the model knows the first so many, which the first pass comes to first."""
    questions = [Question(row, "q", "right", [row] * (200 - row), [1]) for row in range(100)]
    seen: list[int] = []
    asked: list[int] = []

    def forced(model: object, batch: list[Question]) -> list[bool]:
        seen.extend(one.row for one in batch)
        return [one.row < knows for one in batch]

    def generated(writer: object, batch: list[Question]) -> list[str]:
        prompts = [one.prompt_ids for one in batch]
        asked.extend(prompt[0] for prompt in prompts)
        return ["right" if prompt[0] % 2 else "wrong" for prompt in prompts]

    monkeypatch.setattr(answers, "_forced", forced)
    monkeypatch.setattr(answers._Writer, "texts", generated)
    monkeypatch.setattr(answers, "_skips_padding", lambda model: True)
    monkeypatch.setattr(answers, "FORCED", Batching(rows=16))
    found = answer_all(None, None, questions, 10, lambda done: None)
    assert seen == list(range(read))
    assert sorted(asked) == list(range(knows, 100)), "each question is answered once"
    assert [answer.right for answer in found] == [row < knows or row % 2 == 1 for row in range(100)]
