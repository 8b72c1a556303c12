"""Each merge method is its formula: the child's tensors against plain torch in float64, on a tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.errors import InputError
from studio.export.gguf.checkpoint import link_checkpoint
from studio.merge.methods import METHODS
from studio.merge.recipe import read_recipe
from studio.merge.rules import require_sense
from studio.merge.work.running import merge_models
from tests.merge.made import tensors
from tests.support.everyday import everyday

Tensors = dict[str, torch.Tensor]
# Of numbers around 0.02 to 0.1, computed in float32.
CLOSE = {"rtol": 1e-5, "atol": 1e-7}
MODELS = ("one", "two", "base")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path, one: Path, two: Path) -> Path:
    """A work folder as the job makes it; the step changes into it."""
    monkeypatch.chdir(tmp_path)
    for name, folder in zip(MODELS, (one, two, base), strict=True):
        link_checkpoint(folder, tmp_path / name, None, folder)
    return tmp_path


@pytest.fixture
def merged(work: Path) -> Callable[..., Tensors]:
    """Merge by a recipe; returns the child's tensors."""

    def merge(text: str, seed: int = 42) -> Tensors:
        recipe = read_recipe(text)
        require_sense(recipe)
        values = recipe.renamed({}) | {"dtype": "float32", "out_dtype": "float32"}
        target = f"child-{len(list(work.glob('child-*')))}"
        request = {"folder": str(work), "recipe": values, "target": target, "seed": seed, "shard_bytes": 10**9}
        merge_models(request, lambda done, total: None)
        return tensors(work / target)

    return merge


def doubles(work: Path, name: str) -> Tensors:
    return {key: tensor.double() for key, tensor in tensors(work / name).items()}


def recipe(method: str, weights: dict[str, float] | None = None, base: str = "base", **parameters: Any) -> str:
    chosen = weights if weights is not None else {"one": 0.3, "two": 0.9}
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in chosen.items()]
    values = {"merge_method": method, "models": models, "parameters": parameters} | (
        {"base_model": base} if base else {}
    )
    return json.dumps(values)


def check(child: Tensors, expected: Callable[[str], torch.Tensor]) -> None:
    assert len(child) > 10
    for name, tensor in child.items():
        torch.testing.assert_close(tensor.double(), expected(name), **CLOSE)


def test_linear(merged: Callable[..., Tensors], work: Path) -> None:
    a, b = doubles(work, "one"), doubles(work, "two")
    check(merged(recipe("linear", base="")), lambda name: (0.3 * a[name] + 0.9 * b[name]) / 1.2)
    whole = merged(recipe("linear", base="", normalize=False))
    check(whole, lambda name: 0.3 * a[name] + 0.9 * b[name])


