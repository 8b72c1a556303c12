"""The plan beside the table that most people know, and the figures of docs/memory.md, which come from here.

The table is in the README of LLaMA-Factory (hiyouga/LLaMA-Factory, "Hardware Requirement", marked as estimated); its
sizes are those of Llama 2. `python -m tests.models.plan.test_known_table` prints the rows of the page, to be pasted
when the plan changes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studio.models.inspect.adapted import Adapted, adapted
from studio.models.inspect.known_shapes import KnownModel, shape_of
from studio.models.inspect.shape import ModelShape
from studio.models.plan.memory import Load, estimate
from studio.tunings import TuningConfig
from tests.support.known import PUBLISHED

PAGE = Path(__file__).resolve().parents[3] / "docs" / "memory.md"
# GB by size. Rows that the studio has no counterpart for are left out: pure bf16 (weights, gradients and moments in 16
# bits), freeze (a few whole blocks), 2 bits.
LLAMA2 = {
    size: {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": 32000,
        "max_position_embeddings": 4096, "tie_word_embeddings": False,
    }
    for size, hidden, inner, layers, heads, kv_heads in (
        ("7B", 4096, 11008, 32, 32, 32), ("13B", 5120, 13824, 40, 40, 40), ("70B", 8192, 28672, 80, 64, 8),
    )
}  # fmt: skip
TABLE = {
    "full": {"7B": 120, "13B": 240, "70B": 1200},
    "lora": {"7B": 16, "13B": 32, "70B": 160},
    "qlora 8": {"7B": 10, "13B": 20, "70B": 80},
    "qlora 4": {"7B": 6, "13B": 12, "70B": 48},
}
NAMES = {"full": "Full, AMP", "lora": "LoRA, 16 bits", "qlora 8": "QLoRA, 8 bits", "qlora 4": "QLoRA, 4 bits"}
# One row of 1,024 tokens at a time with checkpointing, the smallest run that the table can mean, is between a fifth
# below it and a twentieth above.
FACTOR = 1.3
# The same plan with more in it: (rows at a time, tokens, checkpointing).
LARGER = ((4, 2048, True), (1, 1024, False))
CELLS = [(row, size) for row in TABLE for size in LLAMA2]


def plain_shape(size: str) -> ModelShape:
    return shape_of(KnownModel("", "", 0, LLAMA2[size]))


def load(shape: ModelShape, row: str, rows: int = 1, length: int = 1024, checkpointing: bool = True) -> Load:
    """A run of that row on a GPU, with its usual rank, 8, on all linear layers, half of the tokens supervised."""
    name, _, bits = row.partition(" ")
    tuning = TuningConfig(name=name, bits=bits or "4", rank=8)  # type: ignore[arg-type]
    return Load(
        adapter=adapted(shape, tuning), dtype_bytes=4 if name == "full" else 2,
        autocast=True, optimizer="adamw_torch_fused", micro_batch=rows, length=length, supervised=rows * length // 2,
        checkpointing=checkpointing, cuda=True, weight_bits=tuning.kind.weight_bits(tuning),
    )  # fmt: skip


def gigabytes(shape: ModelShape, row: str, rows: int = 1, length: int = 1024, checkpointing: bool = True) -> float:
    return sum(estimate(shape, load(shape, row, rows, length, checkpointing)).values()) / 1e9


@pytest.mark.parametrize(("row", "size"), CELLS)
def test_the_plan_agrees_with_the_table(row: str, size: str) -> None:
    planned = gigabytes(plain_shape(size), row)
    assert TABLE[row][size] / FACTOR < planned < TABLE[row][size] * FACTOR


def test_where_the_table_is_optimistic() -> None:
    seven = plain_shape("7B")
    assert all(gigabytes(seven, "qlora 4", *larger) > 1.5 * TABLE["qlora 4"]["7B"] for larger in LARGER)
    # A small model: half a byte a weight would be 0.07 GB.
    assert gigabytes(shape_of(PUBLISHED["smollm2-135m-instruct"]), "qlora 4") > 1
    # Embedding and head of 128,256 words stay in 16 bits: 2.1 GB that are 0.5 GB with Llama 2's 32,000.
    eight = shape_of(PUBLISHED["llama3.1-8b-instruct"])
    assert gigabytes(eight, "qlora 4") > 1.2 * gigabytes(seven, "qlora 4")
    # And so do experts, for which the table of 2024 said 30 GB.
    mixtral = shape_of(PUBLISHED["mixtral-8x7b-instruct"])
    attention = replace(load(mixtral, "qlora 4"), adapter=Adapted(tuple((one, 8) for one in mixtral.linears), 8))
    assert sum(estimate(mixtral, attention).values()) / 1e9 > 3 * 30


def table_rows() -> list[str]:
    """The lines of the page's table."""
    lines = []
    for row, size in CELLS:
        shape, known = plain_shape(size), TABLE[row][size]
        plans = [gigabytes(shape, row), *(gigabytes(shape, row, *larger) for larger in LARGER)]
        cells = [NAMES[row], size, f"{known:,}", *(_shown(plan) for plan in plans), f"{plans[0] / known:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def other_rows() -> list[str]:
    """The lines of the page's second table: models that the table's rule of bytes a weight does not know."""
    lines = []
    for name, row, rule in (
        ("smollm2-135m-instruct", "qlora 4", 0.5), ("qwen2.5-0.5b-instruct", "lora", 2),
        ("llama3.1-8b-instruct", "qlora 4", 0.5), ("gemma2-9b-it", "qlora 4", 0.5),
        ("mixtral-8x7b-instruct", "qlora 4", 0.5),
    ):  # fmt: skip
        shape = shape_of(PUBLISHED[name])
        whole = load(shape, row)
        if shape.experts:
            whole = replace(whole, adapter=Adapted(tuple((one, 8) for one in shape.linears), 8))
        planned = sum(estimate(shape, whole).values()) / 1e9
        by_rule = rule * shape.parameters / 1e9
        lines.append(f"| {PUBLISHED[name].title} | {NAMES[row]} | {_shown(by_rule)} | {_shown(planned)} |")
    return lines


def test_the_page_has_these_figures() -> None:
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "LoRA, " in line
    ]
    rows += [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| Full, AMP")]
    assert sorted(rows) == sorted(table_rows() + other_rows())


def _shown(gigabytes_: float) -> str:
    return f"{gigabytes_:,.0f}" if gigabytes_ >= 100 else f"{gigabytes_:.1f}"


if __name__ == "__main__":
    print("\n".join([*table_rows(), "", *other_rows()]))
