"""Wrong asks: each is refused before anything is loaded, with a sentence that names the option and what to do."""

# ruff: noqa: E501  (a table of wrong asks reads best with one in a line)

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.jobs.store.folder import create_job
from studio.methods import METHODS
from studio.models.plan.fit import Lengths
from studio.settings import Settings
from studio.train import checks
from studio.train.preflight import named_paths
from tests.conftest import call_studio
from tests.models.checkpoints import write_safetensors

ROWS = Lengths(count=100, total_tokens=5000, max=60, supervised_tokens=2000, validation_count=0)


def asked(sets: dict[str, Any]) -> RunConfig:
    raw: dict[str, Any] = {}
    for path, value in sets.items():
        section, name = path.split(".")
        raw.setdefault(section, {})[name] = value
    return build(RunConfig, raw)


def refusals(
    sets: dict[str, Any], model: Path, settings: Settings, lengths: Lengths = ROWS, **raw: Any
) -> list[InputError]:
    """Errors of the schema, of the model's checks and of the method's, whichever come first."""
    try:
        config = asked(sets)
        known = replace(checks.Known.of(config, model, settings, **raw), lengths=lengths)
        checks.check_model(known)
        checks.check_method(known)
    except InputErrors as wrong:
        return list(wrong.errors)
    except InputError as error:
        return [error]
    return []


