"""Norms, rotary positions and gates in one pass: in which models, with the same text; the model is as before then."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.kernels.calls import Kernels
from studio.writing import passes
from studio.writing.passes import quicken_passes
from studio.writing.placed import for_a_while
from studio.writing.quick import quicker
from tests.writing.test_quick import adapted, continuations, made, prompts


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each function was called."""
    counts = {"norm": 0, "rotary": 0, "gated": 0}

    def counted(name: str) -> None:
        own = getattr(Kernels, name)

        def call(self: Kernels, *given: Any, **options: Any) -> Any:
            counts[name] += 1
            return own(self, *given, **options)

        monkeypatch.setattr(Kernels, name, call)

    for name in counts:
        counted(name)
    return counts


@pytest.mark.parametrize(
    ("family", "norms", "turned", "gates"),
    [
        ("llama", 5, 4, 2), ("qwen3", 9, 4, 2), ("gemma", 5, 4, 2), ("granite", 5, 4, 2), ("glm", 5, 0, 2),
        ("olmo2", 9, 4, 2), ("starcoder2", 0, 4, 0), ("gpt2", 0, 0, 0), ("stablelm", 0, 4, 2),
    ],
)  # fmt: skip
def test_what_is_in_a_family(family: str, norms: int, turned: int, gates: int, used: dict[str, int]) -> None:
    model = made(family, **({"head_dim": 16} if family == "qwen3" else {"head_dim": 8} if family != "gpt2" else {}))
    given = prompts()
    theirs, _ = continuations(model, given, do_sample=False)
    assert not any(used.values())
    own = {name: dict(vars(module)) for name, module in model.named_modules()}
    with for_a_while(quicken_passes(model)):
        used.update(norm=0, rotary=0, gated=0)
        with torch.no_grad():
            model(**given)
        assert used == {"norm": norms, "rotary": turned, "gated": gates}
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == own
    with quicker(model):
        ours, _ = continuations(model, given, do_sample=False)
    assert torch.equal(ours, theirs)


def test_an_activation_that_it_does_not_know(used: dict[str, int]) -> None:
    model = made(hidden_act="relu")
    theirs, _ = continuations(model, prompts(), do_sample=False)
    with quicker(model):
        used.update(norm=0, rotary=0, gated=0)
        ours, _ = continuations(model, prompts(), do_sample=False)
    assert torch.equal(ours, theirs) and used["gated"] == 0 and used["norm"] > 0


@pytest.mark.parametrize("why", ["gradients", "number format", "no code"])
def test_what_stays_the_models_own(why: str, used: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = made().to(torch.float64 if why == "number format" else torch.float32)
    if why == "no code":
        monkeypatch.setattr(passes, "built", lambda: None)
    with for_a_while(quicken_passes(model)):
        used.update(norm=0, rotary=0, gated=0)
        with torch.set_grad_enabled(why == "gradients"):
            model(**prompts())
    assert not any(used.values())


def test_what_was_put_there_for_training_is_there_again(used: dict[str, int]) -> None:
    """A training's MLP computes gate and up in one product of many rows: for a few, each is one of the studio's own."""
    model = adapted(made())
    theirs, _ = continuations(model, prompts(), do_sample=False)
    inner, called = model.get_base_model(), []
    mlps = [layer.mlp for layer in inner.model.layers]

    def training(module: Any) -> Any:
        own = module.forward

        def forward(x: torch.Tensor) -> torch.Tensor:
            called.append(1)
            return own(x)  # type: ignore[no-any-return]

        return forward

    for mlp in mlps:
        mlp.forward = training(mlp)
    put = [mlp.forward for mlp in mlps]
    with quicker(model):
        called.clear()
        ours, _ = continuations(model, prompts(), do_sample=False)
        assert called == [] and used["gated"] > 2
    assert torch.equal(ours, theirs)
    assert [mlp.forward for mlp in mlps] == put


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_with_gate_and_up_side_by_side_and_apart(dtype: torch.dtype, used: dict[str, int]) -> None:
    compiled = passes.built()
    assert compiled is not None
    both = torch.randn(7, 96).to(dtype)
    gate, up = both.chunk(2, 1)
    expected = torch.nn.functional.silu(gate) * up
    assert torch.allclose(compiled.gated(gate, up), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    assert torch.equal(compiled.gated(gate, up), compiled.gated(gate.contiguous(), up.contiguous()))
