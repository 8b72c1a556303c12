"""The server with real models, through the official client: equal to the plain libraries, and honest."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from studio.chat.client import ChatHandle
from tests.chat.conftest import QUESTIONS, client_of
from tests.support.everyday import everyday

TOKENS = 24
Model = tuple[ChatHandle, str]


def say(model: Model, messages: Any, **options: Any) -> Any:
    handle, name = model
    return client_of(handle).chat.completions.create(
        model=name, messages=messages, **{"temperature": 0, "max_tokens": TOKENS, **options}
    )


def deltas(model: Model, messages: Any, **options: Any) -> list[str]:
    chunks = say(model, messages, stream=True, **options)
    return [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]


@pytest.fixture(scope="module")
def expected(model_path: Path, adapter_path: Path) -> dict[str, list[tuple[str, int]]]:
    """(answer, prompt tokens) of plain transformers and PEFT, greedy, for base and tuned."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    found: dict[str, list[tuple[str, int]]] = {}
    for name in ("base", "tuned"):
        module = base if name == "base" else PeftModel.from_pretrained(base, str(adapter_path))
        found[name] = []
        for messages in QUESTIONS:
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            made = module.generate(**ids, max_new_tokens=TOKENS, do_sample=False)
            size = ids["input_ids"].shape[1]
            found[name].append((tokenizer.decode(made[0, size:], skip_special_tokens=True), size))
    return found


@pytest.mark.parametrize("name", everyday(["base", "tuned"], "tuned"))
def test_answers_equal_plain_transformers(
    run_handle: ChatHandle, expected: dict[str, list[tuple[str, int]]], name: str
) -> None:
    for messages, (text, size) in zip(QUESTIONS, expected[name], strict=True):
        reply = say((run_handle, name), messages)
        assert reply.choices[0].message.content == text
        assert reply.usage.prompt_tokens == size
        assert reply.usage.total_tokens == size + reply.usage.completion_tokens
    assert expected["base"] != expected["tuned"]


def test_gguf_answers_equal_llama_cpp(gguf_handle: ChatHandle, gguf_path: Path) -> None:
    from llama_cpp import Llama

    plain = Llama(str(gguf_path), n_ctx=2048, verbose=False)
    for messages in QUESTIONS:
        wanted: Any = plain.create_chat_completion(messages, temperature=0, max_tokens=TOKENS)  # type: ignore[arg-type]
        reply = say((gguf_handle, "gguf"), messages)
        assert reply.choices[0].message.content == wanted["choices"][0]["message"]["content"]
        assert reply.choices[0].finish_reason == wanted["choices"][0]["finish_reason"]
        assert reply.usage.prompt_tokens == wanted["usage"]["prompt_tokens"]
    plain.close()


def test_streamed_equals_whole(any_model: Model) -> None:
    for messages in QUESTIONS:
        assert "".join(deltas(any_model, messages)) == say(any_model, messages).choices[0].message.content


def test_chunks_follow_openai(any_model: Model) -> None:
    chunks = list(say(any_model, QUESTIONS[0], stream=True, stream_options={"include_usage": True}, max_tokens=4))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 4
    assert {c.id for c in chunks} == {chunks[0].id} and {c.object for c in chunks} == {"chat.completion.chunk"}
    assert all(c.usage is None for c in say(any_model, QUESTIONS[0], stream=True, max_tokens=2))


def test_an_answer_ends_at_the_end_token(any_model: Model) -> None:
    messages = [{"role": "user", "content": "What is the capital of France? Say only its name."}]
    reply = say(any_model, messages, max_tokens=200)
    assert reply.choices[0].finish_reason == "stop"
    assert "<|im_end|>" not in reply.choices[0].message.content


def test_characters_of_several_tokens_arrive_whole(any_model: Model) -> None:
    """Emoji and Chinese are several tokens a character in this vocabulary."""
    seen = ""
    for question in ("Write emoji: 😀 🎉 🚀 😀 🎉", "Translate to Chinese: hello world"):
        messages = [{"role": "user", "content": question}]
        pieces = deltas(any_model, messages)
        whole = say(any_model, messages)
        assert "".join(pieces) == whole.choices[0].message.content
        assert "\ufffd" not in "".join(pieces[:-1])  # the last one can be cut by the limit
        assert len(pieces) <= whole.usage.completion_tokens + 1
        seen += "".join(pieces)
    assert any_model[1] == "tuned" or not seen.isascii()  # the random adapter says anything


