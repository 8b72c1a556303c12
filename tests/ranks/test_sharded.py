"""FSDP2 on a processor: the numbers of one process, and checkpoints from which any number of ranks goes on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs import JobFolder, wait
from studio.jobs.actions.branching import branch, find_checkpoint
from studio.jobs.store.checkpoints import last_whole
from studio.settings import Settings
from studio.train.trainers.sharded import ROUNDED, keep_exact, stored_names
from tests.ranks.made import SECONDS, TOLERANCE, apart, config, curve, events, once, ran, weights
from tests.ranks.test_equal import equal

# torch adds up the squares of 130,000 gradients in float32, in which one process loses more than two with half each;
# the gradients themselves agree to 1e-6.
NORMS = 1e-4


def formats(job: JobFolder) -> dict[str, Any]:
    """Number format and size of all that a run keeps: its weights, those of the last checkpoint, AdamW's states."""
    checkpoint = last_whole(job.checkpoints)
    assert checkpoint is not None
    states = torch.load(checkpoint.path / "optimizer.pt", weights_only=True)["state"]
    kept = {f"{at} {name}": one for at, values in states.items() for name, one in values.items()}
    for file in sorted(checkpoint.path.glob("*.safetensors")):
        kept |= {f"checkpoint {name}": one for name, one in load_file(file).items()}
    kept |= {f"model {name}": one for name, one in weights(job).items()}
    return {name: (one.dtype, tuple(one.shape)) for name, one in kept.items()}


def losses(job: JobFolder) -> dict[tuple[str, int], float]:
    """Those of training and validation together: rounding moves each by some 1e-5, and a few may agree by chance."""
    return {(name, step): value for name in ("loss", "eval_loss") for step, value in curve(job, name).items()}


def test_what_is_trained_is_found_by_its_name_in_a_file(tiny: Path) -> None:
    """A score's head and DoRA's lengths have other names in a file than their parameters, in PEFT's own way."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", use_dora=True))
    names = stored_names(tuned)
    assert set(names) == {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    told = get_peft_model_state_dict(tuned)
    assert sorted(names.values()) == sorted(told)
    assert all(torch.equal(dict(tuned.named_parameters())[name], told[stored]) for name, stored in names.items())
    assert any("score" in name for name in names) and any("magnitude" in name for name in names)


def whole_of(value: Any) -> torch.Tensor:
    """A tensor with the parts of all ranks."""
    whole: torch.Tensor = value.full_tensor() if isinstance(value, DTensor) else value
    return whole


@pytest.fixture
def alone() -> Iterator[None]:
    """This process is the only rank."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("tied", [True, False])
