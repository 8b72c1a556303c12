"""LLaMA-Factory itself, in an environment of its own, trains what the studio trains: `make test-llama-factory`.

Both train the same config for five steps in float32 with the rows in order, once on the real model (saved in float32)
and otherwise on a tiny one with its tokenizer. Token ids and labels of every row must be equal, and the loss of each
step within a thousandth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from studio.config import RunConfig
from studio.config.load import build
from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.data.prepare.pipeline import prepare_data
from studio.interop.reading import read_file
from studio.interop.tools import export_to, import_given
from studio.interop.writing import write_folder
from studio.jobs import find_job, read_events
from studio.settings import Settings
from tests.conftest import run_studio
from tests.install_tokenizers import folder_of
from tests.parity.made import demo_rows, logged, make_trainer, one_thread, write_rows
from tests.support.programs.llama_factory import environment_in

PYTHON = os.environ.get("STUDIO_LLAMA_FACTORY_PYTHON", "")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON, reason="make test-llama-factory installs LLaMA-Factory and runs this"),
]
STEPS, BATCH = 5, 4
NEAR = 1e-3  # of a loss: both compute in float32, but not in the same order
TAIL = 4000  # characters of the log of a run there that failed
Talk = list[tuple[str, str]]
TALKS: list[Talk] = [
    [("user", "Name a colour."), ("assistant", "Blue.")],
    [("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?"), ("assistant", "6")],
    [("user", "Where is Lyon?"), ("assistant", "In France.\n\nIt lies on the Rhône."), ("user", "Étienne?"),
     ("assistant", "Saint-Étienne is near it.")],
    [("user", "  Say nothing but a space and an x.  "), ("assistant", " x")],
    [("system", "You are a pirate."), ("user", "Hello!\n"), ("assistant", "Ahoy — 你好! 🏴‍☠️")],
    [("user", "List two fruits."), ("assistant", "- apple\n- pear\n"), ("user", "One more."), ("assistant", "- fig")],
]  # fmt: skip
# What differs between the runs that go out, and the file of the demo that their rows come from.
OUT: dict[str, tuple[str, dict[str, Any]]] = {
    "real": ("train.jsonl", {"tuning": {"name": "lora", "rank": 8}, "method": {"train_on": "turns"}}),
    "lora": ("train.jsonl", {
        "tuning": {"name": "lora", "rank": 4, "alpha": 4, "rslora": True}, "training": {"scheduler": "linear"},
    }),
    "full": ("train.jsonl", {
        "tuning": {"name": "full"}, "method": {"train_on": "all"}, "data": {"system": "Answer in one line."},
        "training": {"scheduler": "cosine_with_min_lr", "max_grad_norm": 0.5},
    }),
    "dpo": ("pairs_train.jsonl", {"tuning": {"name": "lora", "rank": 8}, "method": {"name": "dpo", "beta": 0.2}}),
}  # fmt: skip
THEIRS = """### model
model_name_or_path: {model}
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: mine,talks
template: smollm2
cutoff_len: 512
max_samples: 1000

### output
output_dir: saves/smollm2/lora/sft
logging_steps: 1
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none

