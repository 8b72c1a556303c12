"""PPO's four roles over one copy of the weights: policy, reference, value function, reward model.

With an adapter, each role is the base with another adapter on it, switched by the flags that PEFT's layers read:

    policy     the adapter that is trained and saved ("default")
    reference  no adapter; or "ref", a frozen copy, where the policy does not start at the base
    value      "value", which starts as a copy of the policy's, and a linear head on its last hidden states
    reward     "reward", where the reward model is an adapter over the same base; over quantised weights it scores with
               the error of the quantisation, which a reward model of its own would not have, for a copy less in memory

With full tuning the reference is a second model, the value head reads the policy's own last hidden states and
`method.vf_coef` weighs how much it may change them, and the reward model is loaded by `scoring`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from torch import nn

from studio.errors import InputError
from studio.models.inspect.adapters import adapter_config
from studio.train.engine.ppo import token_figures
from studio.train.load.reference import reference_model
from studio.train.setup import Setup
from studio.tunings.adapter import CHANGES_BASE
from studio.writing.quick import side_by_side

POLICY, REFERENCE, VALUE, REWARD = "default", "ref", "value", "reward"


class ValueHead(nn.Module):
    """Hidden states (B, L, H) → values (B, L), in float32 whatever the model computes in; 0 at the start."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the values."""
        # Written out, because autocast would compute a matrix product in bfloat16.
        return (states.float() * self.weight[0]).sum(-1) + self.bias