def test_numbers_are_rounded_as_autocast_rounds_them(alone: None, tied: bool) -> None:
    """Blocks are gathered in bfloat16, what they add to stays float32, and gradients are those of autocast."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    whole = LlamaForCausalLM(LlamaConfig(vocab_size=96, num_hidden_layers=2, tie_word_embeddings=tied, **sizes))
    for norm in (one for one in whole.modules() if isinstance(one, LlamaRMSNorm)):
        torch.nn.init.normal_(norm.weight, 1, 1e-3)
    model = copy.deepcopy(whole)
    for block in model.model.layers:
        fully_shard(block, mp_policy=ROUNDED)
    outside = [[model.model.embed_tokens, model.model.norm, model.lm_head]]
    if not tied:
        outside = [[model.model.embed_tokens], [model.model.norm, model.lm_head]]
    for modules in outside:
        fully_shard(modules, mp_policy=ROUNDED, reshard_after_forward=False)
    fully_shard(model, mp_policy=ROUNDED)
    keep_exact(model)
    seen: list[torch.dtype] = []
    model.model.layers[1].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(module.q_proj.weight.dtype), with_kwargs=True
    )
    model.model.layers[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype), prepend=True)
    ids = torch.randint(0, 96, (3, 17))
    found = []
    for one in (whole, model):
        with torch.autocast("cpu", torch.bfloat16):
            loss = one(input_ids=ids, labels=ids).loss
        loss.backward()
        grads = {name: whole_of(weight.grad) for name, weight in one.named_parameters()}
        found.append((loss.item(), grads))
    assert seen == [torch.float32, torch.bfloat16]
    (theirs, expected), (ours, got) = found
    assert ours == theirs
    assert all(grad.dtype == torch.float32 for grad in got.values())
    assert all(torch.equal(grad, expected[name]) for name, grad in got.items())


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "ranks"),
    [
        ("sft", "full", 3), ("sft", "lora", 2), ("sft", "rslora", 2), ("pretrain", "full", 3), ("dpo", "full", 2),
        ("dpo", "lora", 3), ("grpo", "full", 3), ("grpo", "lora", 2), ("rloo", "lora", 2), ("reward", "lora", 2),
        ("reward", "full", 2), ("kto", "lora", 2), ("kto", "full", 3), ("orpo", "lora", 2), ("orpo", "full", 3),
        ("simpo", "lora", 2),
    ],
)  # fmt: skip
def test_every_number_is_that_of_one_process(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str, ranks: int
) -> None:
    batch = 3 if ranks == 3 and method != "grpo" else 6
    one = once(session_settings, tiny, f"alone-{batch}", method, tuning, batch_size=batch)
    values = config(tiny, tmp_path, method, tuning, batch_size=batch)
    several = ran(session_settings, f"{method}-{tuning}-{ranks}-divided", values, devices=ranks, parallel="fsdp2")
    equal(several, one, norms=NORMS)


@pytest.mark.long
@pytest.mark.parametrize(("method", "tuning"), [("sft", "full"), ("reward", "lora")])
def test_the_best_model_is_taken_back(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str
) -> None:
    values = config(
        tiny, tmp_path, method, tuning, epochs=10, learning_rate=0.1, eval_steps=1, early_stopping=2,
        load_best_model_at_end=True,
    )  # fmt: skip
    one = ran(session_settings, f"{method}-{tuning}-best-one", values)
    several = ran(session_settings, f"{method}-{tuning}-best", values, devices=2, parallel="fsdp2")
    ends = [[event["values"] for event in events(job) if event["kind"] == "result"][-1] for job in (one, several)]
    assert ends[0]["stopped_early"] and ends[0]["saved_step"] < ends[0]["steps"]
    assert [(end["steps"], end["saved_step"]) for end in ends] == [(ends[0]["steps"], ends[0]["saved_step"])] * 2
    assert apart(several, one) <= 10 * TOLERANCE  # of steps of 0.1, clipped to a norm that is summed up otherwise


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "begun", "ranks"),
    [
        ("sft", "full", "sharded", 1), ("sft", "full", "sharded", 3), ("sft", "full", "whole", 2),
        ("sft", "lora", "sharded", 1), ("sft", "lora", "whole", 2), ("dpo", "lora", "sharded", 3),
        ("dpo", "full", "sharded", 1), ("grpo", "lora", "sharded", 3), ("grpo", "full", "whole", 2),
        ("reward", "lora", "sharded", 1),
    ],
)  # fmt: skip
def test_any_number_of_ranks_goes_on_from_its_checkpoints(
    tiny: Path, session_settings: Settings, method: str, tuning: str, begun: str, ranks: int
) -> None:
    shared: dict[str, Any] = {"whole": {}, "sharded": {"devices": 2, "parallel": "fsdp2"}}
    one, first = (
        once(session_settings, tiny, name, method, tuning, epochs=4, save_steps=3, save_total_limit=9, **shared[name])
        for name in ("whole", begun)
    )
    raw = dict(first.request.config)
    now = {"devices": str(ranks), "parallel": "auto" if ranks == 1 else "fsdp2"}
    changed = build(RunConfig, {**raw, "training": {**raw["training"], **now}})
    name = f"{method}-{tuning}-{begun}-by-{ranks}"
    child = branch(session_settings, first, find_checkpoint(first, 6), name, changed, 12)
    assert wait(child, seconds=SECONDS).status == "completed", child.log_path.read_text()
    assert curve(child, "loss") == pytest.approx(curve(one, "loss"), rel=TOLERANCE, abs=TOLERANCE)
    assert apart(child, one) <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize(("method", "tuning"), [("sft", "lora"), ("sft", "full"), ("dpo", "lora"), ("grpo", "full")])
def test_recomputed_activations_change_nothing(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str
) -> None:
    values = config(tiny, tmp_path, method, tuning, batch_size=6)
    one = once(session_settings, tiny, "alone-6", method, tuning, batch_size=6)
    several = ran(
        session_settings, f"{method}-{tuning}-recomputed", values, devices=2, parallel="fsdp2",
        activation_checkpointing=True,
    )  # fmt: skip
    assert several.environment()["plan"]["activation_checkpointing"] is True
    equal(several, one, norms=NORMS)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "parallel"),
    [("sft", "lora", "ddp"), ("sft", "lora", "fsdp2"), ("sft", "full", "fsdp2"), ("sft", "dora", "fsdp2"),
     ("dpo", "lora", "fsdp2"), ("dpo", "full", "fsdp2")],
)  # fmt: skip
def test_bfloat16_is_that_of_one_process(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str, parallel: str
) -> None:
    """Nearer to it than bfloat16 is to float32, with what is kept in the same formats; divided layers are not fused."""
    values = config(tiny, tmp_path, method, tuning, kernels="auto" if parallel == "ddp" else "off")
    exact = once(session_settings, tiny, "alone-6", method, tuning, batch_size=6)
    values["model"]["dtype"] = "bfloat16"
    one = ran(session_settings, f"{method}-{tuning}-half-one", values)
    several = ran(session_settings, f"{method}-{tuning}-{parallel}-half", values, devices=2, parallel=parallel)
    mine, theirs, whole = map(losses, (several, one, exact))
    assert mine.keys() == theirs.keys()
    assert max(abs(mine[at] - theirs[at]) for at in theirs) < max(abs(whole[at] - theirs[at]) for at in theirs)
    assert apart(several, one) < apart(one, exact)
    assert formats(several) == formats(one)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_bfloat16_goes_on_from_its_checkpoints_and_loads_anywhere(
    tiny: Path, session_settings: Settings, tmp_path: Path, tuning: str, ranks: int
) -> None:
    values = config(tiny, tmp_path, "sft", tuning, epochs=4, save_steps=3, save_total_limit=9)
    values["model"]["dtype"] = "bfloat16"
    first = ran(session_settings, f"{tuning}-{ranks}-half-begun", values, devices=2, parallel="fsdp2")
    raw = dict(first.request.config)
    now = {"devices": str(ranks), "parallel": "auto" if ranks == 1 else "fsdp2"}
    changed = build(RunConfig, {**raw, "training": {**raw["training"], **now}})
    child = branch(session_settings, first, find_checkpoint(first, 6), f"{tuning}-half-by-{ranks}", changed, 12)
    assert wait(child, seconds=SECONDS).status == "completed", child.log_path.read_text()
    assert curve(child, "loss") == pytest.approx(curve(first, "loss"), rel=1e-4)
    assert formats(child) == formats(first)
    base = AutoModelForCausalLM.from_pretrained(tiny)
    ids = torch.arange(5, 25)[None]
    before = base(ids).logits
    if tuning == "full":
        model, info = AutoModelForCausalLM.from_pretrained(child.model, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
    else:
        model = PeftModel.from_pretrained(base, child.model)
    assert 0 < (model(ids).logits - before).abs().max() < 1
