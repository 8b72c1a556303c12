"""One training by the studio, by plain TRL and PEFT, by Unsloth or by LLaMA-Factory, each in a process of its own.

    python -m tests.benchmarks.beside.sides SIDE FOLDER      what `measure` starts; case.json lies in FOLDER
Each begins with the same weights and rows. Seconds are those from the beginning of the first update to the end of the
last one, without loading and saving; tokens are those of rows, without padding; memory is the largest resident set of
the process, or what it takes of the GPU's memory.
"""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from studio.processes import child_environment
from tests.benchmarks.beside.watching import clock, held_loss

SEED, RANK, RATE = 42, 16, 1e-4
TAIL = 3000  # characters of the output of a training that failed
LIMIT = 8192  # tokens; no row is cut
_TRAINERS = {
    "sft": ("trl", "SFT"), "dpo": ("trl", "DPO"), "kto": ("trl", "KTO"), "reward": ("trl", "Reward"),
    "orpo": ("trl.experimental.orpo", "ORPO"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        model: folder of a checkpoint.
        rows: JSONL that the studio reads; the others get the same, each in the form that its trainer asks for.
        method, tuning: by their names in the studio.
        batch: rows of an update.
        micro: how many of them the others compute at a time; the studio has everything on auto.
        steps: updates.
        device: cpu or cuda.
        dtype: number format of products: auto, or what the studio chose.
        checkpointing: activations are computed twice; the others do what the studio chose.
        rate: learning rate, constant.
        held: JSONL of conversations on which the loss is computed at the end; none where empty.
    """

    model: str
    rows: str
    method: str = "sft"
    tuning: str = "lora"
    batch: int = 8
    micro: int = 4
    steps: int = 2
    device: str = "cpu"
    dtype: str = "auto"
    checkpointing: bool = False
    rate: float = RATE
    held: str = ""


@dataclass(frozen=True)
class Done:
    """What a training took.

    Attributes:
        tokens: of the rows of all updates, without padding.
        seconds: of all updates.
        losses: of each of them.
        dtype, checkpointing: as in `Case`.
        planned: the studio's expected peak memory in bytes, 0 of others.
        peak: measured, in bytes.
        processor: seconds of all processors together, which other work on them changes less than it does `seconds`.
        held: loss on the rows that were held out, in nats a token; 0 where there are none.
    """

    tokens: int
    seconds: float
    losses: list[float]
    dtype: str
    checkpointing: bool
    planned: int = 0
    peak: int = 0
    processor: float = 0.0
    held: float = 0.0

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def thrift(self) -> float:
        """Tokens for a second of a processor; 0 where it is not known."""
        return self.tokens / self.processor if self.processor else 0.0


def measure(side: str, case: Case, folder: Path) -> Done:
    """Train in a process of its own.

    Args:
        side: studio, trl or unsloth.
        case: what is trained.
        folder: for what it writes; created.
    """
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(asdict(case)))
    command = [sys.executable, "-m", "tests.benchmarks.beside.sides", side, str(folder)]
    with (folder / "log.txt").open("wb") as log:
        environment = child_environment() if side == "studio" else None  # as its jobs are started
        process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        peak = peak_of(process, case.device)
    assert process.wait() == 0, (folder / "log.txt").read_text()[-TAIL:]
    return replace(Done(**json.loads((folder / "done.json").read_text())), peak=peak)


def peak_of(process: psutil.Popen, device: str = "cpu") -> int:
    """Wait for its end; return the most memory it has had, in bytes.

    Args:
        process: that was started.
        device: on cpu it is the largest resident set of it or a child of it; on cuda what is taken of the GPU's memory,
            less what was taken before. Torch gives nothing of it back, so looking now and then is enough.
    """
    before, peak = _gpu_bytes() if device == "cuda" else 0, 0
    while process.poll() is None:
        if device == "cuda":
            peak = max(peak, _gpu_bytes() - before)
        else:
            peak = max(peak, *(_resident(one.pid) for one in (process, *_children(process))))
        time.sleep(0.25)
    return peak


def _gpu_bytes() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return max((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), default=0)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def pairs(
    case: Case, count: int, folder: Path, others: tuple[str, ...] = ("trl",), by: Callable[..., Done] = measure
) -> list[dict[str, Done]]:
    """Train by the studio and by others, turn about.

    Args:
        case: what is trained.
        count: how often each does it.
        folder: for what they write.
        others: what comes after the studio, in the number format that it chose.
        by: trains, as `measure` does.
    """
    found: list[dict[str, Done]] = []
    for number in range(count):
        ours = by("studio", case, folder / f"{number}-studio")
        same = replace(case, dtype=ours.dtype, checkpointing=ours.checkpointing)
        found.append({"studio": ours} | {side: by(side, same, folder / f"{number}-{side}") for side in others})
    return found


@dataclass(frozen=True)
class Beside:
    """The studio beside another one, over all pairs: medians, and the ratio of speeds from the least to the most.

    `cost` is the ratio of tokens for a second of a processor.
    """

    speeds: tuple[float, float]
    ratio: float
    least: float
    most: float
    peaks: tuple[int, int]
    planned: int
    far: float
    cost: float

    @classmethod
    def of(cls, found: list[dict[str, Done]], other: str) -> Beside:
        """Compare; `far` is the largest relative distance of a loss.

        Args:
            found: the pairs.
            other: beside which the studio is put.
        """
        both = [(pair["studio"], pair[other]) for pair in found]
        ratios = [ours.speed / theirs.speed for ours, theirs in both]
        far = max(
            abs(a - b) / max(abs(b), 1e-3) for one in both for a, b in zip(one[0].losses, one[1].losses, strict=True)
        )
        return cls(
            (median(ours.speed for ours, _ in both), median(theirs.speed for _, theirs in both)),
            median(ratios), min(ratios), max(ratios),
            (max(ours.peak for ours, _ in both), max(theirs.peak for _, theirs in both)), both[0][0].planned, far,
            median(ours.thrift / theirs.thrift if theirs.thrift else 0.0 for ours, theirs in both),
        )  # fmt: skip


def _studio(case: Case, folder: Path) -> dict[str, Any]:
    from studio.settings import read_settings
    from tests.parity.made import logged, make_trainer

    raw = {
        "model": {"path": case.model, "dtype": case.dtype},
        "data": {"train": [{"path": case.rows}], "validation": 0, "max_length": LIMIT},
        "method": {"name": case.method},
        "tuning": {"name": case.tuning, "rank": RANK},
        "training": {
            "max_steps": case.steps, "batch_size": case.batch, "learning_rate": case.rate, "warmup": 0, "seed": SEED,
            "scheduler": "constant", "save_steps": 10_000, "device": "cpu" if case.device == "cpu" else "any",
        },
    }  # fmt: skip
    watch = clock()
    made = make_trainer(raw, Path(case.model), folder / "out", read_settings(), [watch])
    made.trainer.train()
    plan = made.setup.plan
    return watch.report(logged(made.trainer), made.trainer.tokens_seen) | {
        "dtype": "bfloat16" if plan.autocast else "float32", "planned": plan.total_bytes,
        "checkpointing": plan.activation_checkpointing, "held": _held(case, made.trainer.model, made.setup.tokenizer),
    }  # fmt: skip


def _trl(case: Case, folder: Path) -> dict[str, Any]:
    """As a person would write it from the documentation of TRL and PEFT, with the settings that are fastest."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig, set_seed

    set_seed(SEED)
    dtype = torch.float32 if case.tuning == "full" else getattr(torch, case.dtype)
    loading: dict[str, Any] = {"dtype": dtype}
    if case.tuning == "qlora":
        loading["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    if case.device == "cuda" and find_spec("flash_attn") and case.dtype != "float32":
        loading["attn_implementation"] = "flash_attention_2"
    if case.method == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(case.model, num_labels=1, **loading)
    else:
        model = AutoModelForCausalLM.from_pretrained(case.model, **loading)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", use_dora=case.tuning == "dora",
        task_type="SEQ_CLS" if case.method == "reward" else "CAUSAL_LM",
    )  # fmt: skip
    return _by_trl(case, folder, model, None if case.tuning == "full" else lora)


def _unsloth(case: Case, folder: Path) -> dict[str, Any]:
    """TRL's trainer over Unsloth's model, as in its notebooks."""
    unsloth: Any = importlib.import_module("unsloth")  # before transformers
    saving: str | bool = "unsloth" if case.checkpointing else False
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=case.model, max_seq_length=LIMIT, dtype=None, load_in_4bit=case.tuning == "qlora",
        use_exact_model_name=True, use_gradient_checkpointing=saving,
    )  # fmt: skip
    model = unsloth.FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, bias="none", use_gradient_checkpointing=saving,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        random_state=SEED, max_seq_length=LIMIT, layers_to_transform=None, use_rslora=False, modules_to_save=None,
    )  # fmt: skip
    return _by_trl(case, folder, model, None)