### train
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
learning_rate: 1.0e-3
num_train_epochs: 1.0
lr_scheduler_type: cosine
warmup_ratio: 0.2
use_cpu: true
disable_shuffling: true
"""
ALPACA: list[dict[str, Any]] = [
    {"instruction": "Translate into French.", "input": "Good evening.", "output": "Bonsoir."},
    {"instruction": "Name a prime number.", "input": "", "output": "7"},
    {"instruction": "Sort.", "input": "3 1 2", "output": "1 2 3", "history": [["Hi.", "Hello."], ["Sad?", "No."]]},
    {"instruction": "Say who you are.", "input": "", "output": "A parrot.", "system": "You are a parrot."},
    {"instruction": "Trim.  ", "input": "  x\n", "output": "x  "},
]
# Model families with the template that LLaMA-Factory's own examples give them; their tokens are the same.
FAMILIES = [("qwen2_5", "qwen"), ("llama3", "llama3")]
# Llama's template leaves out the blanks around what is said; theirs never do.
TRIMMED = [talk for talk in TALKS if all(said == said.strip() for _, said in talk)]
INDENTED: Talk = [("user", "Indent x."), ("assistant", "  x")]

Row = tuple[list[int], ...]


@dataclass(frozen=True)
class Trained:
    """What a tool made of a config.

    Attributes:
        rows: of each row its token ids and labels; of a pair what `OTHER` names there, prompt and both answers here.
        losses: of each step.
    """

    rows: list[Row]
    losses: list[float]


@dataclass(frozen=True)
class There:
    """What LLaMA-Factory has done: in one process, since starting takes longer than five steps.

    Attributes:
        root: a folder of each config.
        tokens: token ids and labels of `INDENTED`, then of each of `TRIMMED` by each of `FAMILIES`.
    """

    root: Path
    tokens: list[Any]

    def trained(self, name: str, columns: tuple[str, ...] = ("input_ids", "labels")) -> Trained:
        """What became of a config: the rows that it has tokenized, the losses that it has logged."""
        from datasets import load_from_disk

        folder = self.root / name
        rows = load_from_disk(str(folder / "tokens"))["train"]
        output = folder / YAML(typ="safe").load((folder / "train.yaml").read_text(encoding="utf-8"))["output_dir"]
        state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        return Trained([tuple(row[column] for column in columns) for row in rows], losses)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """The real model in float32: there a model is computed in the numbers of its files."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "model"
    shutil.copytree(model_path, folder)
    AutoModelForCausalLM.from_pretrained(model_path, dtype="float32").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, wide: Path, tiny: Path) -> dict[str, dict[str, Any]]:
    """The runs that go out, as documents."""
    folder = tmp_path_factory.mktemp("rows")
    talks = [{"messages": [{"role": role, "content": said} for role, said in talk]} for talk in TALKS]
    found = {}
    for name, (file, sections) in OUT.items():
        own = [] if name == "dpo" else talks
        rows = write_rows(folder / f"{name}.jsonl", [*own, *demo_rows(file, STEPS * BATCH - len(own))])
        document: dict[str, Any] = {
            "model": {"path": str(wide if name == "real" else tiny), "dtype": "float32"},
            "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 512, "shuffle": False},
            "training": {
                "max_steps": STEPS, "epochs": 1, "batch_size": BATCH, "micro_batch_size": 2, "warmup": 0.2,
                "scheduler": "cosine", "learning_rate": 1e-3, "weight_decay": 0.01, "device": "cpu",
            },
        }  # fmt: skip
        found[name] = {key: {**document.get(key, {}), **sections.get(key, {})} for key in {**document, **sections}}
    return found


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, runs: dict[str, dict[str, Any]], tiny: Path) -> There:
    """Every config, trained by LLaMA-Factory."""
    root = tmp_path_factory.mktemp("llama-factory")
    for name, document in runs.items():
        write_folder(root / name, export_to(build(RunConfig, document), "llama-factory"))
    write_theirs(root / "theirs", tiny)
    env = environment_in(root, PYTHON) | {"OMP_NUM_THREADS": "1"}
    tasks = {
        "train": [[str(root / name), ["train.yaml", "tokenized_path=tokens"]] for name in (*runs, "theirs")],
        "tokenize": [
            [str(tiny), None, turns(INDENTED)],
            *([str(folder_of(one)), name, turns(talk)] for one, name in FAMILIES for talk in TRIMMED),
        ],
    }
    (root / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    words = [PYTHON, str(Path(__file__).parent / "their_side.py"), str(root / "tasks.json"), str(root / "tokens.json")]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, f"{done.stdout[-TAIL:]}\n{done.stderr[-TAIL:]}"
    return There(root, json.loads((root / "tokens.json").read_text(encoding="utf-8")))


def turns(talk: Talk) -> list[dict[str, str]]:
    return [{"role": role, "content": said} for role, said in talk]


def write_theirs(folder: Path, model: Path) -> None:
    """A config and data as its users write them: alpaca with histories, and sharegpt with several turns."""
    (folder / "data").mkdir(parents=True)
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    talks = [{"conversations": [{"from": names[role], "value": said} for role, said in talk]} for talk in TALKS]
    count = STEPS * BATCH - len(talks)
    rows = [{"history": [], "system": "", **ALPACA[at % len(ALPACA)]} for at in range(count)]
    alpaca = [{**row, "instruction": f"{row['instruction']} ({at})"} for at, row in enumerate(rows)]
    columns = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    }
    info = {
        "mine": {"file_name": "mine.json", "columns": columns},
        "talks": {"file_name": "talks.json", "formatting": "sharegpt"},
    }
    for name, content in (("dataset_info", info), ("mine", alpaca), ("talks", talks)):
        (folder / "data" / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "train.yaml").write_text(THEIRS.format(model=model), encoding="utf-8")


