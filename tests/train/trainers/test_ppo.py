"""PPO in whole runs on a tiny random model with letters for tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
    set_seed,
)

from studio.config import RunConfig
from studio.config.load import build as build_config
from studio.data.prepare.units import Prompt
from studio.errors import StudioError
from studio.models.device.machine import device_info
from studio.models.inspect.shape import ModelShape
from studio.models.plan.fit import Lengths
from studio.models.plan.making import make_plan
from studio.train.load.model import load_model
from studio.train.loop.saving import Start
from studio.train.rewards.scoring import load_scorer, model_scorer
from studio.train.setup import Setup
from studio.train.trainers import ppo
from studio.train.trainers.rollouts import micro_batches
from tests.support.everyday import everyday

LETTERS = "abcdefghijklmnop"
REPORTED = (
    "loss", "reward", "objective/kl", "objective/kl_coef", "loss/policy", "loss/value", "policy/clip_fraction",
    "policy/entropy", "policy/approx_kl", "completions/mean_length",
)  # fmt: skip


OTHER_BATCHES = [{"micro_batch_size": 1}, {"micro_batch_size": 4, "activation_checkpointing": True}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Llama whose tokens are letters."""
    folder = tmp_path_factory.mktemp("letters")
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *LETTERS])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **sizes, num_key_value_heads=2, vocab_size=len(words), max_position_embeddings=64, initializer_range=0.2,
        tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.repetition_penalty = 1.3  # a model's own taste, which PPO must leave out
    model.save_pretrained(folder)
    return folder


def prompts(tokenizer: Any, count: int = 10) -> list[Prompt]:
    texts = [LETTERS[i % 5 : i % 5 + 1 + i % 4] for i in range(count)]
    return [Prompt(tokenizer(text)["input_ids"], text, LETTERS[i % 3], i, "rows") for i, text in enumerate(texts)]


def setup_of(tiny: Path, output: Path, settings: Any, validation: int = 0, **sections: dict[str, Any]) -> Setup:
    raw: dict[str, Any] = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": "rows.jsonl"}]},
        "method": {"name": "ppo", "rewards": ["length"], "reward_length": 3, "max_completion_length": 6},
        "tuning": {"name": "lora", "rank": 4},
        "training": {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-2, "max_steps": 8},
    }
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    config = build_config(RunConfig, raw)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = prompts(tokenizer)
    lengths = Lengths(len(rows), 20, 4, 1, validation)
    plan = make_plan(config, ModelShape.from_folder(tiny), lengths, device_info(settings))
    set_seed(config.training.seed)
    loaded = load_model(config, plan, tiny, tokenizer)
    return Setup(
        config=config, plan=plan, model=loaded.model, base=tiny, tokenizer=tokenizer, train=rows,
        validation=rows[:validation], output=output, peft_config=loaded.peft_config,
    )  # fmt: skip


def train(setup: Setup, resume: str | None = None) -> ppo.PolicyTrainer:
    trainer = ppo.build(setup)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights_of(trainer: ppo.PolicyTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def entries(trainer: ppo.PolicyTrainer, key: str = "loss") -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if key in entry]


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True
        return control


TUNINGS = [
    {"name": "lora"}, {"name": "full"}, {"name": "dora"}, {"name": "qlora"}, {"name": "lora", "init": "pissa"},
    {"name": "lora", "modules_to_save": ["embed_tokens"]}, {"name": "lora", "lora_plus_ratio": 8.0},
]  # fmt: skip


