"""The engine's layers put in place of a model's own, each only where it gives what the model's gives.

What a layer is follows from what it does, not from its architecture's name: a norm, an MLP or a group of linear layers
is replaced if both give equal numbers for the same input, and the whole model is compared on a small batch, forwards
and backwards, before the first step. Where it disagrees everything is as it was, and the run says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import nn

from studio.config import RunConfig
from studio.errors import StudioError
from studio.kernels.building import load
from studio.kernels.calls import KINDS, WIDTH, Kernels
from studio.kernels.recognized import Layers, base_of, distance, fits, norms, random_rows, same
from studio.kernels.rotary import rotaries, with_ours
from studio.models.device.compiled import place
from studio.models.plan.making import Plan
from studio.models.plan.spread import divided
from studio.train.engine import attention, logprobs, unpadded
from studio.train.engine.comparing import apart, batch_of, measured, near, objection
from studio.train.engine.layers import Gated, one_pass
from studio.train.engine.lora import Group, dropout_of, is_ours


@dataclass
class Fused:
    """What was replaced.

    Attributes:
        name: of what it was replaced by, for the log.
        groups: of linear layers with adapters.
        norms, gates: how many layers.
        rotary: positions are turned by the engine.
        own_attention: lets the model attend itself again; None where attention is not the engine's.
        unpadded: the decoder computes padded batches without their padding.
        shared: and prefixes that rows share once.
        likely: log-probabilities of answers are the engine's.
        reason: why something is the model's own; "" if nothing is.
    """

    name: str = "fused kernels"
    groups: list[Group] = field(default_factory=list)
    norms: int = 0
    gates: int = 0
    rotary: bool = False
    own_attention: Callable[[], None] | None = None
    unpadded: bool = False
    shared: bool = False
    likely: bool = False
    reason: str = ""
    _undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def segments(self) -> bool:
        """Whether attention is the engine's."""
        return self.own_attention is not None

    def replaced(self) -> str:
        """Which layers, for the log; "" if none."""
        counts = {"groups of LoRA layers": len(self.groups), "norms": self.norms, "gates": self.gates}
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        kinds = {
            "rotary positions": self.rotary, "attention": self.segments, "no padding": self.unpadded,
            "shared prefixes": self.shared, "log-probabilities": self.likely,
        }  # fmt: skip
        return ", ".join([*parts, *(name for name, done in kinds.items() if done)])

    def line(self) -> str:
        """What was replaced and why not more, for the log."""
        return f"{self.name}: {self.replaced() or 'none'}{f' ({self.reason})' if self.reason else ''}"

    def undo_attention(self) -> None:
        """Let the model attend itself again."""
        if self.own_attention is not None:
            self.own_attention()
        self.own_attention = None

    def keep_unless(self, objection: str) -> None:
        """Take everything back for a reason; "" for none."""
        if objection:
            self.detach()
        self.reason = objection

    def detach(self) -> None:
        """Let the model compute everything itself again."""
        for undo in reversed(self._undo):
            undo()
        self.undo_attention()
        self._undo, self.groups, self.norms, self.gates = [], [], 0, 0
        self.rotary = self.unpadded = self.shared = self.likely = False


def wanted(config: RunConfig, plan: Plan) -> bool:
    """Whether a run may use the engine's layers: not where each device has a part of every weight."""
    return divided(config, plan.parallel).training.fuses and not torch.cuda.is_available()


def kernels(config: RunConfig, plan: Plan) -> tuple[Kernels | None, str]:
    """The compiled functions for this CPU; or None and the reason, "" where the run does not want them."""
    if not wanted(config, plan):
        return None, ""
    try:
        return Kernels(load(place())), ""
    except StudioError as error:
        return None, str(error)