class Actors:
    """The roles of one run.

    Attributes:
        model: what the trainer trains and saves; with an adapter it saves the policy's only.
        base: the language model in it.
        shared: the roles are adapters over one base.
        own: names of the parameters of the value function that the policy does not have.
    """

    def __init__(self, setup: Setup) -> None:
        model: Any = setup.model
        if setup.peft_config is not None:
            model = get_peft_model(model, setup.peft_config)
        self.model = model
        self.shared = isinstance(model, PeftModel)
        self.base: Any = model.get_base_model() if self.shared else model
        accepted = inspect.signature(type(self.base).forward).parameters
        self._positions, self._keeps = "position_ids" in accepted, "logits_to_keep" in accepted
        model.value_head = ValueHead(self.base.config.get_text_config().hidden_size).to(self.base.device)
        self.own = ["value_head.weight", "value_head.bias"]
        self._reference: Any = None
        self._reference_adapter: str | None = None
        if not self.shared:
            model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), *self.own}
            self._reference = reference_model(setup)
        else:
            model.save_pretrained = partial(model.save_pretrained, selected_adapters=[POLICY])
            if setup.peft_config is None or self.changes_base:
                self._copy_adapter(REFERENCE, whole=True)
                self._reference_adapter = REFERENCE
            self.own += self._copy_adapter(VALUE, whole=False)
            model.set_requires_grad(VALUE)

    @property
    def changes_base(self) -> bool:
        """Whether the policy's adapter began by taking a part out of the base weights."""
        return self.shared and self.model.peft_config[POLICY].init_lora_weights in CHANGES_BASE

    def add_reward(self, config: LoraConfig, weights: dict[str, torch.Tensor]) -> bool:
        """Add the adapter of a reward model; False where it has layers that the base has not."""
        self.model.add_adapter(REWARD, config)
        fits = not set_peft_model_state_dict(self.model, weights, adapter_name=REWARD).unexpected_keys
        self._switch(POLICY)  # layers that only the reward model adapts would be left acting
        return fits

    def _copy_adapter(self, name: str, whole: bool) -> list[str]:
        """Add a copy of the policy's adapter; its layers that are trained whole only if asked. Return its names."""
        config: LoraConfig = copy.deepcopy(self.model.peft_config[POLICY])
        config.init_lora_weights = True  # the copy below fills it; PiSSA and OLoRA would take from the base once more
        config.modules_to_save = config.modules_to_save if whole else None
        self.model.add_adapter(name, config)
        weights = dict(self.model.named_parameters())
        names = []
        for source, weight in list(weights.items()):
            before, mark, after = source.rpartition(f".{POLICY}")
            target = f"{before}.{name}{after}"
            if mark and target in weights:
                weights[target].data.copy_(weight.data)
                names.append(target)
        return names

    @contextmanager
    def acting(self, name: str | None) -> Iterator[None]:
        """Let the base act with this adapter, or with none; a backward pass that recomputes must happen inside."""
        try:
            self._switch(name)
            yield
        finally:
            self._switch(POLICY)

    def _switch(self, name: str | None) -> None:
        # PEFT's own switch also rewrites requires_grad of every weight.
        for layer in self.model.modules():
            if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
                layer._disable_adapters = name is None
                layer._active_adapter = [name or POLICY]

    # ---- what the roles say of the written answers

    def policy(
        self, batch: dict[str, torch.Tensor], temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Log-probabilities and entropies (B, L) of the answers' tokens, and with full tuning their values."""
        output = self._forward(self.base, batch, hidden=not self.shared)
        logps, entropy = token_figures(*_answers(output, batch, temperature))
        values = None if self.shared else self._head(output.hidden_states[-1], batch)
        return logps, entropy, values

    def values(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Values (B, L) by the value adapter, which is to be acting."""
        decoder = self.base.base_model
        states = decoder(**self._inputs(batch), use_cache=False).last_hidden_state
        return self._head(states, batch)

    @torch.no_grad()
    def reference(self, batch: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Log-probabilities (B, L) of the answers' tokens by the model that training started from."""
        if self._reference is not None:
            output = self._forward(self._reference, batch)
        else:
            with self.acting(self._reference_adapter):
                output = self._forward(self.base, batch)
        return token_figures(*_answers(output, batch, temperature))[0]

    def _forward(self, model: Any, batch: dict[str, torch.Tensor], hidden: bool = False) -> Any:
        # Logits of the answers only: a prompt's would be most of the memory.
        options = {"logits_to_keep": batch["completion_mask"].shape[1] + 1} if self._keeps else {}
        with side_by_side(model):
            return model(**self._inputs(batch), use_cache=False, output_hidden_states=hidden, **options)

    def _inputs(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        if self._positions:  # prompts are padded at the left
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return inputs

    def _head(self, states: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        length = batch["completion_mask"].shape[1]
        values: torch.Tensor = self.model.value_head(states[:, -length - 1 : -1])
        return values


def _answers(output: Any, batch: dict[str, torch.Tensor], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, L, V) that the answers' tokens were drawn with, and the tokens (B, L)."""
    length = batch["completion_mask"].shape[1]
    return output.logits[:, -length - 1 : -1].float() / temperature, batch["input_ids"][:, -length:]


class SharedScorer:
    """A reward adapter over the policy's base, called like the model that `scoring.score_ids` takes."""

    def __init__(self, actors: Actors, folder: Path, pad: int) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        (head,) = (name for name in weights if ".score." in name)
        self._actors, self._pad = actors, pad
        self._weight = weights.pop(head).float().to(actors.base.device)  # (1, H)
        config = LoraConfig.from_pretrained(str(folder))
        config.task_type, config.modules_to_save, config.inference_mode = "CAUSAL_LM", None, True
        if not actors.add_reward(config, weights):
            raise InputError(
                "the reward model has layers that this model does not have", where=f"method.reward_model: {folder}",
                fix="Use it with the base model that it was trained on",
            )  # fmt: skip

    @staticmethod
    def fits(setup: Setup, actors: Actors) -> bool:
        """Whether the reward model is nothing but an adapter and a head over the very weights that are in memory."""
        if setup.scorer is None or not actors.shared:
            return False
        config = adapter_config(setup.scorer)
        changed = actors.changes_base or setup.config.model.rope_scaling != "none"
        # PEFT names the head of a scoring model by both words that it may have.
        return (
            config is not None and not changed and set(config.get("modules_to_save") or ()) <= {"score", "classifier"}
        )

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights, whose device is asked for."""
        return iter(self._actors.base.parameters())

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """Scores as `logits` (B, 1), read like a scoring model's at the last token (B, T) that is not padding."""
        decoder = self._actors.base.base_model
        with self._actors.acting(REWARD):
            states = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = (places * (input_ids != self._pad)).argmax(-1)
        chosen = states[torch.arange(len(states), device=states.device), last].float()
        return SimpleNamespace(logits=(chosen * self._weight).sum(-1, keepdim=True))
