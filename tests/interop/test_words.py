"""Words such as none, no and false that ask for something, and slices of splits: neither is taken for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.interop.reading import read_text
from studio.interop.report import Imported, Line
from studio.interop.sheets.splits import held_out, split_of
from studio.interop.tools import import_given

SFT = "trl sft --model_name_or_path m --dataset_name d"
GRPO = "trl grpo --model_name_or_path m --dataset_name d"
SWIFT = "swift rlhf --rlhf_type grpo --model m --dataset d"
AXOLOTL = "base_model: m\nlearning_rate: 1e-5\nmicro_batch_size: 8\nsequence_len: 64\n"
CHAT = f"{AXOLOTL}datasets: [{{path: d, type: chat_template}}]\n"
FACTORY = "model_name_or_path: m\nfinetuning_type: lora\ndataset: d\n"


def imported(text: str) -> Imported:
    return import_given(read_text(text))


def line(result: Imported, key: str) -> Line:
    (found,) = [one for one in result.report if one.key == key]
    return found


def value(result: Imported, path: str) -> Any:
    config = build(RunConfig, result.run).model_dump()
    section, _, name = path.partition(".")
    return config[section][name]


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ("none", "refused", "standard deviation of their group"), ("None", "refused", "dr_grpo"),
        ("false", "refused", "dr_grpo"), ("no", "refused", "dr_grpo"), ("f", "refused", "dr_grpo"),
        ("t", "ignored", "here, too"), ("batch", "refused", "not of the batch"),
        ("gdpo", "refused", "has no gdpo"), ("group", "ignored", "here, too"), ("true", "ignored", "here, too"),
        ("null", "ignored", ""), ("", "ignored", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tool", ["trl", "command", "axolotl", "swift"])
def test_rewards_that_are_not_divided_by_their_deviation_are_refused(
    tool: str, given: str, status: str, why: str
) -> None:
    texts = {
        "trl": f"model_name_or_path: m\ndataset_name: d\nnum_generations: 8\nscale_rewards: {given}\n",
        "command": f"{GRPO} --scale_rewards '{given}'",
        "axolotl": f"{CHAT}rl: grpo\ntrl: {{num_generations: 8, scale_rewards: {given}}}\n",
        "swift": f"{SWIFT} --scale_rewards '{given}'",
    }
    found = line(imported(texts[tool]), "trl.scale_rewards" if tool == "axolotl" else "scale_rewards")
    assert found.status == status and why in found.why


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"{GRPO} --loss_type dr_grpo --scale_rewards none", "refused"),
        (f"{SWIFT} --advantage_estimator rloo --scale_rewards none", "ignored"),
        (f"{SWIFT} --advantage_estimator rloo --scale_rewards group", "refused"),
        ("trl rloo --model_name_or_path m --dataset_name d --scale_rewards none", "ignored"),
    ],
)
def test_dr_grpo_averages_otherwise_and_rloo_divides_by_nothing(text: str, status: str) -> None:
    assert line(imported(text), "scale_rewards").status == status


@pytest.mark.parametrize(
    ("split", "expected", "status"),
    [
        ("train", {"split": "train"}, "mapped"), ("train[:]", {"split": "train"}, "mapped"),
        ("train[:100%]", {"split": "train"}, "mapped"),
        ("train[:1000]", {"split": "train", "rows": 1000}, "approximated"),
        ("train[0:1000]", {"split": "train", "rows": 1000}, "approximated"),
        ("train[:10%]", {"split": "train"}, "approximated"),
        ("train[:10%](pct1_dropremainder)", {"split": "train"}, "approximated"),
        ("train[100:]", {"split": "train"}, "refused"), ("train[10%:]", {"split": "train"}, "refused"),
        ("train[:-100]", {"split": "train"}, "refused"), ("train[100:200]", {"split": "train"}, "refused"),
        ("train[:0]", {"split": "train"}, "refused"), ("train[10:20%]", {"split": "train"}, "refused"),
        ("train+test", {"split": "train"}, "refused"), ("train[:5%]+test", {"split": "train"}, "refused"),
    ],
)  # fmt: skip
def test_a_slice_of_a_split_is_so_many_rows_or_refused(split: str, expected: dict[str, Any], status: str) -> None:
    assert split_of(split).of_set() == expected
    texts = (
        (f"{SFT} --dataset_train_split '{split}'", "dataset_train_split"),
        (f"model_name_or_path: m\ndatasets:\n  - path: d\n    split: '{split}'\n", "datasets[0].split"),
        (f"{AXOLOTL}datasets:\n  - path: d\n    type: chat_template\n    split: '{split}'\n", "datasets[0].split"),
    )
    for text, key in texts:
        result = imported(text)
        found = line(result, key)
        assert (found.status, bool(found.why)) == (status, status != "mapped")
        (source,) = value(result, "data.train")
        assert {name: source[name] for name in ("split", "rows")} == {"rows": None, **expected}


@pytest.mark.parametrize(
    ("train", "test", "validation", "split", "status"),
    [
        ("train", "test", "d", "test", "mapped"), ("train", "test[:100]", "d", "test", "approximated"),
        ("train", "test[:10%]", "d", "test", "approximated"),
        ("train[:90%]", "train[90%:]", 0.1, "", "approximated"), ("train[:900]", "train[900:]", 0.0, "", "refused"),
        ("train", "train", "d", "train", "mapped"),
    ],
)  # fmt: skip
def test_validation_rows_are_a_whole_split_or_a_share_but_never_those_that_are_trained_on(
    train: str, test: str, validation: str | float, split: str, status: str
) -> None:
    found = held_out(test, "d", [split_of(train).of_set() | {"path": "d"}])
    assert (found.validation, found.split, found.status) == (validation, split, status)
    trl = imported(f"{SFT} --eval_strategy steps --dataset_train_split '{train}' --dataset_test_split '{test}'")
    entry = f"{{path: d, type: chat_template, split: '{train}'}}"
    axolotl = imported(f"{AXOLOTL}datasets: [{entry}]\ntest_datasets: [{{path: d, split: '{test}'}}]\n")
    for result, key in ((trl, "dataset_test_split"), (axolotl, "test_datasets")):
        assert line(result, key).status == status
        assert value(result, "data.validation") == validation
        if split:
            assert value(result, "data.validation_split") == split


@pytest.mark.parametrize(
    ("text", "key", "status", "path", "expected"),
    [
        # TRL.
        (f"{GRPO} --shuffle_dataset false", "shuffle_dataset", "mapped", "data.shuffle", False),
        (f"{GRPO} --use_bias_correction_kl false --beta 0.1", "use_bias_correction_kl", "refused", "", None),
        (f"{GRPO} --use_bias_correction_kl true", "use_bias_correction_kl", "ignored", "", None),
        (f"{SFT} --truncation_mode keep_end", "truncation_mode", "approximated", "", None),
        (f"{SFT} --truncation_mode keep_start", "truncation_mode", "ignored", "", None),
        (f"{SFT} --test_split_size 0.2", "test_split_size", "ignored", "data.validation", 0.0),
        ("python cpo.py --model_name_or_path m --dataset_name d --cpo_alpha 0", "cpo_alpha", "refused",
         "method.orpo_loss", "cpo"),
        ("python cpo.py --model_name_or_path m --dataset_name d --cpo_alpha 1", "cpo_alpha", "ignored", "", None),
        ("python cpo.py --model_name_or_path m --dataset_name d --label_smoothing 0.1", "label_smoothing", "refused",
         "", None),
        ("trl dpo --model_name_or_path m --dataset_name d --label_smoothing 0.1", "label_smoothing", "refused",
         "method.label_smoothing", 0.0),
        ("trl dpo --model_name_or_path m --dataset_name d --label_smoothing 0.1 --loss_type robust", "label_smoothing",
         "mapped", "method.label_smoothing", 0.1),
        # Axolotl.
        (f"{AXOLOTL}datasets: [{{path: d, type: chat_template, train_on_eos: none}}]\n", "datasets[0].train_on_eos",
         "refused", "", None),
        (f"{AXOLOTL}datasets: [{{path: d, type: chat_template, train_on_eot: none}}]\n", "datasets[0].train_on_eot",
         "refused", "", None),
        (f"{CHAT}save_strategy: false\n", "save_strategy", "approximated", "training.keep_checkpoints", "none"),
        (f"{CHAT}adapter: lora\nlora_r: 8\npeft_autocast_adapter_dtype: false\n", "peft_autocast_adapter_dtype",
         "approximated", "", None),
        (f"{CHAT}rl: grpo\ntrl: {{num_generations: 8, num_iterations: 1}}\n", "trl.num_iterations", "ignored", "",
         None),
        (f"{CHAT}rl: grpo\ntrl: {{num_generations: 8, use_bias_correction_kl: false}}\n", "trl.use_bias_correction_kl",
         "refused", "", None),
        (f"{AXOLOTL}rl: dpo\ntrl: {{beta: 0.3, use_vllm: false}}\n"
         "datasets: [{path: d, type: chat_template.default}]\n", "trl.beta", "mapped", "method.beta", 0.3),
        (f"{AXOLOTL}rl: dpo\ndpo_label_smoothing: 0.1\ndatasets: [{{path: d, type: chat_template.default}}]\n",
         "dpo_label_smoothing", "refused", "method.label_smoothing", 0.0),
        (f"{AXOLOTL}max_steps: 9\npretraining_sample_concatenation: false\npretraining_dataset: [{{path: d}}]\n",
         "pretraining_sample_concatenation", "approximated", "method.documents", "join"),
        # LLaMA-Factory.
        (f"{FACTORY}stage: kto\npref_ftx: 0.1\n", "pref_ftx", "refused", "", None),
        (f"{FACTORY}stage: sft\npref_ftx: 0.1\n", "pref_ftx", "ignored", "", None),
        (f"{FACTORY}stage: sft\nreport_to: none\n", "report_to", "mapped", "training.report_to", []),
        (f"{FACTORY}stage: sft\nreport_to: null\n", "report_to", "ignored", "training.report_to", []),
        (f"{FACTORY}stage: sft\nignore_pad_token_for_loss: false\n", "ignore_pad_token_for_loss", "refused", "", None),
        (f"{FACTORY}stage: sft\nignore_pad_token_for_loss: true\n", "ignore_pad_token_for_loss", "ignored", "", None),
        # ms-swift.
        ("swift sft --model m --dataset d --train_dataloader_shuffle false", "train_dataloader_shuffle",
         "approximated", "data.shuffle", True),
        ("swift sft --model m --dataset d --train_dataloader_shuffle false --dataset_shuffle false",
         "train_dataloader_shuffle", "mapped", "data.shuffle", False),
        ("swift sft --model m --dataset d --dataset_shuffle false", "dataset_shuffle", "ignored", "data.shuffle", True),
        (f"{SWIFT} --dataset_shuffle false", "dataset_shuffle", "mapped", "data.shuffle", False),
        ("swift rlhf --rlhf_type dpo --model m --dataset d --loss_type hinge --rpo_alpha 0.2", "rpo_alpha",
         "approximated", "method.dpo_loss", ["hinge", "sft"]),
        ("swift rlhf --rlhf_type dpo --model m --dataset d --rpo_alpha 0", "rpo_alpha", "ignored", "method.dpo_loss",
         ["sigmoid"]),
        ("swift sft --model m --dataset d --system prompts/maths.txt", "system", "refused", "data.system", None),
        (f"{SWIFT} --top_k -1", "top_k", "ignored", "", None),
    ],
)  # fmt: skip
def test_a_word_with_a_meaning_is_not_taken_for_nothing(
    text: str, key: str, status: str, path: str, expected: Any
) -> None:
    result = imported(text)
    found = line(result, key)
    assert (found.status, bool(found.why)) == (status, status not in ("mapped",))
    assert not path or value(result, path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SWIFT, {"method.grpo_loss": "grpo", "method.temperature": 0.9, "training.batch_size": 1}),
        (f"{SWIFT} --loss_type dapo --temperature 1", {"method.grpo_loss": "dapo", "method.temperature": 1.0}),
        ("swift rlhf --rlhf_type simpo --model m --dataset d", {"method.simpo_gamma": 1.0, "training.batch_size": 16}),
        ("swift rlhf --rlhf_type ppo --model m --dataset d --reward_model r",
         {"method.temperature": 0.9, "method.max_completion_length": 512}),
        ("NPROC_PER_NODE=4 swift sft --model m --dataset d --per_device_train_batch_size 3",
         {"training.batch_size": 24, "training.micro_batch_size": 3}),
        ("python ppo.py --model_name_or_path m --dataset_name d --reward_model_path r",
         {"method.temperature": 0.7, "method.max_completion_length": 53}),
        ("python ppo.py --model_name_or_path m --dataset_name d --reward_model_path r --response_length 80",
         {"method.max_completion_length": 80}),
        (GRPO, {"method.grpo_loss": "dapo", "method.temperature": 1.0, "method.max_completion_length": 512}),
    ],
)  # fmt: skip
def test_what_a_tool_takes_by_itself_is_its_own_not_the_one_of_trl(text: str, expected: dict[str, Any]) -> None:
    result = imported(text)
    assert {path: value(result, path) for path in expected} == expected
    keys = [one.key for one in result.report]
    assert len(keys) == len(set(keys))


def test_the_second_moment_of_ms_swift_is_said_where_it_is_not_given() -> None:
    assert line(imported("swift sft --model m --dataset d"), "adam_beta2").status == "approximated"
    assert line(imported("swift sft --model m --dataset d --adam_beta2 0.999"), "adam_beta2").status == "ignored"


def test_a_file_of_axolotl_says_no_without_quotes(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text(f"{CHAT}rl: grpo\ntrl: {{num_generations: 8, scale_rewards: off}}\n", encoding="utf-8")
    assert line(imported(f"axolotl train {file}"), "trl.scale_rewards").status == "refused"
    over = imported(f"axolotl train {file} --trl.scale-rewards true")
    assert line(over, "trl.scale_rewards").status == "ignored"
