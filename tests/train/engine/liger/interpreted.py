"""Run by Liger's environment (`make test-liger`): small models with Liger's kernels and without, one JSON line.

Triton compiles for GPUs only. Its interpreter computes the same kernels on a CPU with numpy, which knows no bfloat16;
two functions of NVIDIA's library and plain numbers as arguments, which it lacks, are given to it here.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy
import torch
import triton
import triton.language as tl
from transformers import AutoConfig, AutoModelForCausalLM
from triton.language.extra import libdevice
from triton.runtime import interpreter

from studio.train.engine import liger
from studio.train.engine.comparing import apart, base_of, batch_of, measured
from tests.train.engine.test_fused import FAMILIES, SIZES, adapted


@triton.jit
def rsqrt(x):
    return 1 / tl.sqrt(x)


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


def converted(value: object, plain: object = interpreter._implicit_cvt) -> object:
    """An argument of a kernel, a Python float included."""
    if type(value) is float:
        handle = interpreter.TensorHandle(numpy.array([value], dtype=numpy.float32), tl.float32)
        return tl.tensor(handle, tl.float32)
    return plain(value)


def compared(family: str) -> dict[str, object]:
    """What was replaced in a model of a family, and how far its outputs and gradients are from its own ones."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    model = adapted(AutoModelForCausalLM.from_config(config))
    for parameter in model.parameters():  # norms and embeddings, too, as in full tuning
        parameter.requires_grad_()
    batch = batch_of(model)
    # Other tokens than those that the trial itself compares.
    batch["input_ids"] = torch.where(batch["input_ids"] == 0, 0, 1 + batch["input_ids"] * 5 % 96)
    own = measured(model, batch, base_of(model).base_model)
    done = liger.attach(model, autocast=False)
    theirs = measured(model, batch, base_of(model).base_model)
    line = done.line()
    done.detach()
    back = measured(model, batch, base_of(model).base_model)
    return {"line": line, "far": apart(own, theirs), "back": apart(own, back)}


if __name__ == "__main__":
    libdevice.rsqrt, libdevice.tanh = rsqrt, tanh
    interpreter._implicit_cvt = converted
    print(json.dumps({family: compared(family) for family in sys.argv[1:]}))
