"""What the jobs after training are asked: evaluate, export and merge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from studio.errors import InputError
from studio.methods import METHODS, Method, RowKind
from studio.option import Options, option, whole_or_auto

GgufType = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0", "q3_k_m", "q2_k",
    "q5_0", "q3_k_l", "q3_k_s",
    "iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
]  # fmt: skip
# What llama.cpp refuses without an importance matrix, and what loses clearly less with one (docs/export.md).
MATRIX_NEEDED: tuple[GgufType, ...] = (
    "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
)  # fmt: skip
MATRIX_HELPS: tuple[GgufType, ...] = ("q4_0", "q3_k_s", "q2_k", "iq4_nl", "iq4_xs", "iq3_m", "iq3_s")
MATRIX_ENDING = ".imatrix.gguf"  # of the file's name; it is a GGUF, and no model
_CONTINUED = re.compile(r"-(?!00001-)\d{5}-of-\d{5}\.gguf$")
Destination = Literal[
    "gguf", "ollama", "llama-server", "lmstudio", "gguf-lora", "merged", "adapter", "vllm", "sglang", "tgi", "hub",
    "folder",
]  # fmt: skip
# What is made for each, as a clause.
DESTINATIONS: dict[Destination, str] = {
    "gguf": "files for llama.cpp, Ollama and LM Studio",
    "ollama": "GGUF files, and a model of Ollama where it is installed",
    "llama-server": "GGUF files, and a script that starts llama.cpp's server with the first of them",
    "lmstudio": "GGUF files, put among the models of LM Studio where it is installed",
    "gguf-lora": "the adapter as a GGUF, which llama.cpp loads on top of the base model's GGUF",
    "merged": "base model and adapter as one checkpoint in safetensors, for vLLM, SGLang, transformers or training",
    "adapter": "the adapter alone, for programs that load it beside its base model",
    "vllm": "a checkpoint or the adapter, and a script that starts vLLM with it",
    "sglang": "a checkpoint or the adapter, and a script that starts SGLang with it",
    "tgi": "a checkpoint or the adapter, and a script that starts TGI 3.3.7, the last version of an archived project",
    "hub": "a checkpoint, an adapter or GGUF files in a repository of the Hugging Face Hub",
    "folder": "a checkpoint, an adapter or GGUF files in a folder or zip file of your choice",
}
# Destinations whose files are GGUF, and those that serve a folder.
GGUF_MADE: tuple[Destination, ...] = ("gguf", "ollama", "llama-server", "lmstudio")
SERVERS: tuple[Destination, ...] = ("vllm", "sglang", "tgi")
LEAST_CONTEXT = 16
# Precisions of other tools, which people ask for by these names.
CALIBRATED = ("awq", "gptq")
# What is made for them is said by `what`, and put there once it is proven.
PLACES: tuple[Destination, ...] = ("hub", "folder")
DEFAULT_TYPES: tuple[GgufType, ...] = ("q4_k_m",)
COMPARED: tuple[RowKind, ...] = ("pairs", "rated")  # rows whose answers are compared with each other
DEMO_TRAIN, DEMO_TEST = "demo/train.jsonl", "demo/test.jsonl"
AUTO, HELD_OUT = "auto", "validation"  # instead of a file: the run's usual rows, the rows that it held out
CHOOSE_ROWS = "Choose a file of rows (--data FILE)"


def is_model_file(name: str) -> bool:
    """Whether a GGUF of an export is a model that programs are given: no importance matrix, no later part of a model.

    Args:
        name: of the file.
    """
    return name.endswith(".gguf") and not name.endswith(MATRIX_ENDING) and _CONTINUED.search(name) is None


def usual_rows(run: Mapping[str, Any]) -> str:
    """Return the rows that say most of a run: its validation rows, and the demo's test rows for a run on its orders.

    They are HELD_OUT also where the run held out none, which `asked_rows` refuses.

    Args:
        run: configuration of the run, as job.yaml has it; {} for a model that no run made.
    """
    data, method = run.get("data") or {}, _method(run)
    paths = [str(source.get("path")) for source in data.get("train") or [] if isinstance(source, Mapping)]
    demo = bool(paths) and all(one.startswith("demo/") for one in paths)
    # Pairs and sums of the demo are no orders: what was held out of them says more.
    orders = method is None or method.rows == "answers" or not data.get("validation")
    return DEMO_TEST if demo and orders else _own_rows(run)


def asked_rows(asked: str, run: Mapping[str, Any], name: str) -> str:
    """Return the file of rows on which a run is evaluated, or HELD_OUT where it held out a share of its own.

    Args:
        asked: a file, AUTO or HELD_OUT.
        run, name: the run's configuration, as job.yaml has it, and its name.

    Raises:
        InputError: the run's own rows are asked for, and it held out none.
    """
    if asked not in (AUTO, HELD_OUT):
        return asked
    rows = usual_rows(run) if asked == AUTO else _own_rows(run)
    if rows == HELD_OUT and not (run.get("data") or {}).get("validation"):
        raise InputError(f"run '{name}' held out no rows", where="data", fix=CHOOSE_ROWS)
    return rows


def _own_rows(run: Mapping[str, Any]) -> str:
    validation = (run.get("data") or {}).get("validation")
    return validation if isinstance(validation, str) and validation else HELD_OUT


def compares(run: Mapping[str, Any]) -> bool:
    """Whether a run learned which of two answers is better, and is evaluated on that."""
    method = _method(run)
    return method is not None and method.rows in COMPARED


def _method(run: Mapping[str, Any]) -> Method | None:
    return METHODS.get(str((run.get("method") or {}).get("name")))


class EvaluateConfig(Options):
    """An evaluation: the same rows answered before and after."""

    run: str = option(..., "The training run (its id or name) whose result is measured.", title="Run", min_length=1)
    data: str = option(
        AUTO,
        "File of rows that were not trained on, with expected answers, pairs or rated answers; or validation, for the "
        "rows that the run held out. auto uses those; for a run on the demo dataset it uses the demo's test rows.",
        title="Rows", tier="basic", min_length=1,
    )  # fmt: skip
    limit: int | None = option(None, "Only the first N rows; empty for all.", title="Row limit", unit="rows", ge=1)
    max_new_tokens: int | Literal["auto"] = option(
        "auto",
        "Maximum length of an answer; a longer one is cut and counts as wrong. auto is the longest expected answer "
        "plus 16.",
        title="Maximum new tokens",
        unit="tokens",
    )

    @field_validator("max_new_tokens")
    @classmethod
    def _count(cls, value: int | str) -> int | str:
        return whole_or_auto(value)


class ExportConfig(Options):
    """An export of a run or a model: what is made of it, what serves it, and where it is put."""

    run: str = option(
        ...,
        "What is exported: a training run (its id or name), or a model: the folder of a checkpoint or of a PEFT "
        "adapter, or the Hub id of a downloaded model.",
        title="Run or model", min_length=1,
    )  # fmt: skip
    to: Destination = option(
        "gguf",
        " ".join(f"{name}: {made}." for name, made in DESTINATIONS.items()),
        title="Destination", tier="basic",
    )  # fmt: skip
    checkpoint: int | None = option(
        None, "Step of the checkpoint that is exported; empty for the run's result.", title="Checkpoint", unit="steps",
        ge=1,
    )  # fmt: skip
    types: list[GgufType] = Field(
        default_factory=lambda: list(DEFAULT_TYPES),
        min_length=1,
        title="GGUF types",
        description="GGUF types to make: q4_k_m is small, q8_0 close to the original, f16 exact.",
        json_schema_extra={
            "unit": None,
            "tier": "basic",
            "methods": [],
            "tunings": [],
            "differs": None,
            "needs": ["to", list(GGUF_MADE)],
        },
    )
    imatrix: Literal["auto", "on", "off"] = option(
        "auto",
        "Weigh rounding errors by how strongly each weight is used on the run's training rows, or on the rows that a "
        "model without a run answers. auto: for the IQ types, Q4_0, Q3_K_S and Q2_K; on: for all types that can; off: "
        "for none, and IQ1, IQ2, IQ3_XXS and IQ3_XS cannot be made.",
        title="Importance matrix", needs=("to", GGUF_MADE),
    )  # fmt: skip
    shard_size: float | None = option(
        None,
        "Maximum size of a GGUF file. A larger one is divided into several files in llama.cpp's own form "
        "(NAME-00001-of-00003.gguf): programs are given the first. Empty: one file.",
        title="Maximum GGUF size", unit="GB", needs=("to", ("gguf", "llama-server")), ge=0.01, le=1000,
    )  # fmt: skip
    dtype: Literal["auto", "bfloat16", "float16", "float32", "nf4"] = option(
        "auto",
        "Precision of the checkpoint's weights. auto is the base model's own. nf4: 4 bits, packed by bitsandbytes, for "
        "transformers and programs that read its checkpoints.",
        title="Precision", tier="basic", needs=("to", ("merged", *SERVERS)),
    )  # fmt: skip
    shard_gb: float = option(
        1.0,
        "Maximum size of a safetensors file; a larger tensor has a file of its own. Twice as much memory is "
        "needed while merging.",
        title="Maximum file size", unit="GB", needs=("to", ("merged", *SERVERS)), ge=0.05, le=50,
    )  # fmt: skip
    serve: Literal["merged", "adapter"] = option(
        "merged",
        "merged: base model and adapter as one checkpoint. adapter: the adapter beside its base model, which a server "
        "can load together with others.",
        title="What is served", tier="basic", needs=("to", SERVERS),
    )  # fmt: skip
    context: int | Literal["auto"] = option(
        "auto",
        "Maximum tokens of a conversation, prompt and answer together. auto is what the model can read, at most 8192; "
        "more needs more memory.",
        title="Context length", unit="tokens", needs=("to", (*SERVERS, "llama-server")),
    )  # fmt: skip
    base: str | None = option(
        None,
        "Name of the base model that the adapter carries, such as a Hub id: programs load the base model by it. Empty: "
        "the Hub id or folder that it was trained from.",
        title="Base model", needs=("to", ("adapter", *SERVERS)),
    )  # fmt: skip
    evaluate: str | None = option(
        None, "File of rows on which the exported model answers too (exact match); empty for none.", title="Rows"
    )  # fmt: skip
    what: Literal["merged", "adapter", "gguf"] = option(
        "merged",
        "What is uploaded or written. merged: one checkpoint in safetensors. adapter: the adapter alone. gguf: GGUF "
        "files of the chosen types.",
        title="What", tier="basic", needs=("to", PLACES),
    )  # fmt: skip
    repo: str | None = option(
        None,
        "Repository on the Hub, as owner/name; it is created if it is not there. The token comes from HF_TOKEN or "
        "hf auth login.",
        title="Repository", tier="basic", needs=("to", ("hub",)),
    )  # fmt: skip
    private: bool = option(
        True, "Create the repository as private. An existing one keeps its visibility.",
        title="Private", tier="basic", needs=("to", ("hub",)),
    )  # fmt: skip
    overwrite: bool = option(
        False,
        "Upload into a repository that holds files already: those of the same names are replaced, and older weights "
        "that would be loaded in place of the new ones are removed. Its history keeps them.",
        title="Replace files", needs=("to", ("hub",)),
    )  # fmt: skip
    path: str | None = option(
        None,
        "A new or empty folder; a name ending in .zip makes a zip file. Existing files are never overwritten.",
        title="Folder or zip file", tier="basic", needs=("to", ("folder",)),
    )  # fmt: skip

    @field_validator("dtype", mode="before")
    @classmethod
    def _made_here(cls, value: Any, info: ValidationInfo) -> Any:
        if value in CALIBRATED:
            tool = "llmcompressor"
            raise ValueError(
                f"{value} needs calibration by {tool}, which is not part of the studio: export merged in bfloat16 and "
                f"give that folder to it (pip install {tool}), or choose nf4"
            )
        if value == "nf4" and info.data.get("to") in SERVERS:
            raise ValueError("nf4 is for merged, hub and folder: choose another precision for a server")
        return value

    @field_validator("context")
    @classmethod
    def _some_context(cls, value: int | str) -> int | str:
        if value != "auto" and int(value) < LEAST_CONTEXT:
            raise ValueError(f"at least {LEAST_CONTEXT} tokens, or auto, are needed")
        return value

    @field_validator("imatrix")
    @classmethod
    def _made_where_needed(cls, value: str, info: ValidationInfo) -> str:
        lacking = [kind for kind in info.data.get("types") or [] if kind in MATRIX_NEEDED]
        if value == "off" and lacking and info.data.get("to") in (*GGUF_MADE, *PLACES):
            what = f"{', '.join(lacking)} cannot be made without an importance matrix"
            raise ValueError(f"{what}: choose auto, or other types")
        return value

    @property
    def made(self) -> Destination:
        """What is made, wherever it is put: a destination that is no place."""
        return self.what if self.to in PLACES else self.to


def made_for(to: str, what: str | None) -> str:
    """Return what is made for a destination that is asked for, and not checked yet.

    Args:
        to: the destination.
        what: what is put there, where it is a place; None for the default.
    """
    return (what or str(ExportConfig.model_fields["what"].default)) if to in PLACES else to


def only_adapter(export: Mapping[str, Any]) -> bool:
    """Whether an export makes an adapter alone, wherever it is put and whatever serves it.

    Args:
        export: its options, as job.yaml has them.
    """
    served = export.get("to") in SERVERS and export.get("serve") == "adapter"
    return served or made_for(str(export.get("to")), export.get("what")) in ("adapter", "gguf-lora")


# Options of a merge that nobody types.
FILLED_IN = ("parents", "like", "varied", "asked_by")


class MergeConfig(Options):
    """A merge: one model made of several."""

    recipe: str = option(
        ...,
        "What is merged, and how: mergekit's YAML, in which a model may also be the name of a run (docs/merge.md).",
        title="Recipe", tier="basic", min_length=1,
    )  # fmt: skip
    evaluate: str | None = option(
        None,
        "File of rows with expected answers, pairs or rated answers, on which the models and the child are compared; "
        "empty for none.",
        title="Rows", tier="basic",
    )  # fmt: skip
    compare: bool = option(
        True, "Also evaluate the models that are merged, not only the child.", title="Compare with the models",
        needs=("evaluate", ()),
    )  # fmt: skip
    seed: int = option(
        42, "Start of the random choices of DARE and DELLA; the same seed gives the same child.", title="Seed",
        ge=0, le=2**32 - 1,
    )  # fmt: skip
    shard_gb: float = option(
        1.0,
        "Maximum size of a safetensors file of the child, which is held in memory until it is written.",
        title="Maximum file size", unit="GB", ge=0.05, le=50,
    )  # fmt: skip
    parents: dict[str, str] = option(
        dict,
        "What each name in the recipe meant when the merge was asked for; the studio fills it in.",
        title="Models",
    )  # fmt: skip
    like: dict[str, Any] = option(
        dict,
        "Options of the first model that was trained here, from which the child has its data and method for "
        "evaluation and export; the studio fills it in.",
        title="Training",
    )  # fmt: skip
    varied: dict[str, float] = option(
        dict,
        "In a sweep: the place in the recipe that is varied, and its value in this merge; the studio fills it in.",
        title="Varied value",
    )  # fmt: skip
    asked_by: str | None = option(
        None, "In a sweep: id of its merge that evaluates the models; the studio fills it in.",
        title="Models evaluated by",
    )  # fmt: skip
