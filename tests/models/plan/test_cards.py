"""The records of well-known models are what transformers builds, and page and presets are what the plan says."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio.config.load import load_run
from studio.models.inspect.known_shapes import KNOWN, KnownModel, shape_of, tensors
from studio.models.plan import cards
from studio.settings import PRESETS
from tests.support.known import PUBLISHED


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_records_are_what_transformers_builds(model: KnownModel) -> None:
    # Two blocks more than are dense, which is all kinds of blocks; what is left out is more of the last kind.
    layers = model.config.get("first_k_dense_replace", 0) + 2
    small = {**model.config, "num_hidden_layers": layers}
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**small))
    ours = shape_of(KnownModel(model.name, model.hub, 0, small, model.biases, model.norms, model.head_norms))
    assert ours.parameters == sum(parameter.numel() for parameter in built.parameters())
    head = built.get_output_embeddings()
    linears = {
        name: (module.in_features, module.out_features) for name, module in built.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }  # fmt: skip
    assert {linear.name: (linear.inputs, linear.outputs) for linear in ours.linears} == linears


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_records_have_the_published_size(model: KnownModel) -> None:
    shape = shape_of(model)
    assert shape.parameters == model.parameters
    assert (shape.dtype, shape.context) == ("bfloat16", model.config["max_position_embeddings"])
    assert len({tensor.name for tensor in tensors(model)}) == len(tensors(model))


def test_every_record_has_its_preset_and_every_preset_its_record() -> None:
    files = {path.stem for path in (PRESETS / "models").glob("*.yaml")}
    assert files == {model.name for model in KNOWN}
    assert len({model.hub for model in KNOWN}) == len(KNOWN)
    for model in KNOWN:
        config = load_run(cards.preset_file(model))
        assert config.model.path == model.hub
        shape = shape_of(model)
        assert config.data.max_length <= (shape.context or 0)
        assert shape.targets(config.tuning.target_modules)


@pytest.mark.long
def test_page_and_presets_are_fresh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["cards", "--check"])
    assert cards.main() == 0, capsys.readouterr().err


def test_a_larger_card_never_holds_less() -> None:
    model = PUBLISHED["llama3.1-8b-instruct"]
    config, shape = load_run(cards.preset_file(model)), shape_of(model)
    order = [None, "qlora", "lora", "full"]
    fits = [cards.best_fit(config, shape, cards.card_of(card)) for card in (*cards.CARDS, 200)]
    ranks = [order.index(fit.tuning if fit else None) for fit in fits]
    assert ranks == sorted(ranks) and fits[-1] is not None and fits[-1].tuning == "full"
    line = cards.memory_line(config, shape)
    assert line.startswith("# Memory, planned for length 2,048: 8 GB") and "80 GB: LoRA" in line


def test_the_line_takes_the_place_of_an_older_one() -> None:
    assert cards.with_memory_line("# what\nmodel:\n", "# Memory, new") == "# what\n# Memory, new\nmodel:\n"
    assert (
        cards.with_memory_line("# what\n# Memory, old\nmodel:\n", "# Memory, new") == "# what\n# Memory, new\nmodel:\n"
    )
