"""An evaluation says what plain greedy decoding says, row by row, whatever answers are tried first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

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


def test_answers_are_greedy_and_end_where_the_expected_ones_do(model_path) -> None:
    """A generation config's penalty is not applied, as nowhere else, and its end is not the only one."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    questions = read_questions(ASSETS / "demo" / "test.jsonl", tokenizer, 5)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, eos_token_id=0)).eval()
    # A token is followed by the next one, but the second behind a prompt's last by that: the prompt is repeated.
    model.lm_head.weight.data = torch.nn.functional.pad(model.model.embed_tokens.weight.detach(), (0, 0, 1, 0))[:-1]
    last = questions[0].prompt_ids[-1]
    model.lm_head.weight.data[last] = model.model.embed_tokens.weight.detach()[last + 2]
    model.generation_config.repetition_penalty = 3.0
    end = questions[0].answer_ids[-1]
    expected = []
    for question in questions:
        ids = torch.tensor([question.prompt_ids])
        for _ in range(9):
            chosen = model(ids).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, chosen[None]], 1)
        expected.append(ids[0, len(question.prompt_ids) :].tolist())
    asked = {"attention_mask": torch.ones(1, len(questions[0].prompt_ids)), "max_new_tokens": 9, "do_sample": False}
    penalized = model.generate(torch.tensor([questions[0].prompt_ids]), **asked)[0, len(questions[0].prompt_ids) :]
    assert penalized.tolist() != expected[0]
    counted: list[int] = []
    found = answer_all(model, tokenizer, questions, 9, counted.append)
    assert [one.text for one in found] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    assert counted[-1] == 5
    # The model writes the third token of its first answer as the end of its turn.
    model.lm_head.weight.data[[end, expected[0][2]]] = model.lm_head.weight.data[[expected[0][2], end]]
    first = expected[0][:2]
    drafted = [replace(one, answer_ids=[*first, end], expected=tokenizer.decode(first)) for one in questions[:1]]
    for some in (questions[:1], drafted):
        (answer,) = answer_all(model, tokenizer, some, 9, lambda done: None)
        assert answer.text == tokenizer.decode(first) and answer.right is (some is drafted)


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
