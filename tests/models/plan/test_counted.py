"""What the plan counts beside the usual run: layers trained whole, optimizers, second models, long validations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.adapted import adapted
from studio.models.inspect.known_shapes import shape_of
from studio.models.plan.fit import Lengths
from studio.models.plan.making import Plan, make_plan
from studio.models.plan.states import Trained, state_bytes
from tests.support.known import PUBLISHED

EIGHT = shape_of(PUBLISHED["llama3.1-8b-instruct"])
MATRIX = EIGHT.vocab * EIGHT.hidden
GIB = 2**30


def plan(size: int = 400 * GIB, length: int = 512, longest_validation: int = 0, **sections: Any) -> Plan:
    config = RunConfig(**{"data": {"max_length": length}, **sections})
    lengths = Lengths(
        500, 500 * length, length, 250 * length, 5 if longest_validation else 0, validation_max=longest_validation
    )
    device = DeviceInfo("cuda", "a card", 8, size, size, 0, bf16_fast=True)
    return make_plan(config, EIGHT, lengths, device)


def test_layers_trained_whole_are_counted_with_copy_gradient_and_moments() -> None:
    fixed = {"micro_batch_size": 1}
    plain = plan(training=fixed)
    whole = plan(training=fixed, tuning={"modules_to_save": "lm_head, embed_tokens"})
    assert whole.trainable - plain.trainable == 2 * MATRIX
    assert whole.adapter_bytes - plain.adapter_bytes == 8 * MATRIX
    # 16 bytes a weight, and 2 for the head's copy under autocast.
    assert whole.total_bytes - plain.total_bytes == 2 * MATRIX * 16 + 2 * MATRIX
    assert any(cure.change == {"tuning.modules_to_save": None} for cure in whole.cures)
    assert plan(training=fixed, tuning={"name": "qlora", "modules_to_save": "lm_head"}).trainable == plain.trainable


def test_ranks_by_layer_are_counted() -> None:
    layers = [one for one in EIGHT.linears if one.suffix == "q_proj"]
    more = sum(16 * (one.inputs + one.outputs) for one in layers)
    assert plan(tuning={"rank_pattern": "q_proj=32"}).trainable == plan().trainable + more
    named = plan(tuning={"rank_pattern": {"layers.0.self_attn.q_proj": 32}})
    assert named.trainable == plan().trainable + more // len(layers)


def test_an_adapter_that_goes_on_says_its_own_size(tmp_path: Path) -> None:
    kept: dict[str, Any] = {
        "peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "rank_pattern": {}, "use_dora": False,
        "modules_to_save": ["lm_head"], "layers_to_transform": [0, 1],
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(kept))
    made = plan(tuning={"rank": 64, "adapter": str(tmp_path)})
    assert made.line().startswith("LoRA r4 · ")
    assert made.trainable == 2 * 4 * 2 * EIGHT.hidden + MATRIX
    merged = plan(tuning={"rank": 64, "adapter": str(tmp_path), "merge_adapter": True})
    assert merged.rank == 64 and merged.trainable == plan(tuning={"rank": 64}).trainable
    (tmp_path / "adapter_config.json").write_text(json.dumps(kept | {"target_modules": r".*\.(q|v)_proj"}))
    found = adapted(EIGHT, RunConfig(tuning={"adapter": str(tmp_path)}).tuning)  # type: ignore[arg-type]
    assert found is not None and {one.suffix for one, _ in found.layers} == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("optimizer", "large", "small"),
    # Bytes of the states of 40,960 and of 4,000 weights, as the optimizers themselves made them on a CPU.
    [
        ("adamw_torch", 327_680, 32_000), ("adagrad", 163_840, 16_000), ("rmsprop", 163_840, 16_000), ("sgd", 0, 0),
        ("adamw_8bit", 83_200, 32_000), ("paged_adamw_8bit", 83_200, 32_000), ("paged_adamw_32bit", 327_680, 32_000),
        ("lion_8bit", 41_600, 16_000), ("ademamix_8bit", 124_800, 48_000),
    ],
)  # fmt: skip
def test_every_optimizer_holds_what_it_holds(optimizer: str, large: int, small: int) -> None:
    assert state_bytes(optimizer, [Trained(40, 1024)]) == large
    assert state_bytes(optimizer, [Trained(4, 1000)]) == small


def test_adafactor_and_embeddings() -> None:
    assert state_bytes("adafactor", [Trained(10, 20), Trained(30)]) == 4 * 30 + 4 * 30
    assert state_bytes("adamw_8bit", [Trained(100, 100, embedding=True)]) == 80_000


def test_the_optimizers_of_a_whole_model() -> None:
    def held(optimizer: str, **tuning: Any) -> int:
        return plan(tuning=tuning, training={"optimizer": optimizer}).memory["optimizer"]

    count = EIGHT.parameters
    assert held("adamw_torch", name="full") == 8 * count and held("adagrad", name="full") == 4 * count
    rest = count - MATRIX  # the embedding keeps 32 bits
    assert held("adamw_8bit", name="full") == pytest.approx(2.031 * rest + 8 * MATRIX, rel=0.001)
    assert held("lion_8bit", name="full") == pytest.approx(1.016 * rest + 4 * MATRIX, rel=0.001)
    assert held("adamw_8bit", rank=16) < held("adamw_torch", rank=16) / 3


def test_the_8_bit_optimizer_is_named_where_it_helps() -> None:
    assert {"training.optimizer": "adamw_8bit"} in [cure.change for cure in plan(tuning={"name": "full"}).cures]
    assert all("training.optimizer" not in cure.change for cure in plan(length=4096, tuning={"rank": 1}).cures)


def test_second_models_are_counted() -> None:
    fixed: dict[str, Any] = {"micro_batch_size": 1}

    def weights(tuning: str, name: str, **method: Any) -> int:
        made = plan(training=fixed, tuning={"name": tuning}, method={"name": name, **method})
        return made.memory["weights"]

    count, judge = EIGHT.parameters, {"rewards": "model", "reward_model": "judge"}
    plain = weights("full", "grpo")
    assert weights("full", "grpo", beta=0.1) - plain == 4 * count
    assert weights("full", "grpo", **judge) - plain == 4 * count
    assert weights("full", "grpo", beta=0.1, **judge) - plain == 8 * count
    # With an adapter the reference is the base; the reward model is held in the base's number format.
    assert weights("lora", "grpo", beta=0.1) == weights("lora", "grpo")
    assert weights("lora", "grpo", **judge) - weights("lora", "grpo") == 2 * count
    assert weights("full", "ppo", **judge) - weights("full", "ppo") == 4 * count


def test_ppo_lays_a_reward_adapter_over_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}')
    judge = {"rewards": "model", "reward_model": str(tmp_path)}
    assert plan(method={"name": "ppo", **judge}).memory == plan(method={"name": "ppo"}).memory
    assert plan(method={"name": "grpo", **judge}).total_bytes > plan(method={"name": "grpo"}).total_bytes


def test_a_validation_of_long_rows_is_the_peak() -> None:
    fixed = {"micro_batch_size": 1, "activation_checkpointing": True}
    short = plan(training=fixed, longest_validation=512)
    assert short.memory == plan(training=fixed).memory, "a validation of such rows takes less than a step"
    long = plan(training=fixed, longest_validation=16_000)
    assert long.total_bytes > short.total_bytes and long.memory["gradients"] == 0
    assert long.memory["activations"] > short.memory["activations"]


@pytest.mark.parametrize(
    ("size", "tuning", "words"),
    [
        (8, {"name": "qlora"}, "Set data.max_length to 256 and data.truncation to cut: it then needs 7."),
        (16, {"name": "dora"}, "Set tuning.name to qlora and tuning.dora to true: it then needs"),
    ],
)
def test_the_advice_ends_at_something_that_fits(size: int, tuning: dict[str, Any], words: str) -> None:
    made = plan(size * GIB, 2048, tuning=tuning)
    assert not made.fits
    (told,) = [sentence for sentence in made.advice if sentence.startswith(words)]
    assert told.endswith("which fits.")
    assert not any("smaller model" in sentence for sentence in made.advice)
    assert sum("data.max_length" in sentence for sentence in made.advice) <= 2, "one for each halving says too much"


def test_shorter_rows_have_fewer_tokens_that_count() -> None:
    made = plan(8 * GIB, 2048, tuning={"name": "qlora"})
    lengths = {cure.change["data.max_length"]: cure.bytes for cure in made.cures if len(cure.change) == 2}
    assert set(lengths) == {1024, 512, 256}
    again = plan(
        400 * GIB, 256, tuning={"name": "qlora"},
        training={"micro_batch_size": 1, "activation_offloading": True},
    )  # fmt: skip
    assert lengths[256] == again.total_bytes
