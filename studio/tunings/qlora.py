"""QLoRA (Dettmers et al. 2023, arXiv:2305.14314): an adapter beside weights that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from studio.option import option
from studio.tunings.adapter import AdapterOptions, LoraPlusOptions
from studio.tunings.tuning import Tuning


class QloraOptions(LoraPlusOptions, AdapterOptions):
    """What QLoRA reads."""

    bits: Literal["4", "8"] = option("4", "Bits per frozen weight: 4 (NF4) or 8 (LLM.int8).", title="Quantization bits")
    quant_type: Literal["nf4", "fp4"] = option(
        "nf4", "4-bit data type (Dettmers et al. 2023, arXiv:2305.14314).", title="Quantization type",
        needs=("bits", ("4",)),
    )  # fmt: skip
    double_quant: bool = option(
        True, "Quantize the quantization constants too, which saves 0.4 bits per weight.", title="Double quantization",
        needs=("bits", ("4",)), differs="bitsandbytes: off.",
    )  # fmt: skip
    dora: bool = option(False, "Also learn the magnitudes (QDoRA).", title="Use DoRA")

    @field_validator("bits", mode="before")
    @classmethod
    def _bits(cls, value: object) -> object:
        # A word of the form, which YAML and --set read as a number.
        return f"{value:g}" if isinstance(value, int | float) else value


class _Qlora(Tuning):
    def uses_dora(self, options: QloraOptions) -> bool:
        return options.dora

    def dora_switch(self) -> tuple[str, str, str]:
        return "tuning.dora", "true", "false"

    def weight_bits(self, options: QloraOptions) -> float:
        """Bits of a weight (Dettmers et al. 2023, section 3).

        A block of 64 weights has a float32 scale, 0.5 bits a weight; quantized once more in blocks of 256 it is 0.127.
        """
        return 8.0 if options.bits == "8" else 4.127 if options.double_quant else 4.5


QLORA = _Qlora(
    name="qlora",
    title="QLoRA",
    sentence="an adapter on top of 4-bit weights, for the least memory",
    options=QloraOptions,
    quantized=True,
    unsloth=True,
)