def trained_here(document: dict[str, Any], folder: Path, settings: Settings) -> Trained:
    """Train as the studio does, without a job around it."""
    with one_thread():
        made = make_trainer(document, Path(document["model"]["path"]), folder / "output", settings)
        made.trainer.train()
    return Trained([row_of(unit) for unit in made.setup.train], logged(made.trainer))


def row_of(unit: Any) -> Row:
    names = ("prompt_ids", "chosen_ids", "rejected_ids") if hasattr(unit, "chosen_ids") else ("input_ids", "labels")
    return tuple(list(getattr(unit, name)) for name in names)


def assert_near(ours: Trained, theirs: Trained) -> None:
    assert len(ours.losses) == len(theirs.losses) == STEPS
    far = [abs(one - other) / abs(one) for one, other in zip(ours.losses, theirs.losses, strict=True)]
    assert max(far) < NEAR, (far, ours.losses, theirs.losses)


def test_studio_train_learns_what_llama_factory_does_from_its_export(
    runs: dict[str, dict[str, Any]], there: There, session_settings: Settings, wide: Path, tmp_path: Path
) -> None:
    """The commands, on the real model."""
    from transformers import AutoTokenizer

    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(runs["real"]), encoding="utf-8")
    home = session_settings.home
    done = run_studio("convert", str(config), "--to", "llama-factory", "--out", str(tmp_path / "out"), home=home)
    assert done.code == 0, done.stderr
    assert (tmp_path / "out" / "train.yaml").read_text() == (there.root / "real" / "train.yaml").read_text()
    done = run_studio("train", str(config), "--json", home=home, seconds=3000, OMP_NUM_THREADS="1")
    assert done.code == 0, done.stderr
    events, _ = read_events(find_job(session_settings.jobs, done.json["id"], "train").events_path)
    losses = [one["values"]["loss"] for one in events if one["kind"] == "metric" and "loss" in one["values"]]
    run = build(RunConfig, runs["real"])
    tokenizer = AutoTokenizer.from_pretrained(wide)
    prepared = prepare_data(run.data, run.method, tokenizer, session_settings, seed=run.training.seed)
    ours, theirs = Trained([row_of(unit) for unit in prepared.train], losses), there.trained("real")
    assert ours.rows == theirs.rows and len(ours.rows) == STEPS * BATCH
    assert_near(ours, theirs)