@pytest.mark.parametrize(
    "tuning",
    everyday(TUNINGS, {"name": "lora"}, {"name": "full"}),
    ids=lambda tuning: "-".join(map(str, tuning.values())),
)
def test_what_should_move_moves_and_only_the_policy_is_saved(tiny, tmp_path, settings, tuning) -> None:
    seen: list[tuple[int, list[dict[str, Any]]]] = []
    setup = setup_of(tiny, tmp_path / "run", settings, tuning=tuning, training={"max_steps": 6}, validation=3)
    setup.on_samples = lambda step, samples: seen.append((step, samples))
    trainer = ppo.build(setup)
    start, before = Start.of(trainer, setup.config), weights_of(trainer)
    learns = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    trainer.train()
    moved = {name for name, weight in weights_of(trainer).items() if not torch.equal(weight, before[name])}
    assert moved == learns
    assert ("value_head.weight" in learns) and (tuning["name"] == "full") == ("model.norm.weight" in learns)

    logs = entries(trainer)
    assert len(logs) == 6
    assert all(math.isfinite(entry[name]) for entry in logs for name in REPORTED)
    assert logs[0]["objective/kl"] == pytest.approx(0, abs=1e-4)  # the policy starts at the reference
    assert logs[0]["policy/approx_kl"] == pytest.approx(0, abs=1e-4) and logs[3]["policy/approx_kl"] > 1e-6
    assert logs[4]["objective/kl"] != logs[0]["objective/kl"] == logs[3]["objective/kl"]
    assert len(entries(trainer, "eval_reward")) >= 2
    assert all(math.isfinite(entry["eval_objective/kl"]) for entry in entries(trainer, "eval_reward"))
    assert [step for step, _ in seen] == [1, 5]
    assert set(seen[0][1][0]) == {"prompt", "text", "rewards"} and len(seen[0][1]) == 4

    start.save(trainer, tmp_path / "model")
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert not any(file.is_dir() for file in (tmp_path / "model").iterdir())
    assert ("model.safetensors" in files) == (tuning["name"] == "full")
    assert ("adapter_model.safetensors" in files) == (tuning["name"] != "full")
    saved = {name for file in (tmp_path / "model").glob("*.safetensors") for name in load_file(file)}
    assert saved and not any("value" in name.split(".") or "value_head" in name for name in saved)
    if tuning["name"] in ("lora", "dora"):
        fresh = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny), tmp_path / "model")
    elif tuning["name"] == "full":
        fresh = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    else:
        return
    ids = torch.tensor([[3, 4, 5]])
    trainer.model.eval()
    torch.testing.assert_close(fresh.eval()(ids).logits, trainer.model(ids).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tuning", everyday(["lora", "full"], "lora"))
def test_a_simple_reward_is_learned(tiny, tmp_path, settings, tuning) -> None:
    file = tmp_path / "share.py"
    file.write_text("def share(prompts, completions, **_):\n    return [c.count('a') / 6 for c in completions]\n")
    method = {"rewards": ["python"], "reward_python": f"{file}:share", "trust_reward_code": True, "kl_coef": 0.01}
    rate = 2e-2 if tuning == "lora" else 3e-3
    training = {"max_steps": 60, "batch_size": 16, "micro_batch_size": 16, "learning_rate": rate}
    trainer = train(
        setup_of(tiny, tmp_path / "run", settings, method=method, training=training, tuning={"name": tuning})
    )
    rewards = [entry["reward"] for entry in entries(trainer)][::4]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.3
    assert entries(trainer)[-1]["objective/kl"] > 1


@pytest.mark.long
@pytest.mark.parametrize("tuning", ["lora", pytest.param("full", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(3, id="within a batch"),
        pytest.param(4, id="between batches", marks=pytest.mark.long),
        pytest.param(12, id="between epochs", marks=pytest.mark.long),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path, settings, tuning, stop) -> None:
    sections: dict[str, Any] = {
        "tuning": {"name": tuning, **({"dropout": 0.1} if tuning == "lora" else {})},
        "training": {"max_steps": 17, "learning_rate": 1e-3 if tuning == "full" else 1e-2},
        "method": {"kl_target": 2.0},
    }
    whole = train(setup_of(tiny, tmp_path / "whole", settings, validation=2, **sections))
    first = setup_of(tiny, tmp_path / "parts", settings, validation=2, **sections)
    first.callbacks = [StopAt(stop)]
    train(first)
    folder = tmp_path / "parts" / f"checkpoint-{stop}"
    assert (folder / ppo.STATE).is_file() and not any(file.is_dir() for file in folder.iterdir())
    second = train(setup_of(tiny, tmp_path / "parts", settings, validation=2, **sections), resume=str(folder))
    assert second.state.global_step == whole.state.global_step == 17
    for name, weight in weights_of(second).items():
        torch.testing.assert_close(weight, weights_of(whole)[name], rtol=0, atol=1e-6)
    keys = ("reward", "objective/kl", "objective/kl_coef", "loss/value")
    assert [[e[k] for k in keys] for e in entries(second)[-3:]] == [
        [pytest.approx(e[k], abs=1e-5) for k in keys] for e in entries(whole)[-3:]
    ]
    assert (second.tokens_seen, second.supervised_seen) == (whole.tokens_seen, whole.supervised_seen)


@pytest.mark.parametrize("tuning", everyday(["lora", "full"], "lora"))
@pytest.mark.parametrize("other", everyday(OTHER_BATCHES, OTHER_BATCHES[1]))
def test_how_a_batch_is_computed_does_not_matter(tiny, tmp_path, settings, tuning, other) -> None:
    runs = []
    for number, training in enumerate(({"micro_batch_size": 4}, other)):
        training = {"learning_rate": 0.1, "optimizer": "sgd", **training}
        sections = {"tuning": {"name": tuning}, "training": training, "method": {"vf_coef": 5.0}}
        runs.append(train(setup_of(tiny, tmp_path / str(number), settings, **sections)))
    for name, weight in weights_of(runs[0]).items():
        torch.testing.assert_close(weight, weights_of(runs[1])[name], rtol=0, atol=1e-5)
    assert [e["loss"] for e in entries(runs[0])] == [pytest.approx(e["loss"], abs=1e-5) for e in entries(runs[1])]


def test_micro_batches_keep_no_padding_and_lose_no_token() -> None:
    batch = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 1, 0, 0], [7, 8, 9, 6, 6, 6, 1]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]]),
        "completion_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]),
    }
    first, second = micro_batches(batch, 1)
    assert first["input_ids"].tolist() == [[5, 6, 1]] and first["completion_mask"].tolist() == [[1, 1]]
    assert second["input_ids"].tolist() == batch["input_ids"][1:].tolist()


