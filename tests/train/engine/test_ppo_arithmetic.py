"""The arithmetic of PPO against brute force and cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from studio.train.engine import ppo as engine
from studio.train.trainers import ppo


def test_advantages_of_a_small_case_by_hand() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.5, 1.0, 9.0]])
    mask = torch.tensor([[1, 1, 0]])
    found, returns = engine.advantages_of(rewards, values, mask, gamma=0.5, lam=0.5)
    # δ_1 = 2 - 1 = 1; δ_0 = 1 + 0.5·1 - 0.5 = 1; A_0 = 1 + 0.25·1. What lies in padding does not matter.
    torch.testing.assert_close(found, torch.tensor([[1.25, 1.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[1.75, 2.0, 0.0]]))


@examples(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), gamma=st.sampled_from([0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.95, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_advantages_are_the_sum_of_discounted_changes(lengths, gamma, lam, seed) -> None:
    torch.manual_seed(seed)
    rewards, values = torch.randn(2, len(lengths), 7, dtype=torch.float64)
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    found, returns = engine.advantages_of(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        v = [*values[row, :length].tolist(), 0.0]
        change = [float(rewards[row, t]) + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            wanted = sum((gamma * lam) ** (k - t) * change[k] for k in range(t, length))
            assert math.isclose(float(found[row, t]), wanted, abs_tol=1e-9)
            assert math.isclose(float(returns[row, t]), wanted + v[t], abs_tol=1e-9)
        assert not found[row, length:].any()


def test_the_score_is_added_at_the_last_token_and_the_kl_at_each() -> None:
    logps, reference = torch.tensor([[-1.0, -2.0, -3.0]] * 2), torch.tensor([[-2.0, -2.0, -1.0]] * 2)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    rewards = engine.token_rewards(torch.tensor([10.0, 20.0]), logps, reference, mask, kl_weight=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.5, 0.0, 11.0], [-0.5, 20.0, 0.0]]))


def test_whitened_numbers_have_mean_0_and_variance_1_where_the_mask_is_1() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    white = engine.whiten(torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]]), mask)
    assert not white[mask == 0].any()
    torch.testing.assert_close(white[mask == 1], (torch.arange(1.0, 6) - 3) / math.sqrt(2))
    assert torch.isfinite(engine.whiten(torch.ones(1, 1), torch.ones(1, 1))).all()


def test_surrogate_by_hand_and_no_gradient_where_it_is_clipped() -> None:
    logps = torch.tensor([[0.5, 0.5, -0.5, 0.1, 7.0]]).requires_grad_()
    advantages, mask = torch.tensor([[1.0, -1.0, -1.0, 2.0, 5.0]]), torch.tensor([[1, 1, 1, 1, 0]])
    found = engine.policy_surrogate(logps, torch.zeros(1, 5), advantages, mask, clip=0.2)
    up, down, little = math.exp(0.5), math.exp(-0.5), math.exp(0.1)
    # Too likely already and good: held at 1.2. Bad: free. Too unlikely already and bad: held at 0.8.
    assert float(found.loss.detach()) == pytest.approx(-1.2 + up + 0.8 - 2 * little)
    assert int(found.clipped) == 2
    assert float(found.approx_kl) == pytest.approx((up - 1.5) * 2 + (down - 0.5) + (little - 1.1), rel=1e-5)
    found.loss.backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[0.0, up, 0.0, -2 * little, 0.0]]))


def test_value_loss_takes_the_larger_of_free_and_held_error() -> None:
    values = torch.tensor([[1.0, 0.1, 0.5, 8.0]]).requires_grad_()
    returns, mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[1, 1, 1, 0]])
    loss = engine.value_loss(values, torch.zeros(1, 4), returns, mask)
    # Held at 0.2: error 0.8 instead of 0. Within the range: 0.9. Moved away from its return: free, 0.5.
    assert float(loss.detach()) == pytest.approx(0.5 * (0.64 + 0.81 + 0.25))
    loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([[0.0, -0.9, 0.5, 0.0]]))


def test_figures_of_tokens_equal_the_whole_distribution() -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    logps, entropy = engine.token_figures(logits, tokens)
    whole = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(logps, whole.log_prob(tokens))
    torch.testing.assert_close(entropy, whole.entropy())


def test_the_kl_weight_is_steered_in_small_steps() -> None:
    steered, fixed = engine.KLWeight(0.1, 6.0), engine.KLWeight(0.1)
    for kl, factor in ((6.6, 1.01), (60.0, 1.02), (0.0, 0.98)):
        before = steered.weight
        steered.update(kl)
        fixed.update(kl)
        assert steered.weight == pytest.approx(before * factor)
    assert fixed.weight == 0.1


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=6), min_size=1, max_size=5))
def test_running_scores_equal_those_of_all_batches_together(batches) -> None:
    running = engine.RunningScores()
    for batch in batches:
        running.update(batch)
    every = np.array([score for batch in batches for score in batch])
    assert running.count == len(every)
    assert running.mean == pytest.approx(every.mean(), abs=1e-9)
    assert running.deviation == pytest.approx(every.std(), abs=1e-7)


def test_equal_scores_are_normalised_to_0() -> None:
    running = engine.RunningScores()
    running.update([0.3, 0.3, 0.3])
    assert running.normalised(torch.tensor([0.3])).abs() < 1e-6


def test_rows_come_in_batches_as_often_as_asked_and_none_is_left_out() -> None:
    plain = ppo.Repeated(5, 2, 3, None, lambda: 0)
    assert list(plain) == [0, 1] * 3 + [2, 3] * 3 + [4, 0] * 3
    assert (len(plain), plain.updates) == (18, 9)
    epochs = [list(ppo.Repeated(5, 2, 3, 7, lambda epoch=epoch: epoch)) for epoch in (0, 0, 1)]
    assert epochs[0] == epochs[1] != epochs[2]
    assert set(epochs[2]) == set(range(5))
    assert list(ppo.Repeated(2, 5, 1, None, lambda: 0)) == [0, 1, 0, 1, 0]  # fewer rows than a batch has
