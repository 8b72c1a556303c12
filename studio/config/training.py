"""How long, how fast and with which optimizer."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from studio.methods import METHODS
from studio.option import Options, having, option, whole_or_auto
from studio.tunings import TUNINGS

Auto = Literal["auto"]
# Headings of the advanced options in the form.
SCHEDULE = "Steps and schedule"
OPTIMIZER = "Optimizer"
SPEED = "Speed and memory"
VALIDATION = "Validation"
CHECKPOINTS = "Checkpoints"
RECORD = "Record"
Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]


class TrainingConfig(Options):
    """Section `training`. The terms are those of transformers' TrainingArguments unless said otherwise."""

    epochs: float = option(
        2.0, "Passes over the training data.", title="Epochs", unit="epochs", tier="basic", gt=0, le=1000,
        differs="transformers: 3.",
    )  # fmt: skip
    max_steps: int | None = option(
        None, "Stop after this many updates, whatever the epochs say; empty for no limit.", title="Maximum steps",
        group=SCHEDULE, unit="steps", ge=1,
    )  # fmt: skip
    batch_size: int = option(
        8,
        "Examples per update. How many are computed at a time follows from the memory plan.",
        title="Batch size",
        unit="examples",
        tier="basic",
        ge=1,
        le=65536,
        differs="This is the effective size; in TRL it is per device and before accumulation.",
    )
    micro_batch_size: int | Auto = option(
        "auto",
        "Examples computed at a time. auto picks a fast size: on a CPU about 2,000 tokens, using at most half of the "
        "free memory if the run fits in that; on a GPU as many as fit.",
        title="Micro-batch",
        group=SPEED,
        unit="examples",
        differs="TRL: 8, in the order of the data; here those of similar length in an update are computed together, "
        "where the loss is the same.",
    )
    learning_rate: float | Auto = option(
        "auto",
        "Step size of the optimizer. auto takes it from docs/methods.md, by method, tuning and model size.",
        title="Learning rate",
        tier="basic",
        differs="TRL: 2e-5 for everything, which is too small for an adapter.",
    )
    scheduler: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "cosine_with_min_lr",
        "polynomial", "inverse_sqrt", "warmup_stable_decay",
    ] = option(
        "cosine", "How the learning rate changes over the run.", title="Scheduler", group=SCHEDULE,
        differs="transformers: linear.",
    )  # fmt: skip
    warmup: float = option(
        0.05, "Share of the steps over which the learning rate rises from 0.", title="Warmup", group=SCHEDULE, ge=0,
        le=1, differs="transformers: none.",
    )  # fmt: skip
    padding_free: bool = option(
        False,
        "Compute the examples of a micro-batch as one row without padding; each sees only itself, so nothing changes "
        "but time and memory. Refused for models whose layers would mix the examples.",
        title="Padding-free",
        group=SPEED,
        methods=having("padding_free", METHODS),
        differs="TRL's packing also fills rows up to the limit, which changes how many examples an update has.",
    )
    optimizer: Literal[
        "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "adamw_8bit",
        "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "ademamix_8bit",
    ] = option(
        "adamw_torch_fused",
        "How gradients become updates. Those with 8bit keep their state in a quarter of the memory.",
        title="Optimizer", group=OPTIMIZER,
    )  # fmt: skip
    weight_decay: float = option(
        0.0, "Shrinks the weights towards 0 at each step.", title="Weight decay", group=OPTIMIZER, ge=0, le=1
    )
    max_grad_norm: float = option(
        1.0, "Gradients with a larger norm are scaled down to it; 0 turns clipping off.", title="Gradient clipping",
        group=OPTIMIZER, ge=0,
    )  # fmt: skip
    activation_checkpointing: bool | Auto = option(
        "auto",
        "Recompute activations in the backward pass to save memory; auto only when they would not fit.",
        title="Activation checkpointing",
        group=SPEED,
        differs="TRL: always on, which costs a third of the speed even where memory is plentiful.",
    )
    activation_offloading: bool | Auto = option(
        "auto",
        "Keep what activation checkpointing saves in the computer's memory, not the GPU's: for long rows; auto only "
        "when they would not fit otherwise.",
        title="Activation offloading",
        group=SPEED,
        needs=("activation_checkpointing", ()),
        differs="TRL: off; on, it moves all activations, with or without checkpointing.",
    )
    eval_steps: int | Auto = option(
        "auto", "Updates between validations; auto is eight times per run, fewer where they would take long.",
        title="Validate every", group=VALIDATION, unit="steps",
    )  # fmt: skip
    early_stopping: int | None = option(
        None, "Stop after this many validations without improvement; empty never does.",
        title="Early stopping patience", group=VALIDATION, unit="validations", ge=1,
    )  # fmt: skip
    early_stopping_threshold: float = option(
        0.0, "An improvement counts for early stopping if it is larger than this.",
        title="Early stopping threshold", group=VALIDATION, ge=0, needs=("early_stopping", ()),
    )  # fmt: skip
    keep_best: bool | Auto = option(
        "auto",
        "Save a checkpoint whenever the validation is the best so far, and never remove it; auto does so for adapters, "
        "whose checkpoints are small, where there are validation rows.",
        title="Keep the best checkpoint",
        group=CHECKPOINTS,
        differs="transformers: only checkpoints that were due anyway can be the best.",
    )
    load_best_model_at_end: bool = option(
        False, "Save the weights of the best validation as the run's model instead of the last ones.",
        title="Load best model at end", group=CHECKPOINTS,
    )  # fmt: skip
    metric_for_best_model: str = option(
        "auto",
        "Validation metric that decides which is the best; auto is eval_loss, for ppo and grpo eval_reward. Others "
        "are the method's metrics prefixed with eval_ (docs/methods.md).",
        title="Metric for best model",
        group=VALIDATION,
        min_length=1,
    )
    save_steps: int | Auto = option(
        "auto", "Updates between checkpoints; auto is once per epoch.", title="Save every", group=CHECKPOINTS,
        unit="steps",
    )  # fmt: skip
    save_total_limit: int = option(
        2,
        "Maximum number of checkpoints to keep; older ones are removed.",
        title="Checkpoint limit",
        group=CHECKPOINTS,
        ge=1,
    )
    keep_checkpoints: Literal["all", "last", "none"] = option(
        "all",
        "Which checkpoints stay once the run is done and its model is saved; they only serve to resume from. The best "
        "one stays in any case where the run keeps one. A run that ends early keeps all.",
        title="Checkpoints to keep",
        group=CHECKPOINTS,
        differs="transformers: always all.",
    )
    report_to: list[Tracker] = option(
        list,
        "Experiment trackers that also get the run's metrics; without a key or address they write into its folder.",
        title="Experiment trackers",
        group=RECORD,
        differs="transformers: every tracker that is installed.",
    )
    seed: int = option(42, "Random seed; the same seed gives the same run.", title="Seed", group=RECORD, ge=0, lt=2**32)

    engine: Literal["studio", "unsloth"] = option(
        "studio",
        "studio: TRL with the studio's own loss and data, on every device; unsloth: the kernels and model code of "
        "Unsloth, on an NVIDIA GPU.",
        title="Engine",
        methods=having("unsloth", METHODS),
        tunings=having("unsloth", TUNINGS),
    )

    kernels: Literal["auto", "off"] = option(
        "auto",
        "Compute LoRA layers, attention, norms and the loss with the studio's own CPU kernels, without padding, and "
        "compute shared prefixes once: faster, with less memory. On an NVIDIA GPU norms, gates and rotary positions "
        "are Liger's, if installed. auto does so if a small batch gives the same results as the model's own layers.",
        title="Fused kernels",
        group=SPEED,
        differs="TRL: the model's own layers.",
    )

    device: str = option(
        "any", "Where the run computes: any takes the first free device, cuda:0 that GPU, cpu the CPU.",
        title="Device", group=SPEED,
    )  # fmt: skip
    devices: str = option(
        "auto",
        "How many devices compute the run together, each with a process of its own: a number, or the numbers of GPUs, "
        "such as [0, 2]; auto is one. On a CPU it is the number of processes, which share the cores.",
        title="Devices",
        group=SPEED,
        differs="transformers: every GPU that it sees.",
    )
    nodes: int = option(
        1,
        "How many machines compute the run together, each with `devices`. More than one: studio launch --to slurm or "
        "--to torchrun starts it on all of them.",
        title="Machines", unit="machines", group=SPEED, ge=1, le=1024,
    )  # fmt: skip
    parallel: Literal["auto", "none", "ddp", "fsdp2", "zero1", "zero2", "zero3"] = option(
        "auto",
        "How an update is split across devices. ddp: each holds the whole model; fsdp2: "
        "each holds a part of every weight, for models that do not fit; zero1, zero2, zero3: DeepSpeed divides the "
        "optimizer's states, gradients too, weights too; none: one device. auto is ddp where that fits, else fsdp2.",
        title="Parallelism",
        group=SPEED,
    )

    @property
    def device_ids(self) -> tuple[int, ...]:
        """Numbers of the GPUs that `devices` lists; empty where it gives a number of devices or auto."""
        return tuple(map(int, re.findall(r"\d+", self.devices))) if self.devices.startswith("[") else ()

    @property
    def ranks_here(self) -> int:
        """Processes that compute the run on each machine: 1 for auto."""
        if self.devices == "auto":
            return 1
        return len(self.device_ids) or int(self.devices)

    @property
    def ranks(self) -> int:
        """Processes that compute the run together, on all machines."""
        return self.ranks_here * self.nodes

    @property
    def fuses(self) -> bool:
        """Whether the run wants layers in place of the model's own: the engine's on a CPU, Liger's on a GPU."""
        return self.kernels == "auto" and self.engine == "studio"

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"any|cpu|cuda:\d{1,3}", value):
            raise ValueError("any, cpu, or a GPU such as cuda:0")
        return value

    @field_validator("devices", mode="before")
    @classmethod
    def _devices(cls, value: object) -> object:
        wrong = "auto, a number of devices from 1, or the numbers of different GPUs such as [0, 2]"
        if isinstance(value, list) and all(type(one) is int for one in value):
            value = f"[{', '.join(map(str, value))}]"
        if type(value) not in (str, int):  # nothing nested, which could be of any size
            raise ValueError(wrong)
        text = " ".join(str(value).split())
        if re.fullmatch(r"auto|[1-9]\d{0,3}", text):
            return text
        if not re.fullmatch(r"\[? ?\d{1,3}( ?, ?\d{1,3})* ?\]?", text) or text.startswith("[") != text.endswith("]"):
            raise ValueError(wrong)
        ids = [int(one) for one in re.findall(r"\d+", text)]
        if len(set(ids)) < len(ids) or text == "0":
            raise ValueError(wrong)
        return f"[{', '.join(map(str, ids))}]"

    @field_validator("report_to", mode="before")
    @classmethod
    def _trackers(cls, value: object) -> object:
        words = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        return list(dict.fromkeys(word for word in words if word)) if isinstance(words, list) else words

    @field_validator("micro_batch_size", "eval_steps", "save_steps")
    @classmethod
    def _count(cls, value: int | str) -> int | str:
        return whole_or_auto(value)

    @field_validator("learning_rate")
    @classmethod
    def _rate(cls, value: float | str) -> float | str:
        if value != "auto" and not 0 < float(value) <= 1:
            raise ValueError("a number above 0 and at most 1, or auto")
        return value
