"""Tiny models to merge: two blocks of width 32, with the embedded model's tokenizer, so that they can chat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from studio.jobs import JobFolder
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from studio.settings import Settings
from tests.merge.made import SIZES, put_run

MakeModel = Callable[..., Path]
MakeRun = Callable[..., JobFolder]


@pytest.fixture(scope="session")
def make_model(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Write a model with random weights; `like` makes one that was moved away from another, as by training."""

    def make(seed: int, like: Path | None = None, dtype: torch.dtype = torch.float32, **sizes: Any) -> Path:
        folder = tmp_path_factory.mktemp("model") / f"m{seed}"
        torch.manual_seed(seed)
        if like is None:
            model = LlamaForCausalLM(LlamaConfig(**(SIZES | sizes)))
        else:
            model = AutoModelForCausalLM.from_pretrained(like, dtype=torch.float32)
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
        model.to(dtype).save_pretrained(folder)
        copy_tokenizer(model_path, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def base(make_model: MakeModel) -> Path:
    return make_model(1)


@pytest.fixture(scope="session")
def one(make_model: MakeModel, base: Path) -> Path:
    return make_model(2, like=base)


@pytest.fixture(scope="session")
def two(make_model: MakeModel, base: Path) -> Path:
    return make_model(3, like=base)


@pytest.fixture(scope="session")
def make_adapter(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Write an adapter of a model as a training run saves it, with values in B as training would give."""

    def make(seed: int, model: Path, std: float = 0.05, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("adapter") / f"a{seed}"
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        torch.manual_seed(seed)
        asked = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
        tuned = get_peft_model(loaded, LoraConfig(**asked))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=std)
        tuned.save_pretrained(folder)
        copy_tokenizer(model_path, folder)
        return folder

    return make


@pytest.fixture
def make_run(settings: Settings) -> MakeRun:
    """A completed run in this test's home."""

    def make(name: str, model: Path, base: Path, **config: Any) -> JobFolder:
        return put_run(settings, name, model, base, **config)

    return make
