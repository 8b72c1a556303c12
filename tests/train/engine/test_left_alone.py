"""Layers that the engine does not replace, since what they compute is not what they look like."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from studio.kernels.calls import Kernels
from studio.train.engine import fused
from tests.train.engine.test_fused import SIZES, adapted


def test_a_norm_whose_weights_are_not_its_own_is_left_alone(kernels: Kernels) -> None:
    """FalconMamba's inner norms hold ones that they do not use, of another width than the rows."""
    torch.manual_seed(0)
    sizes = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon_mamba", **sizes)).train()
    inner = [module for name, module in model.named_modules() if name.endswith(("dt_layernorm", "b_layernorm"))]
    assert len(inner) == 4
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.norms == 3, done.line()
    assert not any("forward" in vars(module) for module in inner)


def test_a_norm_that_gets_narrower_rows_is_the_models_own(kernels: Kernels) -> None:
    torch.manual_seed(0)
    model = adapted(LlamaForCausalLM(LlamaConfig(**SIZES)))
    done = fused.attach(model, kernels, attention_is_free=True, autocast=False)
    assert done.norms == 5, done.line()
    with pytest.raises(RuntimeError, match="must match the size"):  # torch's own sentence, and not other memory
        model.get_base_model().model.norm(torch.ones(2, 16))


def test_a_layer_that_is_computed_otherwise_is_left_alone(kernels: Kernels) -> None:
    class OwnRMSNorm(nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.weight, self.eps = layer.weight, layer.variance_epsilon

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (2 + self.weight)

    base = LlamaForCausalLM(LlamaConfig(**SIZES))
    for layer in base.model.layers:
        layer.input_layernorm = OwnRMSNorm(layer.input_layernorm)
        layer.mlp.act_fn = nn.ReLU()
    done = fused.attach(adapted(base), kernels, attention_is_free=False, autocast=False)
    assert (done.norms, done.gates, done.segments, done.reason) == (3, 0, False, "")