def slerp(t: float, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    one, two = a.flatten(), b.flatten()
    cosine = float(one @ two / one.norm() / two.norm())
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def test_slerp(merged: Callable[..., Tensors], work: Path) -> None:
    a, b = doubles(work, "one"), doubles(work, "two")
    check(merged(plain("slerp", "one", "one", "two", t=0.3)), lambda name: slerp(0.3, a[name], b[name]))
    check(merged(plain("slerp", "one", "one", "two", t=0)), lambda name: a[name])


def test_task_arithmetic(merged: Callable[..., Tensors], work: Path) -> None:
    a, b, base = (doubles(work, name) for name in MODELS)
    child = merged(recipe("task_arithmetic", **{"lambda": 0.5}))
    check(child, lambda name: base[name] + 0.5 * (0.3 * (a[name] - base[name]) + 0.9 * (b[name] - base[name])))


def trimmed(delta: torch.Tensor, density: float) -> torch.Tensor:
    """The largest changes (TIES, arXiv:2306.01708, step 1)."""
    kept = max(1, int(density * delta.numel()))
    order = delta.abs().flatten().argsort(descending=True)[:kept]
    mask = torch.zeros(delta.numel(), dtype=torch.bool)
    mask[order] = True
    return torch.where(mask.view_as(delta), delta, 0)


def elected(deltas: list[torch.Tensor], weights: list[float], mean: bool) -> torch.Tensor:
    """The weighted sum or mean of the changes that have the sign of their sum (steps 2 and 3)."""
    weighted = torch.stack([weight * delta for weight, delta in zip(weights, deltas, strict=True)])
    sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agree = weighted.sign() == sign
    total = (weighted * agree).sum(0)
    if not mean:
        return total
    shares = (torch.tensor(weights).double().view(-1, *[1] * deltas[0].dim()) * agree).sum(0)
    return total / torch.where(shares == 0, 1, shares)


def test_ties(merged: Callable[..., Tensors], work: Path) -> None:
    a, b, base = (tensors(work / name) for name in MODELS)
    child = merged(recipe("ties", density=0.4))

    def expected(name: str) -> torch.Tensor:
        # Trimmed by the differences in float32, as mergekit computes them: which of two equals is larger is rounding.
        deltas = [trimmed(model[name] - base[name], 0.4).double() for model in (a, b)]
        return base[name].double() + elected(deltas, [0.3, 0.9], mean=True)

    check(child, expected)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_drops_changes_and_scales_up_the_rest(method: str, merged: Callable[..., Tensors], work: Path) -> None:
    """arXiv:2311.03099 scales by 1/density; mergekit by the ratio of the sums of magnitudes, which is about that."""
    a, base = doubles(work, "one"), doubles(work, "base")
    child = merged(recipe(method, {"one": 1.0}, density=0.4))
    for name, tensor in child.items():
        delta, moved = a[name] - base[name], tensor.double() - base[name]
        kept = moved.abs() > 0.5 * delta.abs()
        scale = float(delta.abs().sum() / delta[kept].abs().sum())
        torch.testing.assert_close(moved, torch.where(kept, scale * delta, 0), rtol=1e-4, atol=1e-6)
        count, total = int(kept.sum()), kept.numel()
        assert abs(count - 0.4 * total) < 5 * math.sqrt(0.24 * total)
        if total > 1000:
            assert scale == pytest.approx(1 / 0.4, rel=0.15)


def test_dare_ties_elects_signs(merged: Callable[..., Tensors], work: Path) -> None:
    """With a density of 1 nothing is dropped, so that the election alone is seen."""
    a, b, base = (doubles(work, name) for name in MODELS)
    child = merged(recipe("dare_ties", density=1.0))
    check(
        child,
        lambda name: base[name] + elected([a[name] - base[name], b[name] - base[name]], [0.3, 0.9], mean=False),
    )


def test_chance_is_that_of_the_seed(merged: Callable[..., Tensors]) -> None:
    text = recipe("dare_linear", density=0.5)
    first, again, other = merged(text, 1), merged(text, 1), merged(text, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def plain(method: str, base: str, *models: str, **parameters: Any) -> str:
    """A recipe of a method that has no weights."""
    values = {"merge_method": method, "models": [{"model": name} for name in models], "parameters": parameters}
    return json.dumps(values | ({"base_model": base} if base else {}))


OTHERS = {
    "breadcrumbs": recipe("breadcrumbs", density=0.7),
    "breadcrumbs_ties": recipe("breadcrumbs_ties", density=0.7),
    "della": recipe("della", density=0.5),
    "della_linear": recipe("della_linear", density=0.5),
    "model_stock": plain("model_stock", "base", "one", "two"),
    "nuslerp": recipe("nuslerp", base=""),
    "multislerp": recipe("multislerp", base=""),
    "karcher": plain("karcher", "", "one", "two"),
    "nearswap": plain("nearswap", "one", "two", t=0.001),
    "arcee_fusion": plain("arcee_fusion", "one", "two"),
    "sce": plain("sce", "base", "one", "two"),
    "ram": plain("ram", "base", "one", "two"),
    "ramplus_tl": plain("ramplus_tl", "base", "one", "two"),
}


@pytest.mark.parametrize("method", everyday(OTHERS, "model_stock"))
def test_the_other_methods_make_a_child_between_its_parents(
    method: str, merged: Callable[..., Tensors], work: Path
) -> None:
    a, b, base = (tensors(work / name) for name in MODELS)
    child = merged(OTHERS[method])
    assert child.keys() == a.keys()
    assert any(not torch.equal(child[name], a[name]) for name in child)
    far = sum(float((a[name] - b[name]).norm() ** 2) for name in a) ** 0.5
    for parent in (a, b, base):
        assert sum(float((child[name] - parent[name]).norm() ** 2) for name in child) ** 0.5 < 3 * far


def test_every_method_is_tried_here() -> None:
    tried = {"linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "passthrough", *OTHERS}
    assert tried == {name for name, one in METHODS.items() if not one.of_adapters}


def test_slices_stack_layers(merged: Callable[..., Tensors], work: Path) -> None:
    a, b = tensors(work / "one"), tensors(work / "two")
    text = """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 2]}]
  - sources: [{model: two, layer_range: [1, 2]}]
"""
    child = merged(text)
    layer = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(child[layer.format(0)], a[layer.format(0)])
    assert torch.equal(child[layer.format(1)], a[layer.format(1)])
    assert torch.equal(child[layer.format(2)], b[layer.format(1)])


def test_a_gradient_goes_from_the_first_layer_to_the_last(merged: Callable[..., Tensors], work: Path) -> None:
    a, b = doubles(work, "one"), doubles(work, "two")
    models = '[{"model": "one", "parameters": {"weight": [1, 0]}}, {"model": "two", "parameters": {"weight": [0, 1]}}]'
    child = merged(f'{{"merge_method": "linear", "models": {models}}}')
    for number, model in ((0, a), (1, b)):
        name = f"model.layers.{number}.mlp.up_proj.weight"
        torch.testing.assert_close(child[name].double(), model[name], **CLOSE)


def test_what_mergekit_refuses_is_a_sentence(merged: Callable[..., Tensors]) -> None:
    source = {"kind": "model_token", "model": "one", "token": "<none of this name>"}
    text = json.loads(recipe("linear", base="")) | {"tokenizer": {"tokens": {"<new>": {"source": source}}}}
    with pytest.raises(InputError, match="mergekit refuses the recipe: Token '<none of this name>' not found"):
        merged(json.dumps(text))


def test_tensors_that_mergekit_would_leave_out_are_refused(
    merged: Callable[..., Tensors], work: Path, make_model: Callable[..., Path]
) -> None:
    folder = make_model(4, attention_bias=True)
    link_checkpoint(folder, work / "biased", None, folder)
    with pytest.raises(InputError, match=r"does not know 8 tensors .*, such as model.layers.0.self_attn.k_proj.bias"):
        merged(recipe("linear", {"biased": 1}, base=""))
    assert not list(work.glob("child-*/*.safetensors"))


def test_numbers_that_are_none_are_refused(merged: Callable[..., Tensors]) -> None:
    text = '[{"model": "one", "parameters": {"weight": 3e38}}, {"model": "two", "parameters": {"weight": 3e38}}]'
    with pytest.raises(InputError, match="not finite"):
        merged(f'{{"merge_method": "linear", "models": {text}, "parameters": {{"normalize": false}}}}')