@pytest.mark.long
def test_an_adapter_that_goes_on_is_its_own_reference(tiny, tmp_path, settings) -> None:
    train(setup_of(tiny, tmp_path / "first", settings)).save_model(str(tmp_path / "adapter"))
    trainer = train(setup_of(tiny, tmp_path / "second", settings, tuning={"adapter": str(tmp_path / "adapter")}))
    assert entries(trainer)[0]["objective/kl"] == pytest.approx(0, abs=1e-5) != entries(trainer)[-1]["objective/kl"]
    kept, before = weights_of(trainer), load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, weight in before.items():
        layer, _, kind = name.rpartition(".")
        torch.testing.assert_close(kept[f"{layer}.ref.{kind}"], weight)
        assert not torch.equal(kept[f"{layer}.default.{kind}"], weight)


def reward_adapter(tiny: Path, folder: Path) -> Path:
    """A LoRA reward model with random weights over the tiny model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, dtype=torch.float32)
    config = LoraConfig(r=3, target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_a_reward_adapter_on_the_shared_base_scores_like_the_reward_model(tiny, tmp_path, settings) -> None:
    folder = reward_adapter(tiny, tmp_path / "scorer")
    method = {"rewards": ["model", "exact_match"], "reward_model": str(folder), "reward_weights": [2.0, 1.0]}
    targets = {"target_modules": ["q_proj"]}  # the reward model adapts layers that the policy does not
    setup = setup_of(tiny, tmp_path / "run", settings, method=method, tuning=targets)
    setup.scorer = folder
    trainer = ppo.build(setup)
    answers, places = ["abc", "", "p", "aaaaaaaa"], [0, 3, 5, 9]
    wanted = model_scorer(setup)([setup.train[place] for place in places], answers)
    trainer.model.eval()
    scored = trainer._rewards(places, answers)
    assert scored.parts["model"] == pytest.approx(wanted, abs=1e-5)
    assert scored.totals == pytest.approx([2 * a + b for a, b in zip(wanted, scored.parts["exact_match"], strict=True)])
    frozen = {name: weight for name, weight in weights_of(trainer).items() if ".reward." in name}
    assert frozen and load_scorer(folder, tiny, torch.float32) is not None
    trainer.train()
    assert all(torch.equal(weights_of(trainer)[name], weight) for name, weight in frozen.items())
    assert not any("reward" in name for name in trainer.actors.own)
    logs = entries(trainer)[0]
    assert logs["objective/kl"] == pytest.approx(0, abs=1e-5)  # the reward's layers do not act for the policy
    assert logs["reward"] == pytest.approx(2 * logs["rewards/model/mean"] + logs["rewards/exact_match/mean"], abs=1e-5)


def test_a_reward_that_is_none_counts_0_and_is_left_out_of_its_mean(tiny, tmp_path, settings) -> None:
    trainer = ppo.build(setup_of(tiny, tmp_path / "run", settings))
    reward = trainer._rewards._rewards[0]
    object.__setattr__(reward, "score", lambda rows, answers: [None, 3.0])
    scored = trainer._rewards([0, 1], ["a", "b"])
    assert (scored.totals, scored.mean, scored.means()) == ([0.0, 3.0], 1.5, {"rewards/length/mean": 3.0})
    object.__setattr__(reward, "score", lambda rows, answers: [1.0, math.nan])
    with pytest.raises(StudioError, match="length of a completion is nan"):
        trainer._rewards([0, 1], ["a", "b"])


def test_answers_end_at_an_end_and_are_drawn_from_the_models_own_probabilities(tiny, tmp_path, settings) -> None:
    setup = setup_of(tiny, tmp_path / "run", settings, method={"max_completion_length": 1, "temperature": 2.0})
    trainer = ppo.build(setup)
    row = setup.train[3]
    with trainer._judging():
        torch.manual_seed(0)
        batch = trainer._writer.write([row] * 4000, sample=True)
        logits = setup.model(torch.tensor([row.prompt_ids])).logits[0, -1]
    shares = torch.bincount(batch["input_ids"][:, -1], minlength=19) / 4000
    assert (shares - (logits / 2).softmax(-1)).abs().max() < 0.03
    assert setup.model.generation_config.repetition_penalty == 1.3
    longer = {
        "completion_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "input_ids": torch.tensor([[9, 3, 1, 0], [9, 3, 4, 5]]),
    }
    assert trainer._writer.texts(longer) == ["a", "abc"]


def test_a_checkpoint_without_its_state_is_refused(tiny, tmp_path, settings) -> None:
    first = setup_of(tiny, tmp_path, settings)
    first.callbacks = [StopAt(2)]
    train(first)
    (tmp_path / "checkpoint-2" / ppo.STATE).unlink()
    with pytest.raises(StudioError, match=r"has no ppo\.safetensors"):
        train(setup_of(tiny, tmp_path, settings), resume=str(tmp_path / "checkpoint-2"))
