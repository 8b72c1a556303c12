"""A run as a script: it compiles for every method and tuning, and trains what the studio trains."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.config.load import build
from studio.data.prepare.units import Prompt
from studio.errors import InputError
from studio.interop.report import Exported
from studio.interop.scripts import TRL_SCRIPT, UNSLOTH_SCRIPT
from studio.interop.tool import Tool
from studio.interop.tools import tool_named
from studio.methods import METHODS
from studio.train.rewards.functions import exact_match, json_scorer, length_scorer, numeric, regex_scorer
from studio.tunings import TUNINGS
from tests.parity.made import demo_rows, logged, make_trainer, one_thread, write_rows

STEPS = 3
AXOLOTL, LLAMA_FACTORY = tool_named("axolotl"), tool_named("llama-factory")
# Both sides add up the same numbers in another order; fp32 keeps seven digits.
TOLERANCE = 1e-4
# Whatever asks for the studio fails.
PLAIN = "import runpy, sys; sys.modules['studio'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
CELLS = list(itertools.product(METHODS, TUNINGS))
# Of Unsloth's API, as its documentation has it; what they take is that of a release (unsloth/test_release.py).
UNSLOTH = {"from_pretrained", "get_peft_model"}
_RELEASE = Path(__file__).parents[1] / "train" / "engine" / "unsloth" / "contracts" / "unsloth.json"
CONTRACT = json.loads(_RELEASE.read_text(encoding="utf-8"))


def script(tool: Tool, raw: dict[str, Any]) -> str:
    assert tool.write is not None
    (text,) = tool.write(build(RunConfig, raw)).files.values()
    return text


def written(tool: Tool, **sections: Any) -> Exported:
    """A run on rows of the Hub as another tool reads it."""
    assert tool.write is not None
    return tool.write(build(RunConfig, {"data": {"train": [{"path": "org/rows"}]}, **sections}))


def imports_of(text: str) -> dict[str, str]:
    """Names and the modules that they are imported from."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in nodes for alias in node.names}


def test_the_demos_script_names_files_that_are_there() -> None:
    files = re.findall(r'data_files="(.*?)"', script(TRL_SCRIPT, {"data": {"validation": "demo/validation.jsonl"}}))
    assert len(files) == 2 and all(Path(file).is_file() for file in files)


@pytest.mark.parametrize(("method", "tuning"), CELLS)
@pytest.mark.parametrize("tool", [TRL_SCRIPT, UNSLOTH_SCRIPT], ids=lambda tool: tool.name)
def test_every_method_with_every_tuning_is_a_script_or_refused(tool: Tool, method: str, tuning: str) -> None:
    raw = {"method": {"name": method}, "tuning": {"name": tuning}, "data": {"train": [{"path": "org/rows"}]}}
    has = METHODS[method].unsloth and TUNINGS[tuning].unsloth if tool is UNSLOTH_SCRIPT else method != "ppo"
    if not has:
        with pytest.raises(InputError, match="has no"):
            script(tool, raw)
        return
    text = script(tool, raw)
    compile(text, "train.py", "exec")
    names = imports_of(text)
    (trainer,) = [name for name in names if name.endswith("Trainer")]
    assert f"trainer = {trainer}(" in text and max(map(len, text.splitlines())) < 130
    if tool is UNSLOTH_SCRIPT:
        assert set(re.findall(r"FastLanguageModel\.(\w+)", text)) == UNSLOTH
        assert text.index("from unsloth") < text.index("import torch")  # it patches what is imported later
    else:
        assert ("LoraConfig" in names) == TUNINGS[tuning].adapter
        assert ("BitsAndBytesConfig" in names) == TUNINGS[tuning].quantized


@pytest.mark.parametrize(
    ("training", "word", "options"),
    [
        ({}, '"unsloth"', set()),
        ({"activation_offloading": False}, "True", {"activation_offloading=False"}),
        ({"activation_offloading": True}, '"unsloth"', {"activation_offloading=True"}),
        ({"activation_checkpointing": False}, "False", set()),
    ],
)  # fmt: skip
def test_activations_are_kept_where_the_run_keeps_them(training: dict[str, Any], word: str, options: set[str]) -> None:
    raw = {"model": {"path": "a/b"}, "tuning": {"name": "lora"}, "training": training}
    unsloth, trl = script(UNSLOTH_SCRIPT, raw), script(TRL_SCRIPT, raw)
    assert f"use_gradient_checkpointing={word}," in unsloth and "activation_offloading=" not in unsloth
    assert {line.strip(" ,") for line in trl.splitlines() if "activation_offloading=" in line} == options
    assert ("It moves all activations" in trl) == (training.get("activation_offloading") is True)


