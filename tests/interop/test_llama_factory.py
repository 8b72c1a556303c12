"""LLaMA-Factory's configs as runs: what each key becomes, with its defaults, its datasets and its odd values.

The configs are our own, in the style of its examples.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.config.load import build
from studio.errors import InputError
from studio.interop.llama_factory.keys import KEYS, NAMES, SAID
from studio.interop.reading import read_file, read_given, read_text
from studio.interop.report import Imported
from studio.interop.tools import import_given

BASE = {"model_name_or_path": "org/model", "stage": "sft", "do_train": True, "dataset": "mine"}


def imported(**keys: Any) -> Imported:
    return import_given(read_text(json.dumps({**BASE, **keys})))


def option(found: Imported, path: str) -> Any:
    section, _, name = path.partition(".")
    return found.run.get(section, {}).get(name)


def status(found: Imported, key: str) -> str:
    (line,) = [line for line in found.report if line.key == key]
    return line.status


def test_every_rule_leads_to_an_option_and_every_reason_is_part_of_a_sentence() -> None:
    options = {spec.path for spec in options_of(RunConfig)}
    for rule in KEYS.values():
        assert not rule.to or rule.to in options, rule.key
        assert rule.to or rule.why or rule.instead, rule.key
        assert not rule.why.endswith("."), rule.key
        assert not rule.why or rule.why[0].isupper() or rule.why.startswith("bitsandbytes"), rule.key
    assert not set(SAID) & KEYS.keys()


@pytest.mark.long
def test_every_key_of_the_installed_training_arguments_is_known() -> None:
    from dataclasses import fields

    from transformers import Seq2SeqTrainingArguments

    assert {field.name for field in fields(Seq2SeqTrainingArguments)} - NAMES == set()


@pytest.mark.parametrize(
    ("keys", "path", "value"),
    [
        ({}, "model.path", "org/model"),
        ({}, "tuning.name", "lora"),
        ({}, "tuning.rank", 8),
        ({}, "data.max_length", 2048),
        ({}, "data.truncation", "cut"),
        ({}, "data.validation", 0),
        ({}, "training.epochs", 3.0),
        ({}, "training.learning_rate", 5e-5),
        ({}, "training.scheduler", "linear"),
        ({}, "training.warmup", 0.0),
        ({}, "training.batch_size", 8),
        ({}, "training.activation_checkpointing", True),
        ({"disable_gradient_checkpointing": "true"}, "training.activation_checkpointing", False),
        ({"use_unsloth_gc": "true"}, "training.activation_offloading", True),
        ({"learning_rate": "1e-4"}, "training.learning_rate", 1e-4),
        ({"per_device_train_batch_size": "2", "gradient_accumulation_steps": 8}, "training.batch_size", 16),
        ({"per_device_train_batch_size": 2}, "training.micro_batch_size", 2),
        ({"lora_rank": "32", "lora_alpha": 0}, "tuning.alpha", "auto"),
        ({"lora_target": "all"}, "tuning.target_modules", "all-linear"),
        ({"lora_target": "q_proj, v_proj"}, "tuning.target_modules", ["q_proj", "v_proj"]),
        ({"use_dora": True}, "tuning.name", "dora"),
        ({"use_rslora": "yes"}, "tuning.rslora", True),
        ({"quantization_bit": 4}, "tuning.name", "qlora"),
        ({"quantization_bit": 8}, "tuning.bits", "8"),
        ({"quantization_bit": 4, "use_dora": True}, "tuning.dora", True),
        ({"loraplus_lr_ratio": "16.0"}, "tuning.lora_plus_ratio", 16),
        ({"pissa_init": True, "pissa_iter": -1}, "tuning.init", "pissa"),
        ({"finetuning_type": "full"}, "tuning.name", "full"),
        ({"adapter_name_or_path": "saves/a"}, "tuning.adapter", "saves/a"),
        ({"adapter_name_or_path": "saves/a", "create_new_adapter": True}, "tuning.merge_adapter", True),
        ({"additional_target": "embed_tokens,lm_head"}, "tuning.modules_to_save", ["embed_tokens", "lm_head"]),
        ({"stage": "pt"}, "method.name", "pretrain"),
        ({"stage": "pt"}, "method.documents", "join"),
        ({"stage": "pt", "packing": False}, "method.documents", "separate"),
        ({"stage": "rm"}, "method.name", "reward"),
        ({"stage": "dpo", "pref_loss": "hinge"}, "method.dpo_loss", ["hinge"]),
        ({"stage": "dpo", "pref_ftx": 0.5}, "method.dpo_loss_weights", [1.0, 0.5]),
        ({"stage": "dpo", "pref_loss": "orpo"}, "method.name", "orpo"),
        ({"stage": "dpo", "pref_loss": "simpo"}, "method.beta", 0.1),
        ({"stage": "dpo", "pref_loss": "simpo", "simpo_gamma": "0.7"}, "method.simpo_gamma", 0.7),
        ({"stage": "kto", "kto_chosen_weight": 1.5}, "method.desirable_weight", 1.5),
        ({"stage": "ppo", "reward_model": "saves/rm"}, "method.reward_model", "saves/rm"),
        ({"stage": "ppo", "reward_model": "saves/rm"}, "method.max_completion_length", 1024),
        ({"stage": "ppo", "reward_model": "a", "ppo_buffer_size": 4}, "training.batch_size", 32),
        ({}, "method.train_on", "turns"),
        ({"train_on_prompt": True}, "method.train_on", "all"),
        ({"mask_history": True}, "method.train_on", "last"),
        ({"use_dft_loss": True}, "method.loss", "dft"),
        ({"neat_packing": True}, "training.padding_free", True),
        ({"bf16": "on"}, "model.dtype", "bfloat16"),
        ({"flash_attn": "fa2"}, "model.attention", "flash_attention_2"),
        ({"flash_attn": "disabled"}, "model.attention", "eager"),
        ({"val_size": 0.1}, "data.validation", 0.1),
        ({"max_samples": 100, "val_size": 10}, "data.validation", 0.1),
        ({"warmup_steps": 20, "max_steps": 200}, "training.warmup", 0.1),
        ({"max_steps": -1}, "training.max_steps", None),
        ({"optim": "adamw_bnb_8bit"}, "training.optimizer", "adamw_8bit"),
        ({"report_to": []}, "training.report_to", []),
        ({"report_to": ["wandb", "tensorboard"]}, "training.report_to", ["wandb", "tensorboard"]),
        ({"metric_for_best_model": "loss"}, "training.metric_for_best_model", "eval_loss"),
        ({"save_strategy": "epoch", "save_steps": 100}, "training.save_steps", "auto"),
        ({"disable_shuffling": True}, "data.shuffle", False),
        ({"template": "chatml"}, "data.template", "chatml"),
        ({"template": "smollm2"}, "data.system",
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face."),
        ({"template": "smollm2", "default_system": "Be brief."}, "data.system", "Be brief."),
        ({"template": "smollm2", "default_system": ""}, "data.system", None),
        ({"mix_strategy": "interleave_over"}, "data.stopping_strategy", "all_exhausted"),
        ({"dataset": "a,b", "mix_strategy": "interleave_under", "interleave_probs": "0.7, 0.3"}, "data.train", [
            {"path": "data/dataset_info.json:a", "weight": 0.7}, {"path": "data/dataset_info.json:b", "weight": 0.3}]),
        ({"dataset": "org/set", "dataset_dir": "ONLINE"}, "data.train", [{"path": "org/set"}]),
        ({"use_cpu": True}, "training.device", "cpu"),
        ({"use_cpu": True}, "model.dtype", "float32"),
        ({"use_cpu": True, "bf16": True}, "model.dtype", "bfloat16"),
        ({"finetuning_type": "full"}, "model.dtype", "float32"),
        ({"finetuning_type": "full", "bf16": False}, "model.dtype", "float32"),
        ({"finetuning_type": "full", "bf16": True}, "model.dtype", "bfloat16"),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
            "training.scheduler", "cosine_with_min_lr"),
    ],
)  # fmt: skip
def test_what_a_key_becomes(keys: dict[str, Any], path: str, value: Any) -> None:
    found = imported(**keys)
    assert option(found, path) == value
    assert not {line.key for line in found.report if line.status in ("unknown", "refused")}
    build(RunConfig, found.run)


@pytest.mark.parametrize(
    ("keys", "key", "what"),
    [
        ({"finetuning_type": "freeze"}, "finetuning_type", "refused"),
        ({"finetuning_type": "oft"}, "finetuning_type", "refused"),
        ({"use_galore": True}, "use_galore", "refused"),
        ({"use_galore": "false"}, "use_galore", "ignored"),
        ({"stage": "dpo", "pref_loss": "kto_pair"}, "pref_loss", "refused"),
        ({"dpo_label_smoothing": "0.0"}, "dpo_label_smoothing", "ignored"),
        ({"quantization_bit": 4, "additional_target": "lm_head"}, "additional_target", "refused"),
        ({"use_dora": True, "loraplus_lr_ratio": 16}, "loraplus_lr_ratio", "refused"),
        ({"quantization_bit": 3}, "quantization_bit", "refused"),
        ({"finetuning_type": "full", "lora_rank": 8}, "lora_rank", "ignored"),
        ({"trust_remote_code": True}, "trust_remote_code", "ignored"),
        ({"template": "qwen3_nothink"}, "template", "approximated"),
        ({"fp16": True}, "fp16", "approximated"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type", "refused"),
        ({"lr_scheduler_kwargs": '{"min_lr_rate": 0.2}'}, "lr_scheduler_kwargs", "refused"),
        ({"mask_history": True}, "mask_history", "approximated"),
        ({"stage": "dpo", "train_on_prompt": True}, "train_on_prompt", "ignored"),
        ({"adam_beta2": 0.95}, "adam_beta2", "refused"),
        ({"adam_beta2": "0.999"}, "adam_beta2", "ignored"),
        ({"ref_model": "other"}, "ref_model", "refused"),
        ({"stage": "dpo", "ref_model": "org/model"}, "ref_model", "ignored"),
        ({"report_to": "swanlab"}, "report_to", "refused"),
        ({"resume_from_checkpoint": None}, "resume_from_checkpoint", "ignored"),
        ({"lora_rnak": 8}, "lora_rnak", "unknown"),
        ({"deepspeed": {"optimizer": {}}}, "deepspeed.optimizer", "refused"),
        ({"warmup_steps": 20}, "warmup_steps", "approximated"),
        ({"streaming": True}, "streaming", "ignored"),
    ],
)  # fmt: skip
def test_what_is_not_the_same_is_said(keys: dict[str, Any], key: str, what: str) -> None:
    found = imported(**keys)
    assert status(found, key) == what
    assert next(line.why for line in found.report if line.key == key)
    assert set(keys) <= {line.key for line in found.report}, "a key was left out silently"


@pytest.mark.parametrize("stage", [1, "3", None, [], True])
def test_what_divides_a_run_there_is_named_with_its_option_here(stage: Any) -> None:
    found = imported(deepspeed={"zero_optimization": {"stage": stage}})
    (why,) = (line.why for line in found.report if line.key == "deepspeed")
    assert "training.devices" in why
    assert (f"Its stage is training.parallel: zero{stage}" in why) == (stage in (1, "3") and stage is not True)


def test_an_unknown_key_is_told_its_neighbour_and_a_default_where_it_came_from() -> None:
    found = imported(lora_rnak=8)
    lines = {line.key: line for line in found.report}
    assert lines["lora_rnak"].why == "LLaMA-Factory has no such key. Did you mean 'lora_rank'?"
    assert lines["cutoff_len"].line == 0
    assert "default of LLaMA-Factory is 2048" in lines["cutoff_len"].why


def test_wrong_values_are_named_with_their_line() -> None:
    text = "model_name_or_path: a/b\nstage: sft\ndataset: x\nlearning_rate: fast\n"
    for old, new, said in (
        ("", "", "the text, line 4: learning_rate: a number is needed (it is 'fast')"),
        ("learning_rate: fast", "lora_dropout: 3", "the text, line 4: lora_dropout (tuning.dropout): input should be"),
        ("learning_rate: fast", "bf16: maybe", "the text, line 4: bf16: true or false is needed"),
        ("learning_rate: fast", "lr_scheduler_kwargs: fast", "line 4: lr_scheduler_kwargs: a mapping of settings"),
        ("stage: sft", "stage: sftt", "the text, line 2: stage: one of pt, sft, rm, ppo, dpo, kto is needed"),
        ("learning_rate: fast", "learning_rate: .inf", "the text, line 4: learning_rate: a finite number is needed"),
    ):
        with pytest.raises(InputError) as wrong:
            import_given(read_text(text.replace(old, new) if old else text))
        assert said in wrong.value.sentence


def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "examples").mkdir()
    rows = [{"instruction": f"{n} + 1?", "output": f"{n + 1}"} for n in range(30)]
    (tmp_path / "data" / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    info = {
        "mine": {"file_name": "rows.json"}, "small": {"file_name": "rows.json", "num_samples": 5},
        "seen": {"file_name": "rows.json", "columns": {"prompt": "instruction", "images": "pictures"}},
    }  # fmt: skip
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return tmp_path / "examples"


def test_datasets_are_found_beside_the_config_and_limited_where_they_are_longer(tmp_path) -> None:
    where = folder(tmp_path)
    info = tmp_path / "data" / "dataset_info.json"
    file = where / "run.yaml"
    file.write_text("model_name_or_path: a/b\nstage: sft\ndataset: mine, small\nmax_samples: 10\n", encoding="utf-8")
    found = import_given(read_file(file))
    assert option(found, "data.train") == [{"path": f"{info}:mine", "rows": 10}, {"path": f"{info}:small"}]
    assert status(found, "dataset") == "mapped"
    file.write_text(file.read_text().replace("mine, small", "seen"), encoding="utf-8")
    (line,) = [line for line in import_given(read_file(file)).report if line.key == "dataset"]
    assert (line.status, line.line) == ("refused", 3)
    assert "images are not supported" in line.why


def test_a_command_reads_the_file_that_it_names_and_its_own_values_win(tmp_path, monkeypatch) -> None:
    where = folder(tmp_path)
    (where / "run.yaml").write_text("model_name_or_path: a/b\nstage: sft\ndataset: mine\nseed: 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = import_given(read_given("llamafactory-cli train examples/run.yaml seed=7 learning_rate=1e-5"))
    assert (option(found, "training.seed"), option(found, "training.learning_rate")) == (7, 1e-5)
    assert option(found, "data.train") == [{"path": f"{tmp_path / 'data' / 'dataset_info.json'}:mine"}]
    with pytest.raises(InputError, match="which is not here"):
        import_given(read_given("llamafactory-cli train examples/none.yaml"))
    # What a browser sends reads no file of this machine.
    with pytest.raises(InputError, match="which is not here"):
        import_given(read_text("llamafactory-cli train examples/run.yaml"))


def test_processes_of_a_launcher_make_the_batch_larger_and_flags_can_be_turned_off() -> None:
    line = (
        "FORCE_TORCHRUN=1 torchrun --nproc_per_node 4 src/train.py --stage sft --model_name_or_path a/b --do_train "
        "--dataset x --per_device_train_batch_size 2 --quantization_bit 4 --no_double_quantization --template qwen"
    )
    found = import_given(read_text(line))
    assert option(found, "training.batch_size") == 8
    assert option(found, "tuning.double_quant") is False
    two = import_given(read_text("CUDA_VISIBLE_DEVICES=0,1 llamafactory-cli train --stage sft --dataset x "
                                 "--model_name_or_path a/b --per_device_train_batch_size 2"))  # fmt: skip
    assert option(two, "training.batch_size") == 4


@pytest.mark.parametrize("start", ["llamafactory-cli export ", "python src/export_model.py ", ""])
def test_a_merge_becomes_an_export(start: str) -> None:
    keys = {
        "model_name_or_path": "a/b", "adapter_name_or_path": "saves/x", "template": "qwen", "export_dir": "out/merged",
        "export_size": 5, "export_device": "cpu", "export_legacy_format": "false", "export_hub_model_id": "me/mine",
    }  # fmt: skip
    text = start + " ".join(f"--{key} {value}" for key, value in keys.items()) if start else json.dumps(keys)
    found = import_given(read_text(text))
    assert found.run == {}
    assert found.exports == [
        {"to": "folder", "what": "merged", "path": "out/merged"}, {"to": "hub", "what": "merged", "repo": "me/mine"},
    ]  # fmt: skip
    assert {line.key for line in found.report} == set(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_name_or_path: a/b\ntemplate: qwen\ninfer_backend: vllm", "neither trains nor exports"),
        ("stage: sft\ndataset: a", "model_name_or_path is missing"),
        ("model: a/b\nmodel_class: llm\ntrain_dataset: rows.yaml\ncutoff_len: 64\nlearning_rate: 1e-4", "(v1)"),
        ("model:\n  path: a\ntraining:\n  epochs: 1", "this is a run of the studio already"),
        ("colour: red\nsize: 3", "its keys (colour, size) are not those of"),
        ("rm -rf /tmp/x --force", "'rm' is not a command of"),
        ("from trl import SFTTrainer\n", "this is a Python script"),
    ],
)
def test_what_is_no_config_of_a_training(text: str, said: str) -> None:
    with pytest.raises(InputError) as wrong:
        import_given(read_text(text))
    assert said in wrong.value.sentence


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=8), st.just(10**30),
    st.lists(st.text(max_size=3), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted(NAMES)), ODD, max_size=6))
def test_no_value_of_a_known_key_is_more_than_a_sentence(keys: dict[str, Any]) -> None:
    try:
        found = imported(**keys)
    except InputError as wrong:
        assert wrong.sentence
    else:
        assert set(keys) <= {line.key for line in found.report}, "a key was left out silently"
        build(RunConfig, found.run)
