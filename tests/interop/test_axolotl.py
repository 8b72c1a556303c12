"""Axolotl's configs as runs: what each key becomes, which tokens are trained, and nothing that is left out silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given as given_these
from hypothesis import settings as examples

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare.pipeline import prepare_data
from studio.errors import InputError
from studio.interop.axolotl import TOOL
from studio.interop.reading import read_text
from studio.interop.report import Imported
from studio.interop.tools import detect, import_given
from studio.settings import Settings

LEAST = "base_model: org/model\nlearning_rate: 2e-5\nmicro_batch_size: 2\ngradient_accumulation_steps: 4\n"
SETS = "datasets:\n  - path: org/rows\n    type: chat_template\n"
# A config as people write them; in its style, not one of theirs.
QLORA = """\
base_model: org/model-8b
model_type: LlamaForCausalLM
tokenizer_type: AutoTokenizer
load_in_8bit: false
load_in_4bit: true
datasets:
  - path: data/talk.jsonl
    type: chat_template
    field_messages: conversations
    message_property_mappings:
      role: from
      content: value
    roles: {user: [human], assistant: [gpt, agent]}
  - path: org/alpaca
    type: alpaca
    split: train[:500]
dataset_prepared_path: last_run_prepared
val_set_size: 0.05
output_dir: ./out
adapter: qlora
lora_model_dir:
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
optimizer: paged_adamw_32bit
lr_scheduler: cosine
learning_rate: 2e-4
bf16: auto
tf32: false
gradient_checkpointing: true
logging_steps: 1
attn_implementation: flash_attention_2
warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
deepspeed: ds.json
special_tokens:
  pad_token: <|end_of_text|>