@pytest.mark.parametrize("tuning", [name for name in TUNINGS if TUNINGS[name].unsloth])
def test_unsloths_functions_get_nothing_that_they_do_not_take(tuning: str) -> None:
    given = {"rank": 4, "rank_pattern": "q_proj=8", "alpha_pattern": "q_proj=8", "rslora": True, "init": "pissa",
             "layers_to_transform": [0], "modules_to_save": ["lm_head"], "bits": "8", "dora": True}  # fmt: skip
    read = {spec.path.removeprefix("tuning.") for spec in options_of(RunConfig) if spec.applies("sft", tuning)}
    own = {name: value for name, value in given.items() if name in read}
    text = script(UNSLOTH_SCRIPT, {
        "model": {"path": "a/b", "revision": "v1", "dtype": "bfloat16", "trust_remote_code": True},
        "method": {"name": "sft"}, "tuning": {"name": tuning, **own},
    })  # fmt: skip
    calls = {
        node.func.attr: {word.arg for word in node.keywords}
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") == "FastLanguageModel"
    }  # fmt: skip
    assert set(calls) == UNSLOTH
    for name, words in calls.items():
        assert words <= set(CONTRACT[f"FastLanguageModel.{name}"])
    assert {"revision", "dtype", "trust_remote_code"} <= calls["from_pretrained"]
    adapter = calls["get_peft_model"]
    assert {"use_rslora", "layers_to_transform"} <= adapter
    assert ("modules_to_save" in adapter) == ("modules_to_save" in own)
    for path in ("rank_pattern", "alpha_pattern", "init", "dora"):
        assert (path in own) == (f"- tuning.{path}: Unsloth's adapters have no such option." in text)


@pytest.mark.long
def test_the_names_and_options_of_every_script_exist_in_trl() -> None:
    import importlib
    import inspect

    looked_at = 0
    for method, tuning in CELLS:
        if method == "ppo":
            continue
        raw = {"method": {"name": method}, "tuning": {"name": tuning}, "data": {"train": [{"path": "org/rows"}]}}
        text = script(TRL_SCRIPT, raw)
        names = {name: getattr(importlib.import_module(module), name) for name, module in imports_of(text).items()}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith(("Config", "Trainer")):
                known = inspect.signature(names[node.func.id]).parameters  # type: ignore[attr-defined]
                assert {word.arg for word in node.keywords} <= set(known), (method, tuning)
                looked_at += 1
    assert looked_at > 2 * (len(CELLS) - len(TUNINGS))


KL, MEAN = "The KL divergence is estimated", "The likelihood's mean over tokens is taken"


@pytest.mark.parametrize(
    ("method", "said"),
    [({"name": "kto"}, KL), ({"name": "kto", "kto_loss": "apo_zero_unpaired"}, ""), ({"name": "orpo"}, MEAN),
     ({"name": "dpo"}, ""), ({"name": "simpo"}, "")],
)  # fmt: skip
def test_what_trl_takes_from_each_micro_batch_is_said(method: dict[str, str], said: str) -> None:
    wanted = [("approximated", f"{said} over a whole update here, in each micro-batch there")] if said else []
    for tool, micro in itertools.product((TRL_SCRIPT, AXOLOTL, LLAMA_FACTORY), ("auto", 2, 12)):
        training = {"batch_size": 12, "micro_batch_size": micro}
        report = written(tool, method=method, training=training).report
        found = [(line.status, line.why) for line in report if line.key == "training.micro_batch_size"]
        assert [line for line in found if line[0] == "approximated"] == (wanted if micro != 12 else [])


def test_kto_is_never_told_to_compute_one_answer_at_a_time() -> None:
    for tool, line in (
        (TRL_SCRIPT, "per_device_train_batch_size=3"), (AXOLOTL, "micro_batch_size: 3"),
        (LLAMA_FACTORY, "per_device_train_batch_size: 3"),
    ):  # fmt: skip
        files = written(tool, method={"name": "kto"}, training={"batch_size": 3}).files
        assert line in next(iter(files.values()))


