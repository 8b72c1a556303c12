"""How far the next-token probabilities of one model are from those of another, position by position."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from studio.export.steps import Report

# The positions that are shown one by one, the tokens before each, and from which divergence on (nats) one is worth it:
# below, an f16 file would show its rounding.
SHOWN_PLACES, CONTEXT_TOKENS, SEEN_KL = 8, 40, 1e-4


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Natural logarithms of the probabilities at one position, (V,) of (V,).

    float32 with its sum in float64: several times faster than float64 throughout. A sum in float32, as torch's, is off
    by up to 7e-6 nats at 49,152 tokens, which would show as a divergence of a model from itself.
    """
    shifted = logits - logits.max()
    found: npt.NDArray[np.float32] = shifted - np.float32(np.log(np.exp(shifted).sum(dtype=np.float64)))
    return found


def compare(
    trained: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Per position: KL divergence (nats) of another model from the trained one, and whether the top token is the same.

    Args:
        trained: (P, V) natural logarithms of probabilities.
        logits: (P, V) of the other model. V may be larger (a padded vocabulary): what is beyond is left out.
    """
    width = min(trained.shape[1], logits.shape[1])
    divergence, same = np.empty(len(logits)), np.empty(len(logits), np.bool_)
    for row, (ours, other) in enumerate(zip(trained[:, :width], logits[:, :width], strict=True)):
        rest = ours - log_probabilities(other)
        divergence[row] = (np.exp(ours) * rest).sum(dtype=np.float64)
        same[row] = ours.argmax() == other.argmax()
    return np.maximum(divergence, 0.0), same


def summary(divergence: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Mean and 99th percentile of the divergence, share of equal top tokens; None where nothing was compared."""
    if not len(same):
        return {"positions": 0, "top1": None, "mean_kl": None, "p99_kl": None}
    return {
        "positions": len(same),
        "top1": float(same.mean()),
        "mean_kl": float(divergence.mean()),
        "p99_kl": float(np.percentile(divergence, 99)),
    }


def compare_texts(
    texts: Sequence[dict[str, Any]],
    trained: npt.NDArray[np.float32],
    logits_of: Callable[[dict[str, Any]], npt.NDArray[np.float32]],
    report: Report,
) -> dict[str, Any]:
    """Compare another model with the trained one on all texts.

    Args:
        texts: of cases.json.
        trained: (P, V) of reference.npy, the texts one after the other.
        logits_of: gives the other model's (positions, V) of a text.
        report: called with (positions done, positions in all).

    Returns:
        {"overall", "answers" (of the positions that the training's loss counted)}: a `summary` each; and "places", the
        positions where the two are farthest apart, the worst first, for `in_words`. There are none where no position
        has another top token or a divergence above `SEEN_KL`.
    """
    divergences, sames, supervised, done = [], [], [], 0
    places: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        logits = logits_of(text)
        divergence, same = compare(trained[done : done + len(logits)], logits)
        divergences.append(divergence)
        sames.append(same)
        found = _places(text, divergence, same, trained[done : done + len(logits)], logits)
        places = _worst_first([*places, *({"text": number} | one for one in found)])
        supervised += text["supervised"]
        done += len(logits)
        report(done, len(trained))
    divergence, same, counted = np.concatenate(divergences), np.concatenate(sames), np.array(supervised, bool)
    told = {"overall": summary(divergence, same), "answers": summary(divergence[counted], same[counted])}
    return told | {"places": places}


def in_words(places: Sequence[dict[str, Any]], tokenizer: Path) -> list[dict[str, Any]]:
    """Turn the places of `compare_texts` into texts.

    Args:
        places: as they were returned.
        tokenizer: the trained model's tokenizer.json.

    Returns:
        {"text" (number of the compared text), "position", "answer" (did the training's loss count it?), "kl" (nats),
        "context", "trained", "exported"}: the last two are {"token", "probability", "other"}, where `other` is what the
        other model gives to the same token. A number that is not finite is None.
    """
    if not places:
        return []
    read = Tokenizer.from_file(str(tokenizer))

    def decoded(ids: Sequence[int]) -> str:
        return str(read.decode(list(ids), skip_special_tokens=False))

    def side(context: list[int], chosen: dict[str, Any]) -> dict[str, Any]:
        # With the text before it, since some tokenizers drop the blank that a text begins with.
        before, whole = decoded(context), decoded([*context, chosen["id"]])
        token = whole[len(before) :] if whole.startswith(before) else decoded([chosen["id"]])
        return {"token": token, "probability": chosen["probability"], "other": chosen["other"]}

    said = []
    for one in places:
        told = {key: one[key] for key in ("text", "position", "answer", "kl")}
        told["context"] = ("… " if one["cut"] else "") + decoded(one["ids"])
        said.append(told | {name: side(one["ids"], one[name]) for name in ("trained", "exported")})
    return said


def _places(
    text: dict[str, Any],
    divergence: npt.NDArray[np.float64],
    same: npt.NDArray[np.bool_],
    trained: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
) -> list[dict[str, Any]]:
    """The positions of one text that are worth showing, at most `SHOWN_PLACES`: tokens up to there, and both sides."""
    width, first = min(trained.shape[1], logits.shape[1]), len(text["ids"]) - len(logits)
    worst = np.argsort(-np.nan_to_num(divergence, nan=np.inf), kind="stable")[:SHOWN_PLACES]
    found = []
    for row in (int(one) for one in worst if not (divergence[one] <= SEEN_KL and same[one])):
        ours, other = trained[row, :width], log_probabilities(logits[row, :width])
        end = first + row + 1
        begin = max(0, end - CONTEXT_TOKENS)
        found.append({
            "position": end, "ids": text["ids"][begin:end], "cut": begin > 0, "answer": bool(text["supervised"][row]),
            "kl": _finite(divergence[row]), "trained": _top(ours, other), "exported": _top(other, ours),
        })  # fmt: skip
    return found


def _top(own: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> dict[str, Any]:
    token = int(own.argmax())
    probability, beside = (_finite(np.exp(float(one[token]))) for one in (own, other))
    return {"id": token, "probability": probability, "other": beside}


def _worst_first(places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(places, key=lambda one: -(math.inf if one["kl"] is None else one["kl"]))[:SHOWN_PLACES]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
