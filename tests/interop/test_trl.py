"""TRL's and ms-swift's commands as runs: what each option becomes, what they take by themselves, nothing left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given as given_these
from hypothesis import settings as examples

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError
from studio.interop import ms_swift, trl
from studio.interop.reading import read_text
from studio.interop.report import Imported
from studio.interop.tools import detect, import_given

SFT = "trl sft --model_name_or_path org/model --dataset_name org/rows"
SWIFT = "swift sft --model org/model --dataset rows.jsonl"


def imported(text: str) -> Imported:
    return import_given(read_text(text))


def checked(result: Imported, expected: dict[str, Any]) -> None:
    config = build(RunConfig, result.run).model_dump()
    for path, value in expected.items():
        section, _, name = path.partition(".")
        assert (path, config[section][name]) == (path, value)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        # Nothing but model and data: TRL's own values.
        (SFT, {"method.name": "sft", "method.train_on": "all", "tuning.name": "full", "training.learning_rate": 2e-5,
               "training.batch_size": 8, "training.epochs": 3.0, "training.scheduler": "linear",
               "training.warmup": 0.0, "training.save_steps": 500, "data.max_length": 1024, "data.truncation": "cut",
               "data.validation": 0.0}),
        (f"{SFT} --assistant_only_loss --learning_rate 1e-4 --max_length=2048",
         {"method.train_on": "assistant", "training.learning_rate": 1e-4, "data.max_length": 2048}),
        (f"{SFT} --use_peft --lora_target_modules all-linear --lora_r 8",
         {"tuning.name": "lora", "tuning.rank": 8, "tuning.alpha": 32, "tuning.dropout": 0.05,
          "tuning.target_modules": "all-linear"}),
        (f"{SFT} --use_peft --load_in_4bit", {"tuning.name": "qlora", "tuning.bits": "4", "tuning.double_quant": False,
                                              "tuning.target_modules": ["q_proj", "v_proj"]}),
        (f"{SFT} --eval_strategy steps --eval_steps 50 --dataset_config main",
         {"data.validation": "org/rows", "data.validation_split": "test", "training.eval_steps": 50}),
        ("accelerate launch --num_processes 4 trl/scripts/dpo.py --model_name_or_path m --dataset_name d "
         "--per_device_train_batch_size 2 --gradient_accumulation_steps 8 --loss_type sigmoid sft --loss_weights 1 0.5",
         {"method.name": "dpo", "training.batch_size": 64, "training.micro_batch_size": 2, "method.beta": 0.1,
          "training.learning_rate": 1e-6, "method.dpo_loss": ["sigmoid", "sft"],
          "method.dpo_loss_weights": [1.0, 0.5]}),
        ("trl kto --model_name_or_path m --dataset_name d --no_gradient_checkpointing",
         {"method.name": "kto", "data.shuffle": False, "training.activation_checkpointing": False}),
        (f"{SFT} --activation_offloading --no_gradient_checkpointing", {"training.activation_offloading": True}),
        (f"{SFT} --activation_offloading false --no_gradient_checkpointing",
         {"training.activation_offloading": False, "training.activation_checkpointing": False}),
        ("trl reward --model_name_or_path m --dataset_name d", {"method.name": "reward", "data.truncation": "drop",
                                                                "training.learning_rate": 1e-4}),
        ("trl grpo --model_name_or_path m --dataset_name d --reward_funcs checks.right --epsilon 0.1",
         {"method.num_generations": 8, "method.max_completion_length": 512, "method.beta": 0.0,
          "method.rewards": ["python"], "method.reward_python": "checks.py:right", "method.clip_range": 0.1}),
        ("trl rloo --model_name_or_path m --dataset_name d --reward_model_name_or_path scorer",
         {"method.grpo_algorithm": "rloo", "method.num_generations": 2, "method.beta": 0.05,
          "method.rewards": ["model"], "method.reward_model": "scorer"}),
        ("python examples/scripts/orpo.py --model_name_or_path m --dataset_name d", {"method.name": "orpo"}),
        ("python cpo.py --model_name_or_path m --dataset_name d --loss_type simpo --simpo_gamma 1.5 --cpo_alpha 0",
         {"method.name": "simpo", "method.simpo_gamma": 1.5, "method.beta": 0.1}),
        ("python ppo/ppo.py --model_name_or_path m --dataset_name d --reward_model_path r --kl_coef 0.1",
         {"method.name": "ppo", "method.kl_coef": 0.1, "method.rewards": ["model"], "method.whiten_rewards": False}),
        # ms-swift.
        (SWIFT, {"method.name": "sft", "method.train_on": "assistant", "tuning.name": "lora", "tuning.rank": 8,
                 "tuning.alpha": 32, "training.learning_rate": 1e-4, "training.scheduler": "cosine",
                 "training.weight_decay": 0.1, "training.batch_size": 16, "data.truncation": "drop"}),
        ("NPROC_PER_NODE=2\nNPROC_PER_NODE=$NPROC_PER_NODE \\\nswift sft --model m --tuner_type full \\\n"
         " --dataset 'org/a:sub#500' b.jsonl --gradient_accumulation_steps $(expr 16 / $NPROC_PER_NODE)",
         {"tuning.name": "full", "training.batch_size": 16, "training.learning_rate": 1e-5}),
        ("swift pt --model m --dataset t.jsonl --packing true", {"method.name": "pretrain", "method.documents": "join",
                                                                 "training.padding_free": True}),
        ("swift rlhf --rlhf_type simpo --model m --dataset t.jsonl", {"method.name": "simpo", "method.beta": 2.0}),
        ("swift rlhf --rlhf_type dpo --model m --dataset t.jsonl --rpo_alpha 0.2 --quant_bits 4 --quant_method bnb",
         {"method.dpo_loss": ["sigmoid", "sft"], "method.dpo_loss_weights": [1.0, 0.2], "tuning.name": "qlora"}),
        ("swift rlhf --rlhf_type grpo --model m --dataset t.jsonl", {"method.num_generations": 8, "method.beta": 0.04}),
        ("swift rlhf --rlhf_type rm --model m --dataset t.jsonl", {"method.name": "reward"}),
    ],
)  # fmt: skip
def test_a_command_becomes_a_run(command: str, expected: dict[str, Any]) -> None:
    given = read_text(command)
    result = imported(command)
    checked(result, expected)
    assert set(given.values) - {"no_gradient_checkpointing"} <= {line.key for line in result.report}
    assert not [line.key for line in result.report if line.status == "unknown"]


AXOLOTL_KTO = "base_model: m\nrl: kto\nsequence_len: 64\ndatasets: [{path: r.jsonl, type: llama3.argilla}]\n"
FACTORY_KTO = "stage: kto\nmodel_name_or_path: m\nfinetuning_type: lora\ndataset: rows\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trl kto --model_name_or_path m --dataset_name d --per_device_train_batch_size 4", ""),
        ("trl kto --model_name_or_path m --dataset_name d --gradient_accumulation_steps 2", "KL divergence"),
        ("trl kto --model_name_or_path m --dataset_name d --gradient_accumulation_steps 2 "
         "--loss_type apo_zero_unpaired", ""),
        ("python orpo.py --model_name_or_path m --dataset_name d --gradient_accumulation_steps 2", "mean"),
        ("trl dpo --model_name_or_path m --dataset_name d --gradient_accumulation_steps 2", ""),
        (f"{AXOLOTL_KTO}micro_batch_size: 2\ngradient_accumulation_steps: 4\n", "KL divergence"),
        (f"{AXOLOTL_KTO}micro_batch_size: 2\nbatch_size: 4\n", "KL divergence"),
        (f"{AXOLOTL_KTO}micro_batch_size: 2\n", ""),
        (f"{FACTORY_KTO}per_device_train_batch_size: 2\ngradient_accumulation_steps: 4\n", "KL divergence"),
    ],
)  # fmt: skip
def test_what_is_of_a_micro_batch_there_is_said_beside_the_batch(text: str, said: str) -> None:
    lines = [line for line in imported(text).report if "in each micro-batch there" in line.why]
    assert len(lines) == bool(said)
    assert all(line.status == "approximated" and said in line.why for line in lines)
    assert all(line.to == "training.batch_size" for line in lines)


def test_a_set_of_ms_swift_names_its_subset_and_rows() -> None:
    result = imported("swift sft --model m --dataset 'HF::org/a:sub#500' /data/b.jsonl org/c#0")
    assert [{**one} for one in result.run["data"]["train"]] == [
        {"path": "org/a", "rows": 500, "subset": "sub"}, {"path": "/data/b.jsonl"}, {"path": "org/c#0"},
    ]  # fmt: skip


def test_a_file_of_trl_does_not_say_its_trainer(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model_name_or_path: m\ndataset_name: d\nuse_peft: true\ndesirable_weight: 0.5\n", encoding="utf-8")
    result = imported(file.read_text(encoding="utf-8"))
    assert result.tool == "TRL"
    checked(result, {"method.name": "kto", "method.desirable_weight": 0.5})
    assert next(line for line in result.report if line.to == "method.name").status == "approximated"
    over = imported(f"trl kto --config {file} --desirable_weight 0.7")
    checked(over, {"method.desirable_weight": 0.7, "tuning.name": "lora"})


@pytest.mark.parametrize(
    ("command", "place", "what"),
    [
        ("trl sft --dataset_name d", "model_name_or_path", "no model is named"),
        ("trl sft --model_name_or_path m", "dataset_name", "no data is named"),
        (f"{SFT} \\\n --lora_r eight --use_peft", "the text, line 2: lora_r", "a number is needed (it is 'eight')"),
        (f"{SFT} --num_train_epochs 1e9", "num_train_epochs", "less than or equal to 1000"),
        ("swift sft --model m", "dataset", "no data is named"),
        ("swift sft --model m --dataset d --quant_bits four", "quant_bits", "a number is needed"),
        ("trl sft --config https://example.org/x.yaml", "the text", "nothing is downloaded"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(command: str, place: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        imported(command)
    assert place in caught.value.sentence and what in caught.value.sentence


def test_every_option_of_the_installed_trl_is_known() -> None:
    from trl import DPOConfig, GRPOConfig, KTOConfig, ModelConfig, RewardConfig, RLOOConfig, ScriptArguments, SFTConfig

    classes = (SFTConfig, DPOConfig, KTOConfig, RewardConfig, GRPOConfig, RLOOConfig, ModelConfig, ScriptArguments)
    fields = {field.name for one in classes for field in dataclasses.fields(one)}
    assert len(fields) > 200
    assert fields <= trl.TOOL.keys


VALUES = st.sampled_from(
    ["1", "0", "true", "false", "none", "0.5", "-3", "1e-4", "steps", "auto", "a b", "[1", "é", ""]
)


@pytest.mark.parametrize(("command", "tool"), [(SFT, trl.TOOL), (SWIFT, ms_swift.TOOL)])
@given_these(data=st.data())
@examples(max_examples=40)
def test_whatever_is_in_it_is_reported_or_refused_in_words(command: str, tool: Any, data: st.DataObject) -> None:
    extra = data.draw(st.dictionaries(st.sampled_from(sorted(tool.keys - {"config"})), VALUES, max_size=10))
    text = " ".join([command, *(f"--{key}='{value}'" for key, value in extra.items())])
    given = read_text(text)
    assert detect(given) is tool
    try:
        result = import_given(given)
    except InputError as error:
        assert error.sentence
        return
    build(RunConfig, result.run)
    assert set(given.values) <= {line.key for line in result.report}
