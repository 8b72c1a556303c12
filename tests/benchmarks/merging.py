"""Peak memory of merging an adapter into a checkpoint of the shapes of Qwen2.5-7B, with random weights.

    python -m tests.benchmarks.merging [FOLDER]         needs 31 GB of disk and some minutes; the files are removed
Prints the peaks and exits with 1 when the merge took more than `GOAL_GB` or than the process without any weights and
twice the largest file it writes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from studio.export.gguf.shards import ShardWriter
from studio.export.steps import QuietWatcher, StepResult, require, run_own_step

GOAL_GB = 3.0
DISK_BYTES = 33_000_000_000
RANK = 16
BASE_SHARD, SHARD = 4_000_000_000, 1_000_000_000  # about the Hub's files of it; what an export writes by default


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2 model."""

    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of a block by name, each (out, in)."""
        return {
            "self_attn.q_proj": (self.hidden, self.hidden), "self_attn.k_proj": (self.keys, self.hidden),
            "self_attn.v_proj": (self.keys, self.hidden), "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inner, self.hidden), "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }  # fmt: skip


SMALL, LARGE = Shape(1, 64, 96, 32, 128), Shape(28, 3584, 18944, 512, 152064)


@dataclass(frozen=True)
class Merged:
    """One measurement.

    Attributes:
        base_bytes: of the checkpoint.
        largest: bytes of the largest file that was written.
        idle: largest resident set in bytes of the same process merging a model of a few kilobytes.
        peak: that of the merge.
        seconds: it took.
    """

    base_bytes: int
    largest: int
    idle: int
    peak: int
    seconds: float

    @property
    def bound(self) -> int:
        """Bytes that it may have taken."""
        return min(int(GOAL_GB * 1e9), self.idle + 2 * self.largest)


def measure(folder: Path) -> Merged:
    """Make the checkpoints and adapters in `folder`, and merge them there."""
    small = merge(*make(folder / "small", SMALL), folder / "small-merged")
    base, adapter = make(folder / "large", LARGE)
    large = merge(base, adapter, folder / "large-merged")
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    largest = max(file.stat().st_size for file in (folder / "large-merged").glob("*.safetensors"))
    return Merged(size, largest, small.peak_bytes, large.peak_bytes, large.seconds)


def make(folder: Path, shape: Shape) -> tuple[Path, Path]:
    """Write a checkpoint in bfloat16 and an adapter of all its linear layers; returns their folders."""
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    writer, halves = ShardWriter(base, BASE_SHARD), {}
    for name in ("model.embed_tokens", "lm_head"):
        writer.add(f"{name}.weight", _random(shape.vocabulary, shape.hidden))
    writer.add("model.norm.weight", _random(shape.hidden))
    for layer in range(shape.layers):
        for name in ("input_layernorm", "post_attention_layernorm"):
            writer.add(f"model.layers.{layer}.{name}.weight", _random(shape.hidden))
        for name, (out, inputs) in shape.linear.items():
            module = f"model.layers.{layer}.{name}"
            writer.add(f"{module}.weight", _random(out, inputs))
            halves[f"base_model.model.{module}.lora_A.weight"] = _random(RANK, inputs).float()
            halves[f"base_model.model.{module}.lora_B.weight"] = _random(out, RANK).float()
    writer.close()
    save_file(halves, adapter / "adapter_model.safetensors")
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": shape.hidden,
        "intermediate_size": shape.inner, "num_hidden_layers": shape.layers, "vocab_size": shape.vocabulary,
        "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip
    (base / "config.json").write_text(json.dumps(config))
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": list(shape.linear)})
    )
    return base, adapter


def merge(base: Path, adapter: Path, target: Path) -> StepResult:
    """Run the export's own step."""
    request = {
        "base": str(base), "adapter": str(adapter), "target": str(target), "tokenizer": str(base),
        "form": {"dtype": "bfloat16", "shard_bytes": SHARD, "uniform": True},
    }  # fmt: skip
    result = require(run_own_step("studio.export.gguf.merge", request, adapter, QuietWatcher()), "merging")
    assert result.answer["method"] == "streaming", result.answer
    return result


def _random(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)


def main(arguments: list[str]) -> int:
    """Measure in a folder that is removed afterwards; returns the exit code."""
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as folder:
        found = measure(Path(folder))
    print(
        f"merged {found.base_bytes / 1e9:.1f} GB in {found.seconds:.0f} s: peak {found.peak / 1e9:.2f} GB "
        f"(goal {found.bound / 1e9:.2f}), without weights {found.idle / 1e9:.2f}"
    )
    return 1 if found.peak > found.bound else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