def test_what_differs_is_said_at_the_top_and_a_name_is_no_code() -> None:
    raw = {
        "model": {"path": 'x"); import os #', "revision": "it's"}, "data": {"validation": 0.1},
        "method": {"name": "sft"}, "tuning": {"name": "lora", "merge_adapter": True, "adapter": "old"},
    }  # fmt: skip
    text = script(TRL_SCRIPT, raw)
    assert "- tuning.merge_adapter: It is not in this script." in text.split('"""')[1]
    assert "- data.validation: The same share of the rows, but others of them." in text.split('"""')[1]
    assert "os" not in imports_of(text)
    with pytest.raises(InputError, match="cannot be imported"):
        script(TRL_SCRIPT, {"method": {"name": "grpo", "rewards": ["python"], "reward_python": "a b.py:f"}})


def functions_of(text: str, **names: Any) -> dict[str, Any]:
    """The functions of a script, without running it."""
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    values: dict[str, Any] = {"re": re, "json": json, **names}
    exec(compile(tree, "train.py", "exec"), values)
    return values


def test_the_rewards_of_a_script_score_as_the_studios(tokenizer: Any) -> None:
    rewards = ["exact_match", "numeric", "json", "regex", "length"]
    options = {"name": "grpo", "rewards": rewards, "reward_pattern": ".*7.*", "reward_length": 3}
    mine = functions_of(script(TRL_SCRIPT, {"method": options}), tokenizer=tokenizer)
    said = ["15", "10-15", "1,234.5 euros", "−3", " 7\n", "first\n7", "", '{"a": NaN}', '{"a": 7}', "[" * 100_000]
    right = "It is 15."
    prompts = [Prompt([], "What is it?", right, 1, "rows.jsonl")] * len(said)
    theirs = [exact_match, numeric, json_scorer(None), regex_scorer(".*7.*"), length_scorer(3, tokenizer)]
    names = ["exact_match", "numeric", "valid_json", "matches", "right_length"]
    found = {}
    for name, scorer in zip(names, theirs, strict=True):
        for completions in (said, [[{"role": "assistant", "content": text}] for text in said]):
            found[name] = mine[name](completions=completions, answer=[right] * len(said))
            assert (name, found[name]) == (name, scorer(prompts, said))
    assert found["numeric"] == [1.0, 1.0, *[0.0] * 8] and sum(found["matches"]) == 3 and sum(found["valid_json"]) == 3


def test_a_reward_of_ones_own_gets_texts_and_the_columns_of_the_rows() -> None:
    options = {"name": "grpo", "rewards": ["python"], "reward_python": "rewards.py:score"}
    text = script(TRL_SCRIPT, {"method": options})
    assert imports_of(text)["score"] == "rewards" and "reward_funcs=[score_of_texts]" in text

    def score(prompts: list[str], completions: list[str], answer: list[str]) -> list[float]:
        rows = zip(prompts, completions, answer, strict=True)
        return [float(f"{prompt} {said}" == right) for prompt, said, right in rows]

    rows = SimpleNamespace(column_names=["prompt", "answer"])
    wrapped = functions_of(text, score=score, dataset=rows)["score_of_texts"]
    turns = [[{"role": "system", "content": "Sums"}, {"role": "user", "content": "1 + 1"}]]
    said = [[{"role": "assistant", "content": "2"}]]
    given = {"prompts": turns, "completions": said, "completion_ids": [[2]], "trainer_state": None}
    assert wrapped(**given, answer=["1 + 1 2"]) == [1.0]


def rows_for(method: str, count: int) -> list[dict[str, Any]]:
    """Rows of the demo, as many as so many examples are made of."""
    if method in ("sft", "pretrain", "grpo"):
        file = {"sft": "train", "pretrain": "text_train", "grpo": "sums_train"}[method]
        return demo_rows(f"{file}.jsonl", count)
    return demo_rows("pairs_train.jsonl", count)


def case(name: str, model: Path, rows: list[dict[str, Any]], rate: float, **more: Any) -> dict[str, Any]:
    """A run of a few steps on rows that are written into this folder, named as a person names them there."""
    write_rows(Path("rows.jsonl"), rows)
    options: dict[str, Any] = {"name": name, **more.pop("method", {})}
    if METHODS[name].online:
        options |= {"rewards": ["length", "exact_match"], "reward_length": 8, "num_generations": 2,
                    "max_completion_length": 8}  # fmt: skip
    return {
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"train": [{"path": "rows.jsonl", **more.pop("source", {})}], "validation": 0, **more.pop("data", {})},
        "method": options,
        "tuning": {"name": "lora", "rank": 8},
        "training": {"max_steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "learning_rate": rate,
                     "save_steps": STEPS, **more.pop("training", {})},
    }  # fmt: skip