def _by_trl(case: Case, folder: Path, model: Any, adapter: Any) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(case.model)
    # The answer ends with the token that ends it, as in the studio, so that both learn the same tokens.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "'<|im_end|>' + '\n'}}", "'<|im_end|>' + ('' if loop.last and not add_generation_prompt else '\n')}}"
    )
    rows = [json.loads(line) for line in Path(case.rows).read_text().splitlines()]
    if case.method == "sft":
        rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    if case.method == "kto":  # whose trainer keeps the order of the file; the studio mixes rows as others do
        random.Random(SEED).shuffle(rows)
    module, name = _TRAINERS[case.method]
    library: Any = importlib.import_module(module)
    # Packing needs flash attention; without it examples would see each other.
    arguments = getattr(library, f"{name}Config")(
        output_dir=str(folder / "out"), max_steps=case.steps, per_device_train_batch_size=case.micro,
        gradient_accumulation_steps=case.batch // case.micro, learning_rate=case.rate, lr_scheduler_type="constant",
        logging_steps=1, report_to="none", use_cpu=case.device == "cpu", bf16=case.dtype == "bfloat16",
        gradient_checkpointing=case.checkpointing, seed=SEED, save_strategy="no", disable_tqdm=True,
        max_length=LIMIT,
    )  # fmt: skip
    seen = [0]

    class Counting(getattr(library, f"{name}Trainer")):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen[0] += sum(int(inputs[key].sum()) for key in inputs if key in _MASKS)
            return super().training_step(model, inputs, *args, **kwargs)

    watch = clock()
    trainer = Counting(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        peft_config=adapter, callbacks=[watch],
    )  # fmt: skip
    if case.method == "reward" and case.tuning == "qlora":
        # TRL casts the head to bfloat16 with the adapter, and then fails on the float32 states that come to it.
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    trainer.train()
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry and "train_runtime" not in entry]
    return watch.report(losses, seen[0]) | {
        "dtype": case.dtype, "checkpointing": case.checkpointing, "held": _held(case, trainer.model, tokenizer),
    }  # fmt: skip


def _held(case: Case, model: Any, tokenizer: Any) -> float:
    return held_loss(model, tokenizer, case.held) if case.held else 0.0


_MASKS = ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")


_SIDES: dict[str, Callable[[Case, Path], dict[str, Any]]] = {"studio": _studio, "trl": _trl, "unsloth": _unsloth}


if __name__ == "__main__":
    given = Path(sys.argv[2])
    done = _SIDES[sys.argv[1]](Case(**json.loads((given / "case.json").read_text())), given)
    (given / "done.json").write_text(json.dumps(done))