"""


def imported(text: str) -> Imported:
    return import_given(read_text(text))


def status(result: Imported, key: str) -> str:
    (line,) = [one for one in result.report if one.key == key]
    return line.status


def test_a_whole_config_becomes_a_run_and_says_what_became_of_each_key() -> None:
    result = imported(QLORA)
    assert result.tool == "Axolotl"
    expected = {
        "model": {"path": "org/model-8b", "attention": "flash_attention_2"},
        "data": {
            "train": [
                {
                    "path": "data/talk.jsonl", "format": "messages", "columns": {"messages": "conversations"},
                    "tags": {"role": "from", "content": "value", "assistant": "agent"},
                },
                {
                    "path": "org/alpaca", "split": "train", "rows": 500, "format": "prompt_completion",
                    "reading": "raw", "columns": result.run["data"]["train"][1]["columns"],
                },
            ],
            "validation": 0.05, "max_length": 4096, "truncation": "drop",
        },
        "method": {"name": "sft"},
        "tuning": {"name": "qlora", "rank": 32, "alpha": 16, "dropout": 0.05},
        "training": {
            "epochs": 3, "micro_batch_size": 2, "learning_rate": 2e-4, "warmup": 0.1, "padding_free": True,
            "optimizer": "paged_adamw_32bit", "activation_checkpointing": True, "save_total_limit": 4,
        },
    }  # fmt: skip
    assert build(RunConfig, result.run) == build(RunConfig, expected)
    assert status(result, "sample_packing") == status(result, "deepspeed") == "approximated"
    assert status(result, "lora_r") == status(result, "datasets[0].type") == "mapped"
    assert status(result, "tf32") == status(result, "lora_model_dir") == "ignored"
    assert next(one.line for one in result.report if one.key == "lora_r") == QLORA.split("lora_r")[0].count("\n") + 1
    assert {one.key.split("[")[0] for one in result.report} >= set(read_text(QLORA).values)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("rl: dpo\nrl_beta: 0.3", {"method.name": "dpo", "method.beta": 0.3}),
        ("rl: ipo", {"method.name": "dpo", "method.dpo_loss": ["ipo"], "method.beta": 0.1}),
        ("rl: orpo\norpo_alpha: 0.2", {"method.name": "orpo", "method.beta": 0.2}),
        ("rl: simpo\nsimpo_gamma: 1.2\ncpo_alpha: 0", {"method.simpo_gamma": 1.2, "method.beta": 0.1}),
        ("rl: kto\nkto_desirable_weight: 0.2", {"method.name": "kto", "method.desirable_weight": 0.2}),
        ("reward_model: true", {"method.name": "reward"}),
        ("rl: grpo\ntrl:\n  num_generations: 2\n  epsilon: 0.1\n  reward_funcs: [checks.right]",
         {"method.rewards": ["python"], "method.reward_python": "checks.py:right", "method.num_generations": 2,
          "method.clip_range": 0.1, "method.max_completion_length": 512, "method.beta": 0.0}),
        ("train_on_inputs: true", {"method.train_on": "all"}),
        ("gradient_checkpointing: offload", {"training.activation_checkpointing": True,
                                             "training.activation_offloading": True}),
        ("gradient_checkpointing: true\nactivation_offloading: hidden_states",
         {"training.activation_checkpointing": True, "training.activation_offloading": True}),
        ("activation_offloading: false", {"training.activation_offloading": False}),
        ("adapter: lora\nlora_r: 8\nload_in_8bit: true", {"tuning.name": "qlora", "tuning.bits": "8"}),
        ("adapter: lora\npeft_use_dora: true\nlora_r: 8", {"tuning.name": "dora", "tuning.rank": 8}),
        ("adapter: lora\npeft_use_rslora: true\npeft_init_lora_weights: pissa\nloraplus_lr_ratio: 16",
         {"tuning.rslora": True, "tuning.init": "pissa", "tuning.lora_plus_ratio": 16}),
        ("adapter: lora\nlora_target_modules: [q_proj, v_proj]", {"tuning.target_modules": ["q_proj", "v_proj"]}),
        ("bf16: false", {"model.dtype": "float32", "tuning.name": "full"}),
        ("warmup_steps: 10\nmax_steps: 100", {"training.warmup": 0.1, "training.max_steps": 100}),
        ("saves_per_epoch: 1\nsave_total_limit: 2", {"training.save_total_limit": 2, "data.validation": 0.0}),
        ("use_tensorboard: true\nwandb_project: p", {"training.report_to": ["wandb", "tensorboard"]}),
        ("model_config:\n  rope_scaling: {type: linear, factor: 4}", {"model.rope_scaling": "linear",
                                                                       "model.rope_factor": 4.0}),
    ],
)  # fmt: skip
def test_keys_with_a_counterpart(lines: str, expected: dict[str, Any]) -> None:
    config = build(RunConfig, imported(LEAST + SETS + lines).run).model_dump()
    for path, value in expected.items():
        section, _, name = path.partition(".")
        assert (path, config[section][name]) == (path, value)


@pytest.mark.parametrize(
    ("lines", "key", "expected"),
    [
        ("adapter: lora\nload_in_4bit: true", "load_in_4bit", "approximated"),
        ("trust_remote_code: true", "trust_remote_code", "refused"),
        ("activation_offloading: disk", "activation_offloading", "approximated"),
        ("activation_offloading: true", "activation_offloading", "approximated"),
        ("plugins: [my.code.Plugin]", "plugins", "refused"),
        ("plugins: [axolotl.integrations.liger.LigerPlugin]", "plugins", "ignored"),
        ("fsdp_config: {offload_params: true}", "fsdp_config", "approximated"),
        ("unfrozen_parameters: [lm_head.weight]", "unfrozen_parameters", "refused"),
        ("qat:", "qat", "ignored"),
        ("sequence_lenght: 5", "sequence_lenght", "unknown"),
        ("rl: ebft", "rl", "refused"),
        ("optimizer: muon", "optimizer", "refused"),
        ("optimizer: adamw_torch_8bit", "optimizer", "approximated"),
        ("sample_packing: true\nrl: dpo", "sample_packing", "refused"),
        ("warmup_steps: 10", "warmup_steps", "approximated"),
        ("val_set_size: 100", "val_set_size", "approximated"),
        ("rl: simpo", "rl", "approximated"),
    ],
)
def test_keys_without_a_counterpart_say_why(lines: str, key: str, expected: str) -> None:
    result = imported(LEAST + SETS + lines)
    found = [one for one in result.report if one.key == key and one.status == expected]
    assert found and found[0].why
    if expected == "unknown":
        assert "sequence_len" in found[0].why


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        (LEAST + SETS + "lora_r: many\nadapter: lora", "the text, line 8: lora_r", "a number is needed"),
        (LEAST + SETS + "bf16: auto\nnum_epochs: [1]", "the text, line 9: num_epochs", "number"),
        (LEAST + SETS + "learning_rate: .nan", "the text, line", "not valid YAML"),
        (LEAST + "datasets: [5]", "the text, line 5: datasets", "mapping"),
        (LEAST + SETS + "rl: dpo\ndpo_loss_type: [sigmoid]\ndpo_loss_weights: [much]", "line 10", "list of numbers"),
        (LEAST, "the text: datasets", "no data is named"),
        (SETS + "sequence_len: 5\nmicro_batch_size: 1", "the text: base_model", "no model is named"),
        (LEAST + "datasets:\n  - type: alpaca", "the text, line 5: datasets[0].path", "needs a path"),
        (LEAST + SETS + "excess_length_strategy: wrap", "line 8: excess_length_strategy", "drop, truncate or raise"),
    ],
)
def test_a_value_that_is_wrong_is_named_with_its_line(text: str, place: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        imported(text)
    assert place in caught.value.sentence and what in caught.value.sentence


def test_a_command_line_goes_over_the_file_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text(LEAST + SETS + "rl: grpo\ntrl: {num_generations: 4, epsilon: 0.1}\n", encoding="utf-8")
    command = f"accelerate launch -m axolotl.cli.train {file} --learning-rate 1e-4 --trl.num-generations 8"
    given = read_text(command)
    assert detect(given) is TOOL
    result = import_given(given)
    assert result.run["training"]["learning_rate"] == 1e-4
    assert result.run["method"]["clip_range"] == 0.1
    assert build(RunConfig, result.run).method.num_generations == 8


CHAT = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
ALPACA = {"instruction": "Add.", "input": "2+2", "output": "4"}
ALONE = {"instruction": "Say {hi}.", "output": "hi"}
BELOW = "Below is an instruction that describes a task"


@pytest.mark.parametrize(
    ("lines", "row", "prompt", "trained"),
    [
        ("type: chat_template\n    field_messages: talk\n    message_property_mappings: {role: from, content: value}",
         {"talk": CHAT}, "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n", "4<|im_end|>"),
        ("type: sharegpt", {"conversations": CHAT}, "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n",
         "4<|im_end|>"),
        ("type: alpaca", ALPACA, f"{BELOW}, paired with an input that provides further context. Write a response that "
         "appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n2+2\n\n### Response:\n",
         "4<|im_end|>"),
        ("type: alpaca", ALONE, f"{BELOW}. Write a response that appropriately completes the request.\n\n"
         "### Instruction:\nSay {hi}.\n\n### Response:\n", "hi<|im_end|>"),
        ("type: alpaca_chat.load_no_prompt", ALPACA, "USER: Add.\n2+2\nASSISTANT:", "4<|im_end|>"),
        ("type: alpaca_w_system.load_chat", {**ALPACA, "system": "Be brief."},
         "SYSTEM: Be brief.\nUSER: Add.\n2+2\nASSISTANT:", "4<|im_end|>"),
        ("type:\n      field_instruction: q\n      field_output: a\n      system_prompt: 'Hm. '\n"
         "      format: '[{instruction}] {{ {input} }} '\n      no_input_format: '[{instruction}] {{}} '",
         {"q": "2+2?", "a": "4"}, "Hm. [2+2?] {} ", "4<|im_end|>"),
        ("type: completion\n    field: body", {"body": "Two and two."}, "", "Two and two.<|im_end|>"),
    ],
)  # fmt: skip
def test_the_same_tokens_are_trained(
    write: Callable[..., Path], tokenizer: Any, settings: Settings, lines: str, row: dict[str, Any], prompt: str,
    trained: str,
) -> None:  # fmt: skip
    path = write("rows.jsonl", [row])
    result = imported(f"{LEAST}datasets:\n  - path: {path}\n    {lines}\nsequence_len: 512\n")
    config = build(RunConfig, {**result.run, "data": {**result.run["data"], "system": None}})
    (encoded,) = prepare_data(config.data, config.method, tokenizer, settings).train
    counted = [token for token in encoded.labels if token != -100]
    before = encoded.input_ids[: len(encoded.input_ids) - len(counted) - (prompt.startswith("<") * 1)]
    assert tokenizer.decode(counted) == trained
    assert tokenizer.decode(before).endswith(prompt)


KEYS = sorted(TOOL.keys)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8), st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.sampled_from(["auto", "true", "1e-4", "dpo", "grpo", "lora", "qlora", "cosine", "no", "best", "steps"]),
)  # fmt: skip


@given_these(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12))
@examples(max_examples=60)
def test_whatever_is_in_it_is_reported_or_refused_in_words(extra: dict[str, Any]) -> None:
    base = {"base_model": "org/model", "datasets": [{"path": "org/rows", "type": "alpaca"}], "sequence_len": 512}
    text = json.dumps({**base, **extra})
    try:
        result = imported(text)
    except InputError as error:
        assert error.sentence
        return
    build(RunConfig, result.run)
    reported = {one.key.partition("[")[0].partition(".")[0] for one in result.report}
    assert set(read_text(text).values) <= reported
    assert all(one.why for one in result.report if one.status != "mapped")