# (what is asked, the option that is named, a part of the sentence)
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"method.name": "dpq"}, "method.name", "should be"),
    ({"tuning.name": "lorra"}, "tuning.name", "should be"),
    ({"model.dtype": "float16"}, "model.dtype", "should be"),
    ({"training.optimizer": "muon"}, "training.optimizer", "should be"),
    ({"training.padding_free": True, "method.neftune_noise_alpha": 5}, "method.neftune_noise_alpha", "all examples of a micro-batch"),
    ({"training.scheduler": "reduce_lr_on_plateau"}, "training.scheduler", "should be"),
    ({"method.name": "dpo", "method.dpo_loss": "sigmoid, magic"}, "method.dpo_loss", "'magic' is not one of"),
    ({"method.name": "dpo", "method.dpo_loss": "sigmoid, sigmoid"}, "method.dpo_loss", "given once"),
    ({"method.name": "dpo", "method.dpo_loss_weights": "1, 2"}, "method", "2 weights for 1"),
    ({"method.name": "dpo", "method.dpo_loss_weights": "much"}, "method.dpo_loss_weights", "comma-separated numbers"),
    ({"method.name": "dpo", "method.dpo_loss_weights": 0}, "method.dpo_loss_weights", "at least one of them above"),
    ({"method.name": "dpo", "method.dpo_loss_weights": -1}, "method.dpo_loss_weights", "weights of 0 or more"),
    ({"method.name": "dpo", "method.dpo_loss_weights": []}, "method.dpo_loss_weights", "weights of 0 or more"),
    ({"method.name": "dpo", "method.dpo_loss_weights": "nan"}, "method.dpo_loss_weights", "finite number"),
    ({"method.name": "grpo", "method.reward_weights": [float("inf")]}, "method.reward_weights", "finite number"),
    ({"method.name": "ppo", "method.vf_coef": float("inf")}, "method.vf_coef", "finite number"),
    ({"tuning.alpha": float("nan")}, "tuning.alpha", "finite number"),
    ({"tuning.alpha_pattern": {"q_proj": float("nan")}}, "tuning.alpha_pattern", "finite number"),
    ({"tuning.rank": True}, "tuning.rank", "a number is needed"),
    ({"training.micro_batch_size": True}, "training.micro_batch_size", "a number is needed"),
    ({"method.reward_weights": [True]}, "method.reward_weights", "a number is needed"),
    ({"tuning.bits": 5}, "tuning.bits", "should be '4' or '8'"),
    ({"tuning.layers_to_transform": []}, "tuning.layers_to_transform", "at least one number, counted from 0"),
    ({"tuning.layers_to_transform": -1}, "tuning.layers_to_transform", "at least one number, counted from 0"),
    ({"method.name": "dpo", "method.beta": 0}, "method.beta", "have no effect"),
    ({"method.name": "kto", "method.beta": -1}, "method.beta", "from 0 to 100"),
    ({"method.name": "dpo", "method.dpo_loss": "exo_pair"}, "method.label_smoothing", "needs label smoothing"),
    ({"method.name": "dpo", "method.dpo_loss": "sft"}, "method.dpo_loss", "ignores the rejected"),
    ({"method.name": "kto", "training.batch_size": 1}, "training.batch_size", "a batch of one is not enough"),
    ({"method.name": "kto", "training.micro_batch_size": 1}, "training.micro_batch_size", "a batch of one"),
    ({"training.micro_batch_size": 3, "training.batch_size": 8}, "", "does not divide"),
    ({"method.name": "grpo", "method.rewards": "json", "training.batch_size": 6}, "training.batch_size", "the group size 4"),
    ({"method.name": "grpo", "method.rewards": "json", "method.num_generations": 1}, "method.num_generations", "greater"),
    ({"method.name": "grpo", "method.rewards": "praise"}, "method.rewards", "'praise' is not one of"),
    ({"method.name": "grpo", "method.rewards": ""}, "method.rewards", "at least one"),
    ({"method.name": "grpo", "method.rewards": "json", "method.reward_weights": "0"}, "method.reward_weights", "all weights are 0"),
    ({"method.name": "grpo", "method.rewards": "regex"}, "method.reward_pattern", "needs a pattern"),
    ({"method.name": "grpo", "method.rewards": "regex", "method.reward_pattern": "("}, "method.reward_pattern", "not a regular expression"),
    ({"method.name": "ppo", "method.rewards": "length"}, "method.reward_length", "needs a number"),
    ({"method.name": "ppo", "method.rewards": "model"}, "method.reward_model", "no reward model is set"),
    ({"method.name": "ppo", "method.rewards": "model", "method.reward_model": "nobody"}, "method.reward_model", "no run or folder 'nobody'"),
    ({"method.name": "grpo", "method.rewards": "json", "method.reward_schema": "/no/file.json"}, "method.reward_schema", "not a JSON Schema"),
    ({"method.name": "grpo", "method.rewards": "python"}, "method.reward_python", "no Python reward is set"),
    ({"method.name": "grpo", "method.rewards": "python", "method.reward_python": "score"}, "method.reward_python", "not FILE.py:FUNCTION"),
    ({"method.name": "grpo", "method.rewards": "python", "method.reward_python": "/no/r.py:f"}, "method.reward_python", "cannot be read"),
    ({"method.name": "ppo", "method.rewards": "json", "method.kl_coef": 0, "method.kl_target": 6}, "method.kl_coef", "cannot start at 0"),
    ({"training.engine": "unsloth"}, "training.engine", "needs an NVIDIA GPU"),
    ({"training.engine": "unsloth", "tuning.name": "full"}, "training.engine", "does not train sft with full"),
    ({"training.activation_offloading": True}, "training.activation_offloading", "this run computes on a CPU"),
    ({"model.attention": "flash_attention_2"}, "model.attention", "needs an NVIDIA GPU"),
    ({"model.attention": "flash_attention_3"}, "model.attention", "needs an NVIDIA GPU"),
    ({"model.attention": "flex_attention"}, "model.attention", "needs an NVIDIA GPU"),
    ({"tuning.rank": 200}, "tuning.rank", "would save nothing"),
    ({"tuning.rank": 0}, "tuning.rank", "greater"),
    ({"tuning.alpha": -1}, "tuning.alpha", "above 0"),
    ({"tuning.target_modules": "q_projj"}, "tuning.target_modules", "no linear layer named 'q_projj'"),
    ({"tuning.target_modules": "lm_head"}, "tuning.target_modules", "head or embedding, which shares"),
    ({"tuning.target_modules": "embed_tokens"}, "tuning.target_modules", "head or embedding"),
    ({"tuning.rank_pattern": "q_projj=8"}, "tuning.rank_pattern", "no adapted layer 'q_projj'"),
    ({"tuning.rank_pattern": "q_proj"}, "tuning.rank_pattern", "layer=number"),
    ({"tuning.alpha_pattern": "q_proj=0"}, "tuning.alpha_pattern", "q_proj has 0"),
    ({"tuning.layers_to_transform": "0-99"}, "tuning.layers_to_transform", "there is no block 99"),
    ({"tuning.layers_to_transform": "last"}, "tuning.layers_to_transform", "numbers (from 0) and ranges"),
    ({"tuning.modules_to_save": "lm_haed"}, "tuning.modules_to_save", "no layer 'lm_haed'"),
    ({"tuning.target_modules": "q_proj", "tuning.modules_to_save": "q_proj"}, "tuning.modules_to_save", "is in both"),
    ({"tuning.name": "qlora", "tuning.dora": True, "tuning.bits": "8"}, "tuning.dora", "over 8-bit weights fails"),
    ({"tuning.name": "dora", "tuning.init": "pissa"}, "tuning.init", "DoRA depends on their magnitude"),
    ({"tuning.init": "olora", "tuning.rslora": True}, "tuning.init", "together with rslora"),
    ({"tuning.rank_pattern": {"q_proj(": 8}}, "tuning.rank_pattern", "not a regular expression"),
    ({"tuning.alpha_pattern": {"*": 8}}, "tuning.alpha_pattern", "not a regular expression"),
    ({"tuning.rank_pattern": "q_proj=5000"}, "tuning.rank_pattern", "would save nothing"),
    ({"tuning.rank_pattern": "q_proj=8", "tuning.target_modules": "v_proj"}, "tuning.rank_pattern", "no adapted layer"),
    ({"tuning.rank_pattern": "layers.1.self_attn.q_proj=8", "tuning.layers_to_transform": "0"}, "tuning.rank_pattern", "no adapted layer"),
    ({"tuning.layers_to_transform": []}, "tuning.layers_to_transform", "at least one number, counted from 0"),
    ({"tuning.layers_to_transform": [-1]}, "tuning.layers_to_transform", "at least one number, counted from 0"),
    ({"tuning.init": "orthogonal", "tuning.rank": 5}, "tuning.rank", "5 is odd"),
    ({"method.name": "reward", "tuning.modules_to_save": "lm_head"}, "tuning.modules_to_save", "a reward model has no 'lm_head'"),
    ({"tuning.name": "full", "tuning.adapter": "nobody"}, "tuning.adapter", "cannot continue an adapter"),
    ({"tuning.name": "qlora", "tuning.adapter": "nobody", "tuning.merge_adapter": True}, "tuning.merge_adapter", "merged into unquantized weights"),
    ({"tuning.merge_adapter": True}, "tuning.merge_adapter", "no adapter to merge"),
    ({"tuning.adapter": "nobody"}, "tuning.adapter", "no run or folder 'nobody'"),
    ({"tuning.lora_plus_ratio": 16, "training.optimizer": "sgd"}, "tuning.lora_plus_ratio", "needs AdamW"),
    ({"tuning.lora_plus_ratio": 0.5}, "tuning.lora_plus_ratio", "greater"),
    ({"model.rope_factor": 1}, "model.rope_factor", "greater"),
    ({"data.max_length": 8193}, "data.max_length", "rows of up to 8,193 tokens are allowed, but the model's context length is 8,192"),
    ({"data.max_length": 16385, "model.rope_scaling": "yarn", "model.rope_factor": 2}, "data.max_length", "context length is 16,384"),
    ({"training.learning_rate": 2}, "training.learning_rate", "above 0 and at most 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sets", "option", "part"), WRONG, ids=lambda value: None if isinstance(value, dict) else value
)
def test_a_wrong_ask_is_refused_with_the_option(sets, option, part, model_path, session_settings) -> None:
    errors = refusals(sets, model_path, session_settings)
    assert errors, "it was accepted"
    said = " | ".join(error.sentence for error in errors)
    assert part in said
    assert option in " ".join(error.where for error in errors)


