"""Liger's norms, gates and rotary positions in place of a model's own, on an NVIDIA GPU where Liger is installed.

Liger itself replaces classes of the architectures that it knows by name, for the whole process. Here, as with the
compiled functions of a CPU, a layer is replaced where it gives what Liger's gives, the whole model is compared before
the first step, and everything can be taken back. The loss stays the studio's, which makes logits at supervised
positions only (Hsu et al. 2024, arXiv:2410.10989).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from studio.config import RunConfig
from studio.kernels.recognized import Layers, base_of, gated_mlps
from studio.models.plan.making import Plan
from studio.models.plan.spread import divided
from studio.train.engine.comparing import apart, batch_of, measured, objection
from studio.train.engine.fused import Fused, put, replace_passes

NAME = "Liger's kernels"


def wanted(config: RunConfig, plan: Plan) -> bool:
    """Whether a run may use them: not where each device has a part of every weight.

    Args:
        config: the run.
        plan: how it is divided.
    """
    return torch.cuda.is_available() and divided(config, plan.parallel).training.fuses


def fuse(trainer: Any, plan: Plan) -> Fused:
    """Replace what can be replaced in the model of a run, and in the reference that it is compared with.

    Args:
        trainer: with its model.
        plan: its number format.
    """
    if find_spec("liger_kernel") is None:
        return Fused(NAME, reason="they are not installed; studio doctor says how")
    done = attach(trainer.model, autocast=plan.autocast)
    reference = getattr(trainer, "ref_model", None)
    if reference is not None and done.replaced():  # so that both begin with equal numbers
        attach(trainer.accelerator.unwrap_model(reference), autocast=plan.autocast)
    return done


def attach(model: Any, *, autocast: bool) -> Fused:
    """Replace what can be replaced.

    Args:
        model: as it is trained, where it computes, with PEFT's layers where there are some.
        autocast: products are computed in bfloat16.
    """
    done = Fused(NAME)

    def replace() -> tuple[float, float]:
        batch, decoder, device = batch_of(model), base_of(model).base_model, model.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            before = measured(model, batch, decoder)
            replace_passes(model, _layers(device), done)
            for module, forward, _ in gated_mlps(model, _gate, device, packed=True):
                put(module, forward, done)
                done.gates += 1
            return apart(before, measured(model, batch, decoder))

    done.keep_unless(objection(replace, autocast))
    return done


def _layers(device: str) -> Layers:
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.rope import LigerRopeFunction

    def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: bool) -> torch.Tensor:
        # Not in place: Liger would write into the gradient that it is given, which a residual stream still needs.
        rounding, in_place = "gemma" if offset else "llama", False
        made: torch.Tensor = LigerRMSNormFunction.apply(x, weight, epsilon, float(offset), rounding, in_place)
        return made

    return Layers(device, norm, LigerRopeFunction.apply, halved=True)


def _gate(first: torch.Tensor, second: torch.Tensor, gelu: bool) -> torch.Tensor:
    from liger_kernel.ops.geglu import LigerGELUMulFunction
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    made: torch.Tensor = (LigerGELUMulFunction if gelu else LigerSiLUMulFunction).apply(first, second)
    return made
