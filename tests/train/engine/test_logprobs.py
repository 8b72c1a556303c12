"""Log-probabilities of answers: the engine's are those of TRL's head, with all that is known beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer import utils

from studio.kernels.calls import Kernels
from studio.settings import Settings
from studio.train.engine import logprobs
from studio.train.engine.logprobs import Likely
from studio.train.worker import train
from tests.parity.made import demo_rows, job_for, reported, write_rows

OUTPUTS = ("entropy", "mean_logits", "is_top1")
# A float32 sum over a vocabulary, in another order.
NEAR = {"rtol": 1e-4, "atol": 2e-5}


def drawn_for(count: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, head and targets, of which half are the most probable."""
    drawn = torch.Generator().manual_seed(count * vocabulary)
    states, head = torch.randn(count, 8, generator=drawn), torch.randn(vocabulary, 8, generator=drawn)
    targets = torch.randint(0, vocabulary, (count,), generator=drawn)
    targets[: count // 2] = (states[: count // 2] @ head.t()).argmax(-1)
    return states, head, targets


def both(
    kernels: Kernels, count: int, vocabulary: int, factor: float, trained: bool, entropy: bool
) -> list[list[torch.Tensor]]:
    """What TRL's function and ours give for the same numbers: outputs, then gradients."""
    states, head, targets = drawn_for(count, vocabulary)
    found = []
    for ours in (False, True):
        x, w = states.clone().requires_grad_(), head.clone().requires_grad_(trained)
        if ours:
            known: Any = Likely.apply(x, w, targets, factor, OUTPUTS, kernels)
        else:
            known = ChunkedLogProbFunction.apply(x, w, None, targets, 1 / factor, 32, None, 1.0, OUTPUTS)
        weights = torch.linspace(-1, 1, count)
        ((known[0] * weights).sum() + (known[1] * weights).sum() * float(entropy)).backward() if entropy else (
            known[0] * weights
        ).sum().backward()
        found.append(
            [*(one.detach().float() for one in known if one is not None), x.grad, *([w.grad] if trained else [])]
        )
    return found


def exact(count: int, vocabulary: int, factor: float, trained: bool, entropy: bool) -> list[torch.Tensor]:
    """The gradients of `both` in 64 bits: two float32 ones may be as far apart as both are from these."""
    states, head, targets = drawn_for(count, vocabulary)
    x, w = states.double().requires_grad_(), head.double().requires_grad_()
    likely = torch.log_softmax(x @ w.t() * factor, -1)
    spread = -(likely.exp() * likely).sum(-1)
    weights = torch.linspace(-1, 1, count)
    ((likely.gather(1, targets[:, None])[:, 0] + spread * float(entropy)) * weights).sum().backward()
    return [one.grad.float() for one in ([x, w] if trained else [x]) if one.grad is not None]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.integers(2, 90), st.sampled_from((1.0, 0.25, 1.7)), st.booleans(), st.booleans())
def test_they_are_those_of_trl(
    kernels: Kernels, count: int, vocabulary: int, factor: float, trained: bool, entropy: bool
) -> None:
    expected, found = both(kernels, count, vocabulary, factor, trained, entropy)
    assert len(expected) == len(found) == (6 if trained else 5)
    expected[4:] = exact(count, vocabulary, factor, trained, entropy)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, **NEAR), float((one - other).abs().max())


def test_bfloat16_rounds_as_trl_does(kernels: Kernels) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = both(kernels, 60, 64, 1.0, True, False)
    for one, other in zip(expected, found, strict=True):
        assert float((one - other).norm() / one.norm()) < 2e-2


def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    utils.add_fused_lm_head(made, outputs=("log_probs", *OUTPUTS))
    return made


def test_only_tokens_that_count_are_computed_and_trls_own_comes_back(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ids = model(), torch.arange(40).reshape(2, 20)
    labels = ids.clone()
    labels[:, :15] = -100
    expected = made(input_ids=ids, labels=labels, fused_lm_head=True)
    assert logprobs.has_head(made)
    undo = logprobs.attach(made, kernels)
    rows: list[int] = []
    likely = Kernels.likely
    monkeypatch.setattr(Kernels, "likely", lambda *a, **k: rows.append(len(a[1])) or likely(*a, **k))
    found = made(input_ids=ids, labels=labels, fused_lm_head=True)
    assert rows == [10]
    assert torch.allclose(expected.log_probs, found.log_probs, **NEAR)
    assert torch.equal(expected.is_top1, found.is_top1)
    assert made(input_ids=ids).logits.shape == (2, 20, 97)
    undo()
    assert torch.equal(made(input_ids=ids, labels=labels, fused_lm_head=True).log_probs, expected.log_probs)
    assert rows == [10]


def test_a_head_with_a_cap_stays_trls(kernels: Kernels) -> None:
    made, ids = model(), torch.arange(20).reshape(1, 20)
    made.config.final_logit_softcapping = 5.0
    utils.add_fused_lm_head(made, outputs=("log_probs",))
    expected = made(input_ids=ids, labels=ids, fused_lm_head=True).log_probs
    logprobs.attach(made, kernels)
    assert torch.allclose(made(input_ids=ids, labels=ids, fused_lm_head=True).log_probs, expected, **NEAR)


@pytest.mark.parametrize(
    "method", ["orpo", *(pytest.param(one, marks=pytest.mark.long) for one in ("dpo", "kto", "simpo", "cpo"))]
)
def test_a_job_says_so_and_reports_the_same(
    settings: Settings, tiny: Path, tmp_path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("pairs_train.jsonl", 6))
    options = {"name": "orpo", "orpo_loss": "cpo"} if method == "cpo" else {"name": method}
    # Where the likelihood of the better answers is added, it is that of the update, not of a micro-batch.
    several = {"batch_size": 4, "micro_batch_size": 2} if method in ("orpo", "simpo", "cpo") else {}
    seen: list[dict[str, list[float]]] = []
    for kernels in ("off", "auto"):
        context = job_for(
            settings, tiny, rows, method=options, tuning={"name": "lora", "rank": 4},
            data={"validation": 0, "max_length": 256},
            training={"max_steps": 2, "kernels": kernels, **several},
        )  # fmt: skip
        train(context)
        assert ("log-probabilities\n" in capfd.readouterr().out) == (kernels == "auto")
        seen.append({name: reported(context, name) for name in ("loss", "rewards/margins")})
    for name, values in seen[0].items():
        assert seen[1][name] == pytest.approx(values, rel=1e-4, abs=1e-6) and len(values) == 2, name
