"""`studio import` on the real command line: a config of another tool becomes a run that can be planned and trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.cli.main import main
from studio.config.load import load_run
from tests.conftest import run_studio

CONFIG = """\
### model
model_name_or_path: smollm2-135m-instruct
trust_remote_code: true
### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 4
lora_target: q_proj, v_proj
### dataset
dataset: sums, chat
template: smollm2
cutoff_len: 256
max_samples: 12
### train
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
learning_rate: 1e-4
max_steps: 2
bf16: false
optimiser: adam
"""


@pytest.fixture
def config(tmp_path) -> Path:
    """A config with its data beside it, alpaca and sharegpt."""
    sums = [{"instruction": f"{n} + 1?", "input": "", "output": f"{n + 1}"} for n in range(20)]
    chat = [
        {"conversations": [{"from": "human", "value": f"Hello {n}"}, {"from": "gpt", "value": f"Good day {n}"}]}
        for n in range(8)
    ]
    info = {"sums": {"file_name": "sums.json"}, "chat": {"file_name": "chat.json", "formatting": "sharegpt"}}
    (tmp_path / "data").mkdir()
    for name, value in {"sums": sums, "chat": chat, "dataset_info": info}.items():
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    (tmp_path / "theirs.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path / "theirs.yaml"


def test_an_import_is_a_file_that_loads_and_nothing_is_overwritten(
    config, session_settings, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(config.parent)
    assert main(["import", "theirs.yaml", "--out", "run.yaml", "--json"]) == 3, "optimiser is no key of theirs"
    out, err = capsys.readouterr()
    answer = json.loads(out)
    lines = {line["key"]: line for line in answer["report"]}
    assert lines["lora_rank"] == {"key": "lora_rank", "status": "mapped", "to": "tuning.rank", "why": "", "line": 8}
    assert lines["optimiser"]["status"] == "unknown"
    assert "unknown: optimiser. LLaMA-Factory has no such key. Did you mean 'optim'?" in err
    written = Path("run.yaml").read_text(encoding="utf-8")
    assert "# unknown: optimiser" in written
    run = load_run(Path("run.yaml")).model_dump(mode="json")
    for section, values in answer["run"].items():
        assert {name: run[section][name] for name in values if name != "train"}.items() <= values.items()
    assert [source.get("rows") for source in answer["run"]["data"]["train"]] == [12, None]

    assert main(["import", "theirs.yaml", "--out", "run.yaml"]) == 2
    assert "run.yaml: the file exists already. Choose another name." in capsys.readouterr().err
    assert Path("run.yaml").read_text(encoding="utf-8") == written


def test_a_command_line_and_what_is_wrong_with_one(config, session_settings, capsys, monkeypatch) -> None:
    monkeypatch.chdir(config.parent)
    assert main(["import", "llamafactory-cli train theirs.yaml seed=7 max_steps=3"]) == 3
    said = capsys.readouterr()
    assert "  seed: 7" in said.out and "  max_steps: 3" in said.out
    merge = "llamafactory-cli export --model_name_or_path a/b --adapter_name_or_path c --export_dir 'new folder'"
    assert main(["import", merge, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["exports"] == [{"to": "folder", "what": "merged", "path": "new folder"}]
    assert "afterwards: studio export RUN --to folder --what merged --path 'new folder'" in said.err
    for source, words in {
        "none.yaml": "there is no such file",
        "llamafactory-cli train --stage nothing --model_name_or_path a --dataset b": "the text, line 1: stage: one of",
        "theirs.yaml --from nobody": "there is no tool 'nobody'",
    }.items():
        assert main(["import", *source.rsplit(" --from ", 1)[:1], *(["--from", "nobody"] if "nobody" in source else []),
                     "--json"]) == 2  # fmt: skip
        said = capsys.readouterr()
        assert words in json.loads(said.out)["error"]["sentence"]
        assert "Traceback" not in said.err


@pytest.mark.long
def test_the_real_model_trains_as_the_imported_config_says(config, session_home) -> None:
    run = config.parent / "run.yaml"
    done = run_studio("import", str(config), "--out", str(run), home=session_home)
    assert done.code == 3, done.stderr
    planned = run_studio("plan", str(run), "--json", home=session_home)
    assert planned.code == 0, planned.stderr
    assert planned.json["plan"]["steps"] == 2
    trained = run_studio("train", str(run), "--name", "imported", "--json", home=session_home)
    assert trained.code == 0, trained.stderr
    assert trained.json["steps"] == 2
    assert 0 < trained.json["loss"] < 10
    adapter = json.loads((Path(trained.json["model"]) / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["r"], adapter["lora_alpha"], sorted(adapter["target_modules"])) == (4, 8, ["q_proj", "v_proj"])


def test_a_run_is_written_for_the_other_tool_and_comes_back(tmp_path, session_settings, capsys) -> None:
    out = tmp_path / "theirs"
    assert main(["convert", "demo/dpo", "--to", "llama-factory", "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset_info.json",
        "pairs_test.jsonl",
        "pairs_train.jsonl",
        "train.yaml",
    ]
    assert answer["files"]["train.yaml"] == (out / "train.yaml").read_text(encoding="utf-8")
    assert "stage: dpo\n" in answer["files"]["train.yaml"]
    assert main(["import", str(out / "train.yaml"), "--json"]) == 0
    back = json.loads(capsys.readouterr().out)
    assert not {line["key"] for line in back["report"] if line["status"] in ("unknown", "refused")}
    assert back["run"]["method"]["name"] == "dpo"
    for arguments, said in (
        (["demo/sft", "--to", "llama-factory", "--out", str(out)], "theirs: it is not an empty folder"),
        (["demo/grpo", "--to", "llama-factory"], "LLaMA-Factory does not have the method grpo"),
        (["demo/sft", "--to", "llamafactory"], "Did you mean 'llama-factory'?"),
        (["no-such-run", "--to", "llama-factory"], "no-such-run"),
    ):
        assert main(["convert", *arguments]) == 2
        assert said in capsys.readouterr().err