@pytest.mark.parametrize(
    ("sets", "lengths", "raw", "option", "part"),
    [
        ({"method.name": "kto"}, Lengths(9, 90, 10, 40, good=9), {}, "data.train", "all 9 answers are labeled good"),
        ({"method.name": "kto"}, Lengths(9, 90, 10, 40, good=0), {}, "data.train", "labeled bad"),
        ({"method.name": "grpo"}, Lengths(9, 90, 10, 0, answered=4), {}, "method.rewards", "5 of 9 rows have no expected answer"),
        ({"method.name": "grpo", "method.rewards": "json", "training.batch_size": 64}, Lengths(9, 90, 10, 0), {}, "training.batch_size", "needs 16 prompts, but the data has 9"),
        ({}, Lengths(9, 90_000, 9000, 40), {}, "data.max_length", "the model's context length is 8,192"),
        ({"method.name": "grpo", "method.rewards": "json", "method.max_completion_length": 9000}, ROWS, {}, "method.max_completion_length", "completions up to 9,000"),
        ({}, ROWS, {"architectures": ["LlamaForSequenceClassification"]}, "model.path", "scores text and cannot generate"),
        ({}, ROWS, {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "model.path", "encoder-decoder"),
        *(
            ({}, ROWS, {"architectures": [name]}, "model.path", f"{name} is not a causal language model")
            for name in ("BertForMaskedLM", "BertForPreTraining", "LlamaForTokenClassification", "ViTForImageClassification")
        ),
        ({}, ROWS, {"architectures": ["BertLMHeadModel"], "model_type": "bert"}, "model.path", "not a causal language model"),
        ({}, ROWS, {"architectures": [], "model_type": "bert"}, "model.path", "bert is not a causal language model"),
        ({}, ROWS, {"architectures": None, "model_type": "vit"}, "model.path", "has no architectures"),
        ({}, ROWS, {"model_type": "llamma9"}, "model.path", "does not support the model type 'llamma9'"),
        ({}, ROWS, {"model_type": None}, "model.path", "has no model_type"),
        ({}, ROWS, {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own"}}, "model.trust_remote_code", "run their own code"),
        ({}, ROWS, {"num_attention_heads": 0}, "model.path", "num_attention_heads 0"),
        ({}, ROWS, {"vocab_size": 2000}, "model.path", "has vocab_size 2,000, but the embedding in the weight files has 49,152"),
        ({}, ROWS, {"hidden_size": 64}, "model.path", "has hidden_size 64"),
        ({}, ROWS, {"num_hidden_layers": 32}, "model.path", "there is no block 30"),
        ({"tuning.name": "full"}, ROWS, {"quantization_config": {"quant_method": "awq"}}, "model.path", "already quantized (awq)"),
        ({"model.rope_scaling": "yarn"}, ROWS, {"model_type": "phi3"}, "model.rope_scaling", "longrope"),
        ({"tuning.name": "qlora"}, ROWS, {"quantization_config": {"quant_method": "gptq"}}, "model.path", "already quantized (gptq)"),
        ({"model.rope_scaling": "yarn"}, ROWS, {"rope_parameters": None, "rope_theta": None}, "model.rope_scaling", "no rotary position embeddings"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_model_or_data_cannot_do(sets, lengths, raw, option, part, model_path, session_settings) -> None:
    errors = refusals(sets, model_path, session_settings, lengths, **raw)
    assert part in " | ".join(error.sentence for error in errors)
    assert option in " ".join(error.where for error in errors)


def test_what_several_checks_stumble_over_is_said_once(model_path, session_settings) -> None:
    sets = {"tuning.target_modules": "q_projj", "tuning.init": "pissa"}
    assert [error.where for error in refusals(sets, model_path, session_settings)] == ["tuning.target_modules"]


def test_a_validation_row_must_fit_too(model_path, session_settings) -> None:
    known = replace(
        checks.Known.of(asked({}), model_path, session_settings), lengths=replace(ROWS, validation_max=9000)
    )
    with pytest.raises(InputError, match=r"longest example of the validation data has 9,000 tokens"):
        checks.check_method(known)


def test_a_missing_package_is_named_with_its_line(model_path, session_settings, monkeypatch) -> None:
    for module in (checks.weights, checks.method):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    (error,) = refusals({"tuning.name": "qlora"}, model_path, session_settings)
    assert "pip install bitsandbytes" in error.sentence
    (error,) = refusals({"training.optimizer": "paged_adamw_8bit"}, model_path, session_settings)
    assert error.where == "training.optimizer"


def test_rewards_that_are_files(model_path, session_settings, tmp_path) -> None:
    good = tmp_path / "good.py"
    good.write_text("def score(prompts, completions, **columns):\n    return [0.0] * len(completions)\n")
    sets = {"method.name": "grpo", "method.rewards": "python", "method.reward_python": f"{good}:score"}
    (error,) = refusals(sets, model_path, session_settings)
    assert error.where == "method.trust_reward_code"
    assert refusals(sets | {"method.trust_reward_code": True}, model_path, session_settings) == []
    (error,) = refusals(sets | {"method.reward_python": f"{good}:other"}, model_path, session_settings)
    assert "the file has: score" in error.sentence
    good.write_text("def score(:\n")
    (error,) = refusals(sets, model_path, session_settings)
    assert "not valid Python" in error.sentence
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "objekt"}')
    sets = {"method.name": "grpo", "method.rewards": "json", "method.reward_schema": str(schema)}
    (error,) = refusals(sets, model_path, session_settings)
    assert "not a JSON Schema" in error.sentence


def test_a_run_that_is_named_must_be_of_the_right_kind(model_path, settings, tmp_path) -> None:
    run = create_job(settings.jobs, "train", "writer", RunConfig().model_dump(mode="json"))
    wanted = {"method.name": "ppo", "method.rewards": "model", "method.reward_model": "writer"}
    (error,) = refusals(wanted, model_path, settings)
    assert "has saved no model" in error.sentence
    run.model.mkdir(parents=True, exist_ok=True)
    shutil.copy(model_path / "config.json", run.model / "config.json")
    (error,) = refusals(wanted, model_path, settings)
    assert "is a generative model" in error.sentence
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "target_modules": ["q_proj"], "r": 4}
    (run.model / "adapter_config.json").write_text(json.dumps(config))
    shapes = {"q_proj.lora_A": (4, 576), "q_proj.lora_B": (576, 4)}
    write_safetensors(run.model / "adapter_model.safetensors", {
        **{f"base_model.model.model.layers.0.self_attn.{name}.weight": sides for name, sides in shapes.items()},
        "base_model.model.score.weight": (1, 576),
    })  # fmt: skip
    assert refusals(wanted, model_path, settings) == []
    (error,) = refusals({"tuning.adapter": "writer"}, model_path, settings)
    assert "a reward-model adapter" in error.sentence
    (run.model / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    (error,) = refusals(wanted, model_path, settings)
    assert "lacks model.layers.0.self_attn.q_proj" in error.sentence


def test_the_page_confines_every_path_and_no_name_of_a_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = asked(
        {
            "method.name": "grpo", "method.rewards": "python, json", "method.reward_python": "rewards.py:score",
            "method.reward_schema": "schema.json", "method.reward_model": "judge", "tuning.adapter": "/somewhere/else",
        }
    )  # fmt: skip
    wanted = {
        "tuning.adapter": Path("/somewhere/else"),
        "method.reward_schema": tmp_path / "schema.json",
        "method.reward_python": tmp_path / "rewards.py",
    }
    assert named_paths(config) == wanted, "a bare file name is a file of the server's folder"


def test_every_cell_of_the_matrix_is_accepted(model_path, session_settings) -> None:
    for method in METHODS:
        for tuning in ("full", "lora", "qlora", "dora"):
            sets = {"method.name": method, "tuning.name": tuning, "method.rewards": "json"}
            assert refusals(sets, model_path, session_settings) == [], (method, tuning)


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_lora_plus_takes_every_adamw(optimizer, model_path, session_settings) -> None:
    assert refusals({"tuning.lora_plus_ratio": 16, "training.optimizer": optimizer}, model_path, session_settings) == []


def test_the_command_line_refuses_before_a_job_is_made(session_home, model_path, tmp_path) -> None:
    file = tmp_path / "plain.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    run = tmp_path / "run.yaml"
    run.write_text(f"data: {{train: [{{path: {file}}}]}}\nmethod: {{name: dpo}}\n")
    before = sorted((session_home / "jobs").glob("*")) if (session_home / "jobs").exists() else []
    done = call_studio("train", str(run), home=session_home)
    assert done.code == 2
    assert "plain.jsonl" in done.stderr and "a pair needs the keys chosen and rejected" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted((session_home / "jobs").glob("*")) == before