def test_seed_repeats_and_other_seeds_differ(any_model: Model) -> None:
    texts = [
        say(any_model, QUESTIONS[0], temperature=1, top_p=0.9, seed=s).choices[0].message.content for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_stop_string_is_not_sent(any_model: Model) -> None:
    whole = say(any_model, QUESTIONS[0]).choices[0].message.content
    stop = whole[5:12]
    reply = say(any_model, QUESTIONS[0], stop=[stop, "never in it"])
    assert reply.choices[0].message.content == whole[: whole.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    assert "".join(deltas(any_model, QUESTIONS[0], stop=stop)) == whole[: whole.index(stop)]


def test_models_are_listed(run_handle: ChatHandle, gguf_handle: ChatHandle) -> None:
    assert [m.id for m in client_of(run_handle).models.list()] == ["base", "tuned"] == list(run_handle.models)
    assert [m.id for m in client_of(gguf_handle).models.list()] == ["gguf"]
    assert client_of(run_handle).models.retrieve("base").model_extra["dtype"] == "float32"  # type: ignore[index]


def test_errors_have_openai_shape(any_model: Model) -> None:
    handle, name = any_model
    with pytest.raises(openai.NotFoundError) as missing:
        say((handle, "gpt-4"), QUESTIONS[0])
    assert missing.value.code == "model_not_found" and missing.value.param == "model" and name in str(missing.value)
    with pytest.raises(openai.BadRequestError) as bad:
        say(any_model, QUESTIONS[0], temperature=9)
    assert bad.value.param == "temperature" and bad.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as unknown:
        say(any_model, QUESTIONS[0], extra_body={"top_k": 5})
    assert unknown.value.param == "top_k"


def test_too_long_names_both_numbers(any_model: Model) -> None:
    limit = client_of(any_model[0]).models.retrieve(any_model[1]).model_extra["context_length"]  # type: ignore[index]
    messages = [{"role": "user", "content": "word " * limit}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            say(any_model, messages, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert str(limit) in str(caught.value)
        assert int(str(caught.value).split(" tokens")[0].rpartition(" ")[2]) > limit


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models", {}, 401),
        ("/v1/models", {"Authorization": "Bearer wrong"}, 401),
        ("/v1/models", {"Authorization": "KEY"}, 401),
        ("/nothing", {}, 401),
        ("/nothing", {"Authorization": "Bearer KEY"}, 404),
        ("/health", {}, 200),
        ("/health", {"Host": "evil.example"}, 403),
        ("/v1/models", {"Authorization": "Bearer KEY", "Host": "127.0.0.1.evil.example:80"}, 403),
        ("/v1/models", {"Authorization": "Bearer KEY", "Host": "localhost:1"}, 200),
        ("/v1/chat/completions", {"Authorization": "Bearer KEY"}, 405),
        ("/docs", {"Authorization": "Bearer KEY"}, 404),
    ],
)
def test_gate(run_handle: ChatHandle, path: str, headers: dict[str, str], status: int) -> None:
    address = run_handle.base_url.removesuffix("/v1")
    sent = {name: value.replace("KEY", run_handle.key) for name, value in headers.items()}
    reply = httpx.get(address + path, headers=sent, trust_env=False)
    assert reply.status_code == status
    if status >= 400:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_huge_body_is_refused(run_handle: ChatHandle) -> None:
    reply = httpx.post(
        f"{run_handle.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {run_handle.key}"},
        content=b" " * (9 * 2**20),
        trust_env=False,
    )
    assert reply.status_code == 413


@pytest.mark.long
def test_base_and_tuned_stream_side_by_side(run_handle: ChatHandle) -> None:
    alone = {name: "".join(deltas((run_handle, name), QUESTIONS[0])) for name in ("base", "tuned")}
    arrivals: list[str] = []
    together: dict[str, str] = {}

    def read(name: str) -> None:
        text = ""
        for chunk in say((run_handle, name), QUESTIONS[0], stream=True):
            for choice in chunk.choices:
                if choice.delta.content:
                    text += choice.delta.content
                    arrivals.append(name)
        together[name] = text

    threads = [threading.Thread(target=read, args=(name,)) for name in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone
    switches = sum(a != b for a, b in itertools.pairwise(arrivals))
    assert switches >= 4, arrivals  # not one after the other


def answers_in_progress(handle: ChatHandle) -> int:
    return int(httpx.get(handle.base_url.removesuffix("/v1") + "/health", trust_env=False).json()["answers"])


def until_answers(handle: ChatHandle, count: int) -> bool:
    """Wait up to five seconds: the role is sent before the model takes the question, and leaving is noticed later."""
    end = time.monotonic() + 5
    while answers_in_progress(handle) != count:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_model(any_model: Model, stream: bool) -> None:
    handle, name = any_model
    # Greedy and long for certain: a random answer may end before anybody can leave it.
    messages = [{"role": "user", "content": "Write a very long story about a harbour, its keeper and the sea."}]
    body = {"model": name, "messages": messages, "stream": stream, "temperature": 0, "max_tokens": 2000}
    headers = {"Authorization": f"Bearer {handle.key}"}
    address = f"{handle.base_url}/chat/completions"
    with httpx.Client(trust_env=False, timeout=1.5 if not stream else 60) as client:
        if stream:
            with client.stream("POST", address, json=body, headers=headers) as reply:
                lines = (line for line in reply.iter_lines() if line)
                first, second = (json.loads(next(lines).removeprefix("data: ")) for _ in range(2))
                assert first["choices"][0]["delta"]["role"] == "assistant"
                assert second["choices"][0]["delta"]["content"], "the answer is under way"
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(address, json=body, headers=headers)
    assert until_answers(handle, 0)