def test_of_an_answer_alone_the_line_break_behind_it_counts_there(
    runs: dict[str, dict[str, Any]], there: There, settings: Settings, tmp_path: Path
) -> None:
    """`assistant` is what the report says: approximated, by that token of each answer."""
    ours, theirs = trained_here(runs["lora"], tmp_path, settings), there.trained("lora")
    breaks = 0
    for (ids, labels), (there_ids, there_labels) in zip(ours.rows, theirs.rows, strict=True):
        assert ids == there_ids
        more = [at for at, label in enumerate(labels) if label != there_labels[at]]
        assert all(labels[at] == -100 and labels[at - 1] == ids[at - 1] for at in more)
        assert {ids[at] for at in more} == {ids[-1]}
        breaks += len(more)
    assert breaks == STEPS * BATCH + sum(len(talk) // 4 for talk in TALKS)


def test_all_weights_and_all_tokens_are_trained_alike(
    runs: dict[str, dict[str, Any]], there: There, settings: Settings, tmp_path: Path
) -> None:
    """There the first token of a row counts, which nothing predicts: it adds nothing, but is divided by."""
    ours, theirs = trained_here(runs["full"], tmp_path, settings), there.trained("full")
    assert ours.rows == theirs.rows and len(ours.rows) == STEPS * BATCH
    counted = [sum(len(labels) for _, labels in ours.rows[at : at + BATCH]) for at in range(0, STEPS * BATCH, BATCH)]
    losses = [loss * count / (count - BATCH) for loss, count in zip(theirs.losses, counted, strict=True)]
    assert_near(ours, Trained(theirs.rows, losses))


def test_pairs_are_compared_alike(
    runs: dict[str, dict[str, Any]], there: There, settings: Settings, tmp_path: Path
) -> None:
    ours = trained_here(runs["dpo"], tmp_path, settings)
    theirs = there.trained("dpo", ("chosen_input_ids", "rejected_input_ids", "chosen_labels", "rejected_labels"))
    for (prompt, chosen, rejected), (good, bad, good_labels, bad_labels) in zip(ours.rows, theirs.rows, strict=True):
        # Behind each answer is the line break, which counts there.
        assert (good[:-1], bad[:-1]) == (prompt + chosen, prompt + rejected)
        assert [one for one in good_labels if one != -100] == good[len(prompt) :]
        assert [one for one in bad_labels if one != -100] == bad[len(prompt) :]
    assert_near(ours, theirs)


def test_a_config_of_theirs_trains_here_as_it_does_there(there: There, settings: Settings, tmp_path: Path) -> None:
    imported = import_given(read_file(there.root / "theirs" / "train.yaml"))
    assert not [line for line in imported.report if line.status in ("refused", "unknown")]
    ours, theirs = trained_here(imported.run, tmp_path, settings), there.trained("theirs")
    assert ours.rows == theirs.rows and len(ours.rows) == STEPS * BATCH
    assert_near(ours, theirs)


@pytest.mark.parametrize(("family", "template"), FAMILIES)
def test_the_template_of_a_family_gives_the_same_tokens(family: str, template: str, there: There) -> None:
    from transformers import AutoTokenizer

    at = 1 + FAMILIES.index((family, template)) * len(TRIMMED)
    theirs = there.tokens[at : at + len(TRIMMED)]
    ours = tokenized(AutoTokenizer.from_pretrained(folder_of(family)), TRIMMED)
    assert len(theirs) > 2
    for (ids, labels), (there_ids, there_labels) in zip(ours, theirs, strict=True):
        # The first template of Llama 3 writes the head of one more answer behind everything; it does not count.
        assert (ids[: len(there_ids)], labels[: len(there_ids)]) == (there_ids, there_labels)
        assert set(labels[len(there_ids) :]) <= {-100}


def test_blanks_before_an_answer_are_tokens_of_their_own_there(there: There, tiny: Path) -> None:
    """It tokenizes each turn by itself; here a line break and the blank behind it are one token, which is context."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ((ids, labels),) = tokenized(tokenizer, [INDENTED])
    there_ids, there_labels = there.tokens[0]
    assert ids != there_ids and tokenizer.decode(ids) == tokenizer.decode(there_ids)
    said, said_there = ([one for one in found if one != -100] for found in (labels, there_labels))
    assert said == said_there[1:] and tokenizer.decode(said_there).startswith("  x")


def tokenized(tokenizer: Any, talks: list[Talk]) -> list[Any]:
    """The talks as an import would have them."""
    examples = [Example(1, "talks", "messages", messages=turns(talk)) for talk in talks]
    return [[list(one.input_ids), list(one.labels)] for one in Masker(tokenizer, "turns").encode(examples)]
