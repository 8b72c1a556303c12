"""PPO's arithmetic: rewards of tokens, advantages, clipped losses, the KL weight. Tensors in, tensors out, no model.

Answers of a batch are (B, L), padded at the right. `mask` (B, L) is 1 at tokens that were written, the one that ended
the answer included:

    mask    1 1 1 1 0 0      an answer of four tokens
    rewards k k k k+s 0 0    k = -weight × KL of that token, s = the score of the whole answer
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

VALUE_CLIP = 0.2  # How far a value may move in the updates of one batch; scores have deviation 1 when normalised.
KL_GAIN, KL_ERROR = 0.1, 0.2  # K_β and the limit of the relative error in Ziegler et al. 2019, section 2.2.


@dataclass(frozen=True)
class Surrogate:
    """Sums over the tokens of a micro-batch.

    Attributes:
        loss: (), with gradient.
        clipped: tokens whose objective the clip decided.
        approx_kl: KL(old‖new) by the estimator r - 1 - log r, which is never negative.
    """

    loss: torch.Tensor
    clipped: torch.Tensor
    approx_kl: torch.Tensor


def token_figures(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of written tokens, and the entropy of the distribution that each was drawn from.

    Args:
        logits: (B, L, V), already divided by the temperature.
        tokens: (B, L).

    Returns:
        (B, L) with gradient, and (B, L) without: the entropy is only reported.
    """
    total = logits.logsumexp(-1)
    chosen = logits.gather(-1, tokens[..., None])[..., 0] - total
    with torch.no_grad():
        entropy = total - (functional.softmax(logits, -1) * logits).sum(-1)
    return chosen, entropy


def token_rewards(
    scores: torch.Tensor, logps: torch.Tensor, ref_logps: torch.Tensor, mask: torch.Tensor, kl_weight: float
) -> torch.Tensor:
    """Rewards of tokens: -β (log π - log π_ref) at each, and the answer's score at its last (Ziegler 2019, section 2).

    Args:
        scores: (B,).
        logps, ref_logps, mask: (B, L).
        kl_weight: β.

    Returns:
        (B, L), 0 at padding.
    """
    rewards = -kl_weight * (logps - ref_logps) * mask
    last = mask.sum(-1).long() - 1
    rewards[torch.arange(len(scores), device=rewards.device), last] += scores
    return rewards


def advantages_of(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    A_t = Σ_k (γλ)^k δ_{t+k} with δ_t = r_t + γ V_{t+1} - V_t. The value after the last token is 0, also where the
    answer was cut: its score is final.

    Args:
        rewards, values, mask: (B, L); the value at t is of the state in which token t is written.
        gamma: γ, the discount.
        lam: λ; 0 trusts the values, 1 the rewards.

    Returns:
        Advantages and returns (advantages + values), both (B, L) and 0 at padding.
    """
    values = values * mask
    found = torch.zeros_like(rewards)
    carried = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(carried)
    for t in reversed(range(rewards.shape[1])):
        change = rewards[:, t] + gamma * following - values[:, t]
        carried = (change + gamma * lam * carried) * mask[:, t]
        found[:, t], following = carried, values[:, t]
    return found, found + values


def whiten(numbers: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Bring the (B, L) numbers where the mask is 1 to mean 0 and variance 1; 0 elsewhere."""
    count = mask.sum()
    mean = (numbers * mask).sum() / count
    variance = ((numbers - mean).square() * mask).sum() / count
    return (numbers - mean) * torch.rsqrt(variance + 1e-8) * mask


def policy_surrogate(
    logps: torch.Tensor, old_logps: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, clip: float
) -> Surrogate:
    """Clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, equation 7), as a loss, summed over tokens.

    Args:
        logps: (B, L) of the policy now, with gradient.
        old_logps: (B, L) of the policy that wrote the answers.
        advantages, mask: (B, L).
        clip: ε.
    """
    change = (logps - old_logps) * mask
    ratio = change.exp()
    free, held = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = (torch.maximum(free, held) * mask).sum()
    with torch.no_grad():
        clipped = ((held > free) * mask).sum()
        approx_kl = ((ratio - 1 - change) * mask).sum()  # Schulman 2020, joschu.net/blog/kl-approx.html: k3
    return Surrogate(loss, clipped, approx_kl)


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Half the squared error of the values, summed over tokens, with the clip of the paper's own code.

    The larger of the error and the error of a value held within `VALUE_CLIP` of the old one (OpenAI baselines, ppo2;
    Engstrom et al. 2020, arXiv:2005.12729, section 3).

    Args:
        values: (B, L) of the value function now, with gradient.
        old_values, returns, mask: (B, L).
    """
    held = old_values + (values - old_values).clamp(-VALUE_CLIP, VALUE_CLIP)
    errors = torch.maximum((values - returns).square(), (held - returns).square())
    return 0.5 * (errors * mask).sum()


@dataclass
class KLWeight:
    """β, fixed or steered so that the KL of an answer stays near a target (Ziegler et al. 2019, section 2.2).

    e = clip((KL - target) / target, -0.2, 0.2) and β ← β (1 + 0.1 e) after each batch, as the paper has it. A gain
    spread over a horizon of answers, as in their code, would not move β in runs of a few hundred answers.

    Attributes:
        weight: β.
        target: KL per answer in nats; None leaves β alone.
    """

    weight: float
    target: float | None = None

    def update(self, kl: float) -> None:
        """Take the mean KL of a batch's answers into account."""
        if self.target is not None:
            error = min(max((kl - self.target) / self.target, -KL_ERROR), KL_ERROR)
            self.weight *= 1 + KL_GAIN * error


@dataclass
class RunningScores:
    """Mean and deviation of all scores so far (Chan, Golub and LeVeque 1979: batches are merged).

    Attributes:
        count: scores.
        mean: of them.
        squares: sum of their squared differences from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation, 0 before the first score."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def update(self, scores: Sequence[float]) -> None:
        """Add a batch."""
        new, old = len(scores), self.count
        mean = sum(scores) / new
        squares = sum((score - mean) ** 2 for score in scores)
        self.count += new
        self.squares += squares + (mean - self.mean) ** 2 * old * new / self.count
        self.mean += (mean - self.mean) * new / self.count

    def normalised(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B,) with mean 0 and deviation 1 by these figures; equal scores become 0."""
        return (scores - self.mean) / max(self.deviation, 1e-6)
