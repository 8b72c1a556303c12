"""The benchmarks beside other trainers: each side trains the same, and what is written is what was measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.benchmarks.beside import gpu, learning, sides, trl
from tests.benchmarks.beside.gpu import BEGIN, DOCS, END, FACTORY, Wanted
from tests.benchmarks.beside.sides import Beside, Case, Done
from tests.benchmarks.beside.watching import held_loss
from tests.benchmarks.preparation import own_home
from tests.train.engine.unsloth.test_unsloth import calls  # noqa: F401  a fixture

# Both sides add up the same float32 numbers in another order; kto's other answers depend on the micro-batches.
FAR = 1e-4
KTO_FAR = 5e-3


def done(seconds: float, peak: int, **more: Any) -> Done:
    return Done(**{"tokens": 1000, "losses": [2.0, 1.0], "dtype": "bfloat16", "checkpointing": False, **more},
                seconds=seconds, peak=peak)  # fmt: skip


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    page = tmp_path / "benchmarks.md"
    page.write_text(DOCS.read_text(encoding="utf-8"), encoding="utf-8")
    return page


def test_medians_and_spread_are_those_of_pairs() -> None:
    found = [
        {"studio": done(2, 10, planned=10**10), "trl": done(4, 30, losses=[2.0, 1.1])},
        {"studio": done(4, 20), "trl": done(4, 20)},
        {"studio": done(5, 10), "trl": done(15, 20)},
    ]
    one = Beside.of(found, "trl")
    assert (one.speeds, one.ratio, one.least, one.most) == ((250.0, 250.0), 2.0, 1.0, 3.0)
    assert one.peaks == (20, 30) and one.far == pytest.approx(0.1 / 1.1)
    assert (
        trl.line("x", one, 1.5) == "| x | 250 | 250 | 2.00 (1.00 to 3.00) | 0.00 | 1.5 | 0.00 (10.00) | 0.00 | 9e-02 |"
    )
    shared = Beside.of([{"studio": done(2, 10, processor=3.0), "trl": done(4, 30, processor=7.5)}], "trl")
    assert shared.cost == pytest.approx(2.5)


def test_the_loss_of_held_out_rows_is_that_of_their_answers(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    given = list(trl.rows_of("sft", 3))
    total, count = 0.0, 0
    for row in given:
        asked = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(row["messages"], return_dict=False)[:-1]  # no line break behind the end
        labels = torch.tensor([[-100] * len(asked) + whole[len(asked) :]])
        some = len(whole) - len(asked)
        total += some * model(input_ids=torch.tensor([whole]), labels=labels).loss.item()
        count += some
    assert held_loss(model, tokenizer, trl.write(tmp_path / "held.jsonl", iter(given))) == pytest.approx(total / count)


def test_a_share_of_the_time_counts_only_where_both_have_learned_the_same() -> None:
    pair = {"studio": done(2, 1, held=1.0, processor=3.0), "trl": done(4, 1, held=1.0, processor=8.0)}
    assert learning.share(pair) == 0.5 and learning.reached([pair])
    assert "| 2 s | 4 s | 0.50 (0.50 to 0.50); processor time 0.38 | 1.0000 | 1.0000 |" in learning.line("demo", [pair])
    assert not learning.reached([pair | {"studio": done(2.1, 1, held=1.0)}])
    assert not learning.reached([pair | {"studio": done(1, 1, held=1.01)}])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_sentence(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.run(gpu.CASES, 1, "cuda", docs) == 2
    assert capsys.readouterr().err == "There is no NVIDIA GPU that torch can use here, so nothing was measured.\n"
    assert docs.read_text(encoding="utf-8") == DOCS.read_text(encoding="utf-8")


def test_the_table_takes_the_place_of_the_one_before(docs: Path) -> None:
    before = docs.read_text(encoding="utf-8")
    found = [{"studio": done(1, 2 * 10**9, planned=10**9), "trl": done(3, 10**10), FACTORY: done(2, 10**10)}]
    rows = gpu.lines(gpu.CASES[0], found)
    assert rows[0].startswith("| 1B, lora, 2,048 tokens | plain TRL | 1,000 | 333 | 3.00 ")
    assert "LLaMA-Factory with Liger" in rows[1] and "| 2.00 (1.00) | 10.00 |" in rows[1]
    gpu.put(docs, "\n".join(rows))
    once = docs.read_text(encoding="utf-8")
    gpu.put(docs, "\n".join(rows))
    assert docs.read_text(encoding="utf-8") == once and "\n".join(rows) in once
    assert once.split(BEGIN)[0] == before.split(BEGIN)[0] and once.split(END)[1] == before.split(END)[1]


@pytest.mark.long
def test_the_whole_script_on_a_cpu(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.run([Wanted("tiny", "lora", 256, 2, 1, 1)], 1, "cpu", docs) == 0
    row = capsys.readouterr().out.strip()
    assert row.startswith("| tiny, lora, 256 tokens | plain TRL | ") and row in docs.read_text(encoding="utf-8")
    assert "Not measured here: Unsloth, LLaMA-Factory with Liger." in docs.read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("name", [one for one in trl.CASES if one != "long"])
def test_both_sides_learn_the_same(tiny: Path, tmp_path: Path, name: str) -> None:
    with own_home(tmp_path):
        case = trl.case_of(name, tiny, tmp_path)
        (pair,) = sides.pairs(replace(case, batch=4, micro=2, dtype="float32"), 1, tmp_path)  # rounds least
    ours, theirs = pair["studio"], pair["trl"]
    assert len(ours.losses) == case.steps and ours.planned > 10**8 and min(ours.peak, theirs.peak) > 10**8
    assert Beside.of([pair], "trl").far < (KTO_FAR if case.method == "kto" else FAR)
    assert ours.tokens == pytest.approx(theirs.tokens, rel=0.01)


def test_unsloth_trains_through_trl(calls: dict[str, Any], tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    rows = trl.write(tmp_path / "rows.jsonl", trl.rows_of("sft", 2))
    found = sides._unsloth(Case(str(tiny), rows, batch=2, micro=1, steps=1, dtype="float32"), tmp_path)
    assert calls["get_peft_model"]["r"] == sides.RANK and calls["from_pretrained"]["max_seq_length"] == sides.LIMIT
    assert found["tokens"] > 100 and found["seconds"] > 0 and 0 < found["losses"][0] < 20


STAND_IN = """#!{python}
import json, pathlib, sys
from datasets import Dataset, DatasetDict
given = json.loads(pathlib.Path(sys.argv[2]).read_text())
out = pathlib.Path(given["output_dir"])
out.mkdir()
DatasetDict(train=Dataset.from_list([{{"attention_mask": [1, 1, 0]}}] * 2)).save_to_disk(given["tokenized_path"])
(out / "trainer_state.json").write_text(json.dumps({{"log_history": [{{"loss": 1.5}}]}}))
(out / "train_results.json").write_text(json.dumps({{"train_runtime": 2.0}}))
"""


def test_llama_factory_gets_the_rows_and_its_best_settings(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command is a stand-in here; `make bench-peer` runs the real one."""
    command = tmp_path / "llamafactory-cli"
    command.write_text(STAND_IN.format(python=sys.executable))
    command.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("STUDIO_LLAMA_FACTORY_PYTHON", str(tmp_path / "python"))
    assert FACTORY in gpu.others()
    rows = trl.write(tmp_path / "rows.jsonl", trl.rows_of("sft", 4))
    case = Case(str(tiny), rows, tuning="qlora", batch=4, micro=2, steps=1, dtype="bfloat16", checkpointing=True)
    found = gpu.side(FACTORY, case, tmp_path / "there")
    assert (found.tokens, found.seconds, found.losses) == (8, 2.0, [1.5])
    settings = yaml.safe_load((tmp_path / "there" / "train.yaml").read_text())
    assert settings["model_name_or_path"] == str(tiny) and settings["quantization_bit"] == 4
    assert (settings["gradient_accumulation_steps"], settings["disable_gradient_checkpointing"]) == (2, False)
    assert len(json.loads((tmp_path / "there" / "rows.json").read_text())) == 4