def fuse(trainer: Any, config: RunConfig, plan: Plan, built: Kernels | None, reason: str) -> Fused:
    """Replace what can be replaced in the model of a run, and in the reference that it is compared with.

    Args:
        trainer: with its model.
        config: the run.
        plan: its number format.
        built: the compiled functions.
        reason: why there are none.
    """
    free = config.model.attention == "auto"
    mixes = trainer.mixed if config.padding_free else None
    done = attach(trainer.model, built, attention_is_free=free, autocast=plan.autocast, mixes=mixes)
    if built is not None and not getattr(trainer, "engine_loss", False):  # whose loss needs no such head
        _replace_head(trainer, trainer.model, built, done, autocast=plan.autocast)
    reference = getattr(trainer, "ref_model", None)
    if reference is not None and done.replaced():  # so that both begin with equal numbers
        reference = trainer.accelerator.unwrap_model(reference)
        other = attach(reference, built, attention_is_free=free, autocast=plan.autocast)
        if built is not None and done.likely:
            _replace_head(trainer, reference, built, other, autocast=plan.autocast)
    done.reason = done.reason or reason
    return done


def attach(
    model: Any, built: Kernels | None, *, attention_is_free: bool, autocast: bool,
    mixes: Callable[[], float] | None = None,
) -> Fused:  # fmt: skip
    """Replace what can be replaced.

    Args:
        model: as it is trained, with PEFT's layers where there are some.
        built: the compiled functions; without them only LoRA layers are replaced.
        attention_is_free: the person left the choice of attention to the studio.
        autocast: products are computed in bfloat16.
        mixes: how far examples that share a row change each other (`comparing.mixed`), where the run has such rows.
    """
    done = Fused()

    def replace() -> tuple[float, float]:
        return _replace(model, built, done, attention_is_free=attention_is_free, autocast=autocast, mixes=mixes)

    done.keep_unless(objection(replace, autocast))
    return done


def _replace(
    model: Any, built: Kernels | None, done: Fused, *, attention_is_free: bool, autocast: bool,
    mixes: Callable[[], float] | None,
) -> tuple[float, float]:  # fmt: skip
    """Replace what can be replaced; returns how far outputs and gradients of the whole model moved."""
    batch, below = batch_of(model), base_of(model).base_model
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        before = measured(model, batch, below)
        if built is not None:
            replace_passes(model, one_pass(built), done)
            if attention_is_free:
                done.own_attention = attention.put_into(model, base_of(model), batch, built)
            if done.segments and mixes is not None and not near((mixes(),), autocast):
                done.undo_attention()
        _replace_linear(model, batch, built, done)

        def far() -> tuple[float, float]:
            return apart(before, measured(model, batch, below))

        decoder = _decoder(model) if done.segments else None
        for shares in (True, False) if decoder is not None else ():
            without = unpadded.Unpadded(decoder, shares=shares)
            try:
                found = far()
            except Exception:  # a decoder of anybody's code: it gets its padding back
                found = (math.inf, math.inf)
            if without.used and near(found, autocast):
                done._undo.append(without.undo)
                done.unpadded, done.shared = True, without.shared
                return found
            without.undo()
        return far()


def _decoder(model: Any) -> nn.Module | None:
    """The model below the head; None where padding stays: something mixes tokens that attention keeps apart."""
    inner = base_of(model)
    decoder: nn.Module = inner.base_model
    mixes = any(isinstance(module, nn.Conv1d | nn.RNNBase) for module in decoder.modules())
    # With dropout attention is torch's, which takes longer over one long row.
    dropped = getattr(inner.config.get_text_config(), "attention_dropout", 0.0)
    return None if decoder is inner or mixes or dropped else decoder


def put(module: nn.Module, forward: Callable[..., Any], done: Fused) -> None:
    """Let a layer compute in another way, until `Fused.detach`.

    Args:
        module: the layer.
        forward: instead of its own.
        done: which takes it back.
    """
    module.forward = forward
    done._undo.append(lambda: delattr(module, "forward"))


