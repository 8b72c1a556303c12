"""Micro-batches of an update: every row once, within the limits, those of like length together, and planned so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.methods import METHODS
from studio.models.device import speed
from studio.models.plan.batches import LEAST_SAVED, Batching, by_length, computed_once, look, split
from studio.models.plan.fit import ENOUGH, MODEST, Lengths
from studio.models.plan.making import Plan, make_plan
from studio.models.plan.memory import Load
from tests.models.plan.test_plan import DEVICE, SHAPE

# 212 tokens on average, with a long tail.
ALPACA = [60, 90, 120, 150, 170, 190, 210, 240, 290, 700, 130, 160, 110, 200, 180, 230, 80, 140, 1000, 90] * 20
LENGTHS = Lengths(len(ALPACA), sum(ALPACA), max(ALPACA), sum(ALPACA) // 2, each=ALPACA)
# Pairs with prompts of 80 tokens, of which 40 are a system prompt, and answers of 60 and 40 tokens, 50 and 40, ...
PAIRS = Lengths(
    4, 930, 140, 290, each=[140, 130, 110, 100], sums=[260, 250, 215, 205], repeats=[80] * 4, common=40, alone=180
)
IN_TWOS: dict[str, Any] = {"batch_size": 4, "micro_batch_size": 2, "activation_checkpointing": False}


def plan(lengths: Lengths = LENGTHS, free: float = 22e9, kind: Any = "cpu", **sections: Any) -> Plan:
    device = replace(DEVICE, available_bytes=int(free), kind=kind)
    return make_plan(RunConfig(**sections), SHAPE, lengths, device)


lengths_of_rows = st.lists(st.integers(1, 2000), min_size=1, max_size=50)


@given(
    lengths=lengths_of_rows, rows=st.integers(1, 50), tokens=st.integers(0, 5000), sequences=st.integers(1, 2),
    padded=st.booleans(),
)  # fmt: skip
def test_every_row_once_within_the_limits(
    lengths: list[int], rows: int, tokens: int, sequences: int, padded: bool
) -> None:
    parts = split(lengths, Batching(rows, tokens, padded), sequences)
    assert sorted(at for part in parts for at in part) == list(range(len(lengths)))
    longest = [max(lengths[at] for at in part) for part in parts]
    computed = [
        sequences * (len(part) * most if padded else sum(lengths[at] for at in part))
        for part, most in zip(parts, longest, strict=True)
    ]
    for part, many in zip(parts, computed, strict=True):
        assert len(part) <= rows
        assert not tokens or len(part) == 1 or many <= tokens
    shortest = [min(lengths[at] for at in part) for part in parts]
    assert all(low >= high for low, high in zip(shortest, longest[1:], strict=False)), "like lengths together"
    seen = look(lengths, len(lengths), Batching(rows, tokens, padded), sequences)
    assert seen.largest == max(computed) and seen.padded == sum(computed)
    assert (seen.parts, seen.most, seen.rows) == (len(parts), len(parts), len(lengths))
    assert seen.padded >= seen.tokens == sequences * sum(lengths)


def test_auto_takes_about_two_thousand_tokens_on_a_processor() -> None:
    made = plan(training={"batch_size": 40, "kernels": "off"})
    assert made.micro_tokens == ENOUGH["cpu"] and made.batching == Batching(40, 2048)
    assert made.micro_batch * made.accumulation == 40 and 4 <= made.micro_batch <= 10
    assert made.total_bytes < 6e9
    assert "more is not faster" in made.choices["training.micro_batch_size"].reason
    sizes = {"batch_size": 40, "micro_batch_size": 40, "activation_checkpointing": False, "kernels": "off"}
    by_hand = plan(training=sizes)
    assert by_hand.total_bytes > 3 * made.total_bytes and by_hand.micro_tokens == 0


def test_with_fused_kernels_rows_are_counted_without_padding() -> None:
    off, on = (plan(training={"batch_size": 40, "kernels": kernels}) for kernels in ("off", "auto"))
    assert on.batching == Batching(40, 2048, padded=False) and not off.unpadded
    assert on.accumulation <= off.accumulation and on.total_bytes < 0.7 * off.total_bytes
    micro = plan(training={"batch_size": 8, "micro_batch_size": 8})
    assert micro.batching == Batching(8, padded=False)
    wider = plan(training={"batch_size": 8, "micro_batch_size": 8, "kernels": "off"})
    assert micro.memory["activations"] < wider.memory["activations"]


def test_pairs_are_counted_with_both_their_answers() -> None:
    """The shorter answer of a pair is not taken to be as long as the longer one, except where it is padded."""
    shorter = [length + 20 for length in ALPACA]
    both = replace(LENGTHS, total_tokens=sum(shorter), supervised_tokens=sum(shorter) // 2, sums=shorter)
    alike = replace(both, sums=())
    sizes: dict[str, Any] = {"batch_size": 8, "micro_batch_size": 4}
    for method in ("dpo", "orpo", "reward"):
        on, upper = (plan(one, method={"name": method}, training=sizes) for one in (both, alike))
        assert on.memory["activations"] == pytest.approx(
            upper.memory["activations"] * max_of_parts(shorter, 8, 4) / max_of_parts([2 * one for one in ALPACA], 8, 4)
        ), method
        off, same = (plan(one, method={"name": method}, training={**sizes, "kernels": "off"}) for one in (both, alike))
        assert off.memory["activations"] == same.memory["activations"]


def max_of_parts(sums: list[int], batch: int, rows: int) -> int:
    """Tokens of the largest micro-batch where the longest rows of each update go together."""
    parts = (
        sorted(range(at, min(at + batch, len(sums))), key=lambda place: (-ALPACA[place], place))
        for at in range(0, len(sums), batch)
    )
    return max(sum(sums[at] for at in places[start : start + rows]) for places in parts for start in (0, rows))


def test_a_prefix_that_rows_share_is_computed_once() -> None:
    free, padded = Batching(2, padded=False), Batching(2)
    seen = look([100, 90, 80], 3, free, common=50)
    # Of 100 + 90 the second row computes 40; the third has nothing to share with.
    assert (seen.largest, seen.scored, seen.padded, seen.tokens) == (140, 190, 220, 270)
    pairs = look(PAIRS.each, 4, free, 2, PAIRS.sums, PAIRS.repeats, PAIRS.common)
    # The system prompt once for four sequences, the 40 tokens of the question once for both answers of each pair.
    assert pairs.largest == 260 + 250 - 3 * 40 - 2 * 40 == 40 + 2 * 40 + 60 + 40 + 50 + 40
    assert (pairs.scored, pairs.padded, pairs.tokens) == (510, 310 + 220, 930)
    assert (pairs.parts, pairs.rows) == (2, 4), "as without it"
    assert look([100, 90, 80], 3, padded, common=50) == look([100, 90, 80], 3, padded)
    kept = look(PAIRS.each, 4, padded, 2, PAIRS.sums, PAIRS.repeats, PAIRS.common)
    assert kept == look(PAIRS.each, 4, padded, 2, PAIRS.sums)


def test_but_not_for_a_few_tokens() -> None:
    few = LEAST_SAVED - 1
    assert computed_once([0, 0], few) == 0 and computed_once([0, 0], few + 1) == few + 1
    assert computed_once([0, 0, 0], few) == 2 * few, "of three rows two need not compute it"
    assert computed_once([few], 0, 2) == 0 and computed_once([few + 1], 0, 2) == few + 1
    # A pair alone: what it has in common with others is a part of its prompt.
    assert computed_once([80], 40, 2) == computed_once([80], 10, 2) == 80
    assert computed_once([60, 60], 40, 2) == 3 * 40, "20 tokens more of each prompt are too few"
    assert computed_once([], 0) == 0


def test_the_plan_counts_it_once() -> None:
    alone = replace(PAIRS, repeats=(), common=0, alone=0)
    on, off = (plan(one, method={"name": "dpo"}, training=IN_TWOS) for one in (PAIRS, alone))
    assert on.memory["activations"] == pytest.approx(off.memory["activations"] * 310 / 510, rel=1e-6)
    assert on.batching == off.batching and on.memory["logits"] == off.memory["logits"]
    # The head has every row, so what it computes stays; the layers compute 530 of 930 tokens.
    assert off.seconds and on.seconds and off.seconds * 530 / 930 < on.seconds < off.seconds
    full = {"tuning": {"modules_to_save": "lm_head"}, "training": IN_TWOS, "method": {"name": "orpo"}}
    assert plan(PAIRS, **full).memory["logits"] == plan(alone, **full).memory["logits"] > 0


def test_smaller_micro_batches_take_no_more_than_the_one_that_shares() -> None:
    cost = METHODS["dpo"].cost
    load = Load(None, 4, False, "adamw_torch", 2, 140, 90, checkpointing=False, cost=cost, padded=310, scored=510)
    one, half = load.resized(1, 140), load.resized(2, 70)
    assert (one.padded, one.scored) == (280, 280)  # at most two sequences of 140 tokens
    assert (half.padded, half.scored) == (155, 255)
    assert replace(load, padded=250).resized(1, 140).padded == 250, "not more than there is now"


@pytest.mark.parametrize(
    "sections",
    [
        {"tuning": {"dropout": 0.1}},
        {"method": {"name": "sft", "neftune_noise_alpha": 5}},
        {"method": {"name": "sft"}, "training": {**IN_TWOS, "padding_free": True}},
        {"training": {**IN_TWOS, "kernels": "off"}},
        {"method": {"name": "grpo"}, "training": {"batch_size": 8}},
    ],
)
def test_only_where_rows_compute_it_alike(sections: dict[str, Any]) -> None:
    wanted = {"training": IN_TWOS, "method": {"name": "dpo"}, **sections}
    made, other = (plan(one, **wanted) for one in (PAIRS, replace(PAIRS, repeats=(), common=0, alone=0)))
    assert made.memory == other.memory and made.seconds == other.seconds


def test_not_where_a_window_ends_within_a_row() -> None:
    config, device = RunConfig(method={"name": "dpo"}, training=IN_TWOS), DEVICE
    made = {window: make_plan(config, replace(SHAPE, window=window), PAIRS, device) for window in (None, 140, 139)}
    assert made[None].memory == made[140].memory
    assert made[None].memory["activations"] < made[139].memory["activations"]


def test_an_adapter_that_goes_on_has_a_dropout_of_its_own(tmp_path: Path) -> None:
    for dropout in (0.0, 0.05):
        kept = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "lora_dropout": dropout}
        (tmp_path / "adapter_config.json").write_text(json.dumps(kept))
        wanted: dict[str, Any] = {"tuning": {"adapter": str(tmp_path)}, "training": IN_TWOS, "method": {"name": "dpo"}}
        made, other = (plan(one, **wanted) for one in (PAIRS, replace(PAIRS, repeats=(), common=0)))
        assert (made.memory == other.memory) is bool(dropout)


def test_rows_beyond_those_seen_count_as_the_largest_of_them_by_itself() -> None:
    """So many pairs that not all are looked at: the largest has 400 tokens, or 250 with its prompt once."""
    many = replace(PAIRS, count=10_000, total_tokens=2_325_000, max=210, alone=250, supervised_tokens=725_000)
    twos = {**IN_TWOS, "micro_batch_size": 1}
    on, off = (plan(one, method={"name": "dpo"}, training=twos) for one in (many, replace(many, alone=0)))
    assert on.memory["activations"] == pytest.approx(off.memory["activations"] * 250 / 420, rel=1e-6)
    assert on.memory["logits"] == off.memory["logits"]


def test_the_head_computes_supervised_tokens_however_many_the_layers_do() -> None:
    work = speed.Work(1000, 10, 100.0, 100, supervised_share=0.5, validation_tokens=0)
    load = Load(None, 4, False, "adamw_torch", 2, 100, 50, checkpointing=False)
    linear = 2 * sum(layer.inputs * layer.outputs for layer in SHAPE.linears)
    for waste in (0.5, 1.0, 1.5):
        of_linear, attention = speed.forward_flops(SHAPE, replace(load, waste=waste), work)
        assert waste * of_linear == pytest.approx(waste * linear + SHAPE.vocab * SHAPE.hidden)
        row = 100 * max(1.0, waste)  # which the attention of each token goes over
        assert attention == pytest.approx(4 * SHAPE.layers * SHAPE.heads * SHAPE.head_dim * row)


def test_small_micro_batches_take_longer_for_the_same_tokens() -> None:
    """With the fused kernels: what a micro-batch takes besides does not depend on its tokens."""
    device = replace(DEVICE, gflops={"bfloat16": 429.0, "float32": 195.0})
    work = speed.Work(57_270, 840, 68.0, 68, supervised_share=0.46, validation_tokens=0)
    load = Load(None, 4, True, "adamw_torch", 8, 68, 68, checkpointing=False, waste=1.0)
    took = {
        (rows, fused): speed.training_seconds(SHAPE, replace(load, micro_batch=rows, fused=fused), work, device)
        for rows in (8, 25) for fused in (True, False)
    }  # fmt: skip
    assert took[8, False] == took[25, False]
    layers = SHAPE.layers * (57_270 / (8 * 68) - 57_270 / (25 * 68))
    assert took[8, True] - took[25, True] == pytest.approx(speed.FUSED_SECONDS * layers)


def test_only_rows_that_the_run_comes_to_are_counted() -> None:
    each = [50] * 40 + [900] * 40
    lengths = Lengths(80, sum(each), 900, sum(each) // 2, each=each, sums=each)
    whole, short = (plan(lengths, training={"batch_size": 8, "max_steps": steps}) for steps in (None, 5))
    assert short.memory["activations"] == pytest.approx(whole.memory["activations"] * 8 * 50 / (2 * 900))
    assert short.accumulation == 1 and whole.accumulation > 1


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if not kind.padding_free])
def test_a_method_without_rows_of_several_examples_is_planned_as_without_the_option(name: str) -> None:
    with_it, without = (
        plan(method={"name": name}, training={"kernels": "off", "padding_free": wanted}) for wanted in (True, False)
    )
    assert (with_it.memory, with_it.seconds) == (without.memory, without.seconds)


@pytest.mark.parametrize("method", ["orpo", "kto"])
def test_so_are_rows_in_the_order_of_the_data(method: str) -> None:
    off, on = (
        plan(method={"name": method}, training={"batch_size": 8, "micro_batch_size": 4, "kernels": kernels})
        for kernels in ("off", "auto")
    )
    assert on.unpadded and on.memory["activations"] < off.memory["activations"]


def test_fused_kernels_are_planned_where_they_are_known_to_be() -> None:
    sizes = {"training": {"batch_size": 40}}
    assert plan(**sizes).unpadded
    for shape, device, sections in (
        (replace(SHAPE, family="falcon"), DEVICE, {}),
        (SHAPE, replace(DEVICE, compiled=False), {}),
        (SHAPE, replace(DEVICE, kind="cuda"), {}),
        (SHAPE, DEVICE, {"model": {"attention": "sdpa"}}),
    ):
        made = make_plan(RunConfig(**sizes, **sections), shape, LENGTHS, device)
        assert not made.unpadded and made.batching.padded
    several = plan(method={"name": "ppo"})
    assert several.unpadded and several.memory["activations"] > 0


def test_rows_without_known_lengths_are_planned_alike() -> None:
    known, unknown = plan(training={"batch_size": 40}), plan(replace(LENGTHS, each=()), training={"batch_size": 40})
    assert unknown.total_bytes == pytest.approx(known.total_bytes, rel=0.15)


@settings(max_examples=80, deadline=None)
@given(
    free=st.floats(0.8e9, 30e9), batch=st.sampled_from([1, 6, 8, 40, 64]), full=st.booleans(),
    each=st.lists(st.integers(5, 3000), min_size=1, max_size=80),
    method=st.sampled_from(list(METHODS)),
    packing=st.booleans(),
)  # fmt: skip
def test_more_than_half_of_the_memory_only_where_nothing_else_runs(
    free: float, batch: int, full: bool, each: list[int], method: str, packing: bool
) -> None:
    lengths = Lengths(len(each), sum(each), max(each), sum(each) // 2, each=each)
    sections: dict[str, Any] = {"method": {"name": method}, "tuning": {"name": "full" if full else "lora"}}
    training = {"batch_size": batch, "padding_free": packing}
    made = plan(lengths, free, training=training, **sections)
    if made.total_bytes <= MODEST * free:
        return
    least = 2 if method == "kto" and batch > 1 and len(each) > 1 else 1
    smallest = {**training, "micro_batch_size": least, "activation_checkpointing": True}
    assert plan(lengths, free, training=smallest, **sections).total_bytes > MODEST * free


def test_a_gpu_takes_the_largest_that_fits() -> None:
    even = Lengths(400, 400 * 1024, 1024, 400 * 500, each=[1024] * 400)

    def on(free: float, **training: Any) -> Plan:
        return plan(even, free=free, kind="cuda", training={"batch_size": 64, **training})

    # Up to 32,768 tokens a GPU is filled up to what is usable; above that half of it is the limit.
    half, all_ = (on(1e12, micro_batch_size=size).total_bytes for size in (32, 64))
    assert on(2.1 * all_).micro_batch == 64
    assert on(1.9 * all_).micro_batch == 32
    assert on(1.2 * half).micro_batch == 32
    assert on(0.9 * half).micro_batch == 16


def test_a_run_that_goes_on_keeps_its_micro_batches() -> None:
    first = plan(training={"batch_size": 40})
    device = replace(DEVICE, available_bytes=4_000_000_000)
    config = RunConfig(training={"batch_size": 40})
    assert make_plan(config, SHAPE, LENGTHS, device).batching != first.batching
    assert make_plan(config, SHAPE, LENGTHS, device, begun=first.batching).batching == first.batching


@pytest.mark.parametrize(
    ("sections", "grouped"),
    [
        ({"method": {"name": "sft"}}, True),
        ({"method": {"name": "pretrain"}}, True),
        ({"method": {"name": "sft"}, "training": {"padding_free": True}}, False),
        ({"method": {"name": "sft"}, "training": {"engine": "unsloth"}}, False),
        ({"method": {"name": "dpo"}}, True),
        ({"method": {"name": "dpo", "dpo_loss": ["ipo", "aot"]}}, False),
        ({"method": {"name": "dpo", "dpo_loss": ["sigmoid", "sft"]}}, False),
        ({"method": {"name": "reward"}}, True),
        ({"method": {"name": "orpo"}}, False),
        ({"method": {"name": "kto"}}, False),
        ({"method": {"name": "ppo"}}, False),
        ({"method": {"name": "grpo"}}, False),
    ],
)
def test_rows_go_together_where_the_loss_does_not_see_it(sections: dict[str, Any], grouped: bool) -> None:
    assert by_length(RunConfig(**sections)) is grouped


def test_a_small_batch_is_computed_at_once() -> None:
    short = Lengths(500, 40_000, 120, 15_000, each=[80] * 499 + [120])
    made = plan(short)
    assert (made.micro_batch, made.accumulation) == (8, 1)
    assert "at once" in made.choices["training.micro_batch_size"].reason


def test_a_rate_is_told_beside_the_usual_one() -> None:
    made = plan(training={"learning_rate": 1e-3}, method={"name": "dpo"})
    assert (made.learning_rate, made.usual["training.learning_rate"].value) == (1e-3, 1e-4)