def compare(raw: dict[str, Any], model: Path, theirs: list[dict[str, float]], output: Path, settings: Any) -> None:
    """Train the run in the studio, and compare each step with what the script logged."""
    trainer = make_trainer(raw, model, output, settings).trainer
    trainer.train()
    found = {name: [entry[name] for entry in theirs if name in entry] for name in ("loss", "reward")}
    expected = {name: logged(trainer, name) for name in found}
    print("\nscript:", raw["method"]["name"], found, expected)
    assert len(found["loss"]) == STEPS
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=TOLERANCE, abs=TOLERANCE / 10)
    assert len(set(found["reward"] or found["loss"])) > 1, "something is learned, or written differently"


TRAINED = [name for name in METHODS if name != "ppo"]
TEXTS = [{"prompt": f"{n} + 1?", "chosen": f"{n + 1}", "rejected": "No."} for n in range(12)]
RATED = [{"prompt": f"{n} + 1?", "completion": f"{n + n % 2}", "label": n % 2 == 1} for n in range(12)]
# TRL estimates the KL divergence in each micro-batch.
WHOLE = {"training": {"micro_batch_size": 4}}
VARIANTS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    **{name: (name, rows_for(name, 12), {}) for name in TRAINED},
    "cpo": ("orpo", rows_for("orpo", 12), {"method": {"orpo_loss": "cpo"}}),
    "rloo": ("grpo", rows_for("grpo", 12), {"method": {"grpo_algorithm": "rloo"}}),
    "grpo in order": ("grpo", rows_for("grpo", 12), {"data": {"shuffle": False}}),
    "kto": ("kto", rows_for("kto", 12), WHOLE),
    "rated": ("kto", RATED, WHOLE),
    "rated in order": ("kto", RATED, WHOLE | {"data": {"shuffle": False}}),
    "raw pairs": ("dpo", TEXTS, {"source": {"reading": "raw"}}),
    "pairs of texts": ("reward", TEXTS, {"source": {"reading": "conversation"}}),
    "joined": ("pretrain", rows_for("pretrain", 12), {"method": {"documents": "join"}, "data": {"max_length": 32}}),
    "last tenth": ("sft", rows_for("sft", 12), {
        "training": {"scheduler": "warmup_stable_decay", "max_steps": None, "epochs": 1}
    }),
    "least rate": ("sft", rows_for("sft", 12), {"training": {"scheduler": "cosine_with_min_lr"}}),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_step_of_a_script_is_that_of_the_studio(
    variant: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    method, rows, more = VARIANTS[variant]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    raw = case(method, tiny, rows, 1e-3, **dict(more))
    values: dict[str, Any] = {"__name__": "train"}
    exec(compile(script(TRL_SCRIPT, raw), "train.py", "exec"), values)
    assert (tmp_path / "outputs/model/adapter_model.safetensors").is_file()
    kept = AutoTokenizer.from_pretrained(tmp_path / "outputs/model").chat_template
    assert kept == AutoTokenizer.from_pretrained(tiny).chat_template
    compare(raw, tiny, values["trainer"].state.log_history, tmp_path / "studio", settings)


@pytest.mark.long
@pytest.mark.parametrize(("method", "folder"), [("kto", "tiny"), ("grpo", "tiny"), ("sft", "model_path")])
def test_a_script_needs_nothing_of_the_studio_and_runs_anywhere(
    method: str, folder: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> None:  # fmt: skip
    model: Path = request.getfixturevalue(folder)
    monkeypatch.chdir(tmp_path)
    raw = case(method, model, rows_for(method, 12), 1e-3)
    file, elsewhere = tmp_path / "train.py", tmp_path / "elsewhere"
    file.write_text(script(TRL_SCRIPT, raw), encoding="utf-8")
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(file)], cwd=elsewhere, capture_output=True, text=True, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (elsewhere / "outputs/model/adapter_model.safetensors").is_file()
    state = json.loads((elsewhere / f"outputs/checkpoint-{STEPS}/trainer_state.json").read_text(encoding="utf-8"))
    with one_thread():
        compare(raw, model, state["log_history"], tmp_path / "studio", settings)