def replace_passes(model: nn.Module, layers: Layers, done: Fused) -> None:
    """Put those layers in place of norms and rotary positions.

    Args:
        model: as it is trained.
        layers: with gradients.
        done: gets what was replaced.
    """
    for module, forward, weight in norms(model, layers):
        put(module, _where_it_fits(module.forward, forward, weight), done)
        done.norms += 1
    for module in rotaries(model, layers):
        put(module, with_ours(module, layers, gradients=True), done)
        done.rotary = True


def _where_it_fits(
    own: Callable[..., Any], ours: Callable[[torch.Tensor], Any], weight: torch.Tensor
) -> Callable[[torch.Tensor], Any]:
    return lambda x: ours(x) if fits(x, weight) else own(x)


def _replace_linear(model: nn.Module, batch: dict[str, torch.Tensor], built: Kernels | None, done: Fused) -> None:
    together = _siblings(model, batch)
    for layers in chain.from_iterable([[one] for one in row] if dropout_of(row[0]) else [row] for row in together):
        group = Group.of(layers, built)
        if group is None:
            continue
        group.attach()
        done._undo.append(group.detach)
        done.groups.append(group)
    if built is None:
        return
    whose = {id(group.layers[0]): group for group in done.groups}
    for module in model.modules():
        gate = getattr(module, "gate_proj", getattr(module, "gate_up_proj", None))
        group = whose.get(id(gate))
        if group is not None and hasattr(module, "down_proj"):
            done.gates += _replace_gate(module, group, built, done)


def _replace_gate(module: Any, group: Group, built: Kernels, done: Fused) -> bool:
    """Compute an MLP's gate and what it lets through in one piece, if that is what the MLP does."""
    linear, both = group.layers[0].base_layer, 1 if hasattr(module, "gate_up_proj") else 2
    if len(group.layers) != both or len(set(group.sizes)) > 1 or sum(group.sizes) % (2 * WIDTH):
        return False
    original, probe = module.forward, random_rows(linear.in_features, group.dtype)
    if group.dtype not in KINDS or not group.applies(probe):
        return False
    for gelu in (False, True):

        def forward(x: torch.Tensor, *, gelu: bool = gelu) -> Any:
            if not group.applies(x):
                return original(x)
            return module.down_proj(Gated.apply(group.whole(x), gelu, built))

        if same(forward, original, probe):
            put(module, forward, done)
            return True
    return False


def _replace_head(trainer: Any, model: Any, built: Kernels, done: Fused, *, autocast: bool) -> None:
    """Compute the log-probabilities of answers, if those of a small batch are what TRL's head gives."""
    inner = base_of(model)
    undo = ExitStack()
    if not logprobs.has_head(inner):
        take_back = logprobs.give_head(trainer, inner)
        if take_back is None:
            return
        undo.callback(take_back)
    batch = batch_of(model)
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            theirs = model(**batch, fused_lm_head=True).log_probs
            undo.callback(logprobs.attach(inner, built))
            mine = model(**batch, fused_lm_head=True).log_probs
        done.likely = near((distance(theirs, mine),), autocast)
    except Exception:  # a model of anybody's code: it keeps the head that it has
        done.likely = False
    finally:
        model.train(training)
    if done.likely:
        done._undo.append(undo.close)
    else:
        undo.close()


def _siblings(model: nn.Module, batch: dict[str, torch.Tensor]) -> Iterator[list[Any]]:
    """LoRA layers that take the same input within a module, in the order in which they are called."""
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    called: list[tuple[Any, torch.Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, given: called.append((layer, given[0])))
        for module in model.modules() if is_ours(module)
    ]  # fmt: skip
    try:
        with torch.no_grad():
            model(**batch, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    seen: set[int] = set()
    row: list[Any] = []
    before: tuple[Any, torch.Tensor] | None = None
    for layer, given in called:
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        together = before is not None and given is before[1] and parents[id(layer)] is parents[id(before[0])]
        if row and not together:
            yield row
            row = []
        row.append(layer)
        before = (layer, given)
    if row:
        yield row
