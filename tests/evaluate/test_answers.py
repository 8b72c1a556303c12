"""An evaluation says what plain greedy decoding says, row by row, whatever answers are tried first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import normalizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    RwkvConfig,
)

from studio.errors import InputError
from studio.evaluate import answers
from studio.evaluate.answers import Answer, answer_all, positions
from studio.evaluate.questions import Question, read_questions
from studio.evaluate.ratings import Judged, likelihoods
from studio.models.plan.batches import Batching
from studio.settings import ASSETS

# What writes by the studio's own loop, and what tries expected answers in a pass of its own, as on a GPU.
FAMILIES: dict[str, dict[str, Any]] = {"llama": {}, "mistral": {"sliding_window": 64}}


def appointed(tokenizer: Any, ids: list[int], then: int, family: str = "llama", **options: Any) -> Any:
    """A model that writes these tokens one after the other, the first of which is a prompt's last, then this one."""
    torch.manual_seed(0)
    size, width = len(tokenizer), 256
    config = AutoConfig.for_model(
        family, vocab_size=size, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, tie_word_embeddings=False, bos_token_id=None, pad_token_id=None,
        eos_token_id=tokenizer.eos_token_id, **options,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if any(part in name for part in ("o_proj", "down_proj", "c_proj", "wpe")):
            weight.data.zero_()
    embedding = torch.nn.functional.normalize(torch.randn(size, width), dim=-1)
    head = torch.zeros(size, width)
    for token, following in zip(ids, [*ids[1:], then], strict=True):
        head[following] += embedding[token]
    head[then] += embedding[then]
    model.get_input_embeddings().weight.data = embedding
    model.get_output_embeddings().weight = torch.nn.Parameter(head)
    return model


def questions_from(folder: Path, tokenizer: Any, *rows: dict[str, Any]) -> list[Question]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(file, tokenizer)


def talk(*turns: str, **last: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages: list[dict[str, Any]] = [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]
    messages[-1] |= last
    return {"messages": messages}


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
    model = SimpleNamespace(config=LlamaConfig(), generation_config=SimpleNamespace(eos_token_id=1))
    tokenizer = SimpleNamespace(all_special_ids=[1], added_tokens_decoder={}, decode=lambda ids, **options: "right")
    seen: list[int] = []
    asked: list[int] = []

    def forced(model: object, batch: list[Question]) -> list[bool]:
        seen.extend(one.row for one in batch)
        return [one.row < knows for one in batch]

    def generated(writer: object, batch: list[Question]) -> list[Answer]:
        prompts = [one.prompt_ids for one in batch]
        asked.extend(prompt[0] for prompt in prompts)
        return [Answer("right" if prompt[0] % 2 else "wrong", prompt[0] % 2 == 1) for prompt in prompts]

    monkeypatch.setattr(answers, "_forced", forced)
    monkeypatch.setattr(answers._Writer, "answers", generated)
    monkeypatch.setattr(answers, "_skips_padding", lambda model: True)
    monkeypatch.setattr(answers, "FORCED", Batching(rows=16))
    found = answer_all(model, tokenizer, questions, 10, lambda done: None)
    assert seen == list(range(read))
    assert sorted(asked) == list(range(knows, 100)), "each question is answered once"
    assert [answer.right for answer in found] == [row < knows or row % 2 == 1 for row in range(100)]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_right_if_it_ends_as_expected(family: str, tiny: Path, tmp_path: Path) -> None:
    """Wherever it is tried first: cut at the limit it counts as wrong, and the model's own settings change nothing."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    (question,) = questions_from(tmp_path, tokenizer, talk("hi", "one two"))
    begin, (one, two, end) = question.prompt_ids[-1], question.answer_ids

    def told(ids: list[int], most: int, asked: Question = question, **settings: Any) -> Answer:
        model = appointed(tokenizer, [begin, *ids], 77, family, **FAMILIES[family])
        model.generation_config.update(**settings)
        before = model.generation_config
        counted: list[int] = []
        (answer,) = answer_all(model, tokenizer, [asked], most, counted.append)
        assert counted[-1] == 1 and model.generation_config is before
        return answer

    assert told([one, two, end], 3) == Answer("one two", True)
    assert told([one, two, end], 2) == Answer("one two", False)
    assert told([one, two, end], 1) == Answer("one", False)
    assert told([one, two], 2) == Answer("one two", False)
    assert not told([one, two], 9).right
    # Training that taught no end taught the model to go on.
    assert not told([one, two], 9, replace(question, answer_ids=[one, two])).right
    for settings in (
        {"suppress_tokens": [one]}, {"min_new_tokens": 6}, {"num_beams": 2}, {"return_dict_in_generate": True},
        {"repetition_penalty": 1.5, "temperature": 0.6, "do_sample": True},
    ):  # fmt: skip
        assert told([one, two, end], 9, **settings) == Answer("one two", True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_of_an_expected_answer_are_right(family: str, tiny: Path, tmp_path: Path) -> None:
    """Its tokenizer puts letters together, so that what a model can write is never the row's text."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    (question,) = questions_from(tmp_path, tokenizer, talk("hi", "cafe\u0301"))
    model = appointed(tokenizer, [question.prompt_ids[-1], *question.answer_ids], 77, family, **FAMILIES[family])
    (answer,) = answer_all(model, tokenizer, [question], 9, lambda done: None)
    assert answer == Answer("caf\u00e9", True) and question.expected == "cafe\u0301"


def test_a_last_answer_of_weight_0_is_not_asked_for(tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = talk("a", "one", "b", "two", weight=0), talk("a", "one")
    light, plain = questions_from(tmp_path, tokenizer, *rows)
    assert light == replace(plain, row=1) and plain.expected == "one" and plain.prompt == "a"


def test_a_row_without_a_prompt_is_refused(tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"rows.jsonl, row 1.*the prompt is empty"):
        questions_from(tmp_path, tokenizer, {"prompt": "", "completion": "one two"})


def test_a_model_that_reads_on_from_a_state_has_no_last_position() -> None:
    config = RwkvConfig(vocab_size=8, context_length=16, hidden_size=8, num_hidden_layers=2)
    assert config.max_position_embeddings == 16, "what RWKV calls the length of its rows in training"
    assert positions(AutoModelForCausalLM.from_config(config)) is None
    looked_up = GPT2Config(vocab_size=8, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    assert positions(AutoModelForCausalLM.from_config(looked_up)) == 16


def test_a_model_without_more_positions(tiny: Path, tmp_path: Path) -> None:
    """The first GPTs look positions up: an answer is cut at the last one, and a longer row is refused by its number."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = [talk("hi", "one two"), talk("a " * 15, "one two"), talk("a " * 40, "one two")]
    questions = questions_from(tmp_path, tokenizer, *rows)
    lengths = [len(one.prompt_ids) for one in questions]
    assert lengths[0] + 20 < 64 < lengths[1] + 20 and lengths[1] < 64 < lengths[2]
    ids = [questions[0].prompt_ids[-1], *questions[0].answer_ids[:2]]
    model = appointed(tokenizer, ids, 77, "gpt2", n_positions=64)
    written = answer_all(model, tokenizer, questions[:2], 20, lambda done: None)
    sizes = [len(tokenizer.encode(one.text, add_special_tokens=False)) for one in written]
    assert sizes == [20, 64 - lengths[1]] and not any(one.right for one in written)
    with pytest.raises(InputError, match=r"row 3: .* positions for 64"):
        answer_all(model, tokenizer, questions, 20, lambda done: None)
    long = Judged(3, "", "", questions[2].prompt_ids, questions[2].answer_ids, True, ())
    with pytest.raises(InputError, match=r"row 3: .* positions for 64"):
        likelihoods(model, [long], lambda done: None)
