"""Parents that do not fit are refused before anything is written, with what differs and both values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from studio.errors import InputError, StudioError
from studio.export import files
from studio.jobs.store.checkpoints import seal
from studio.jobs.store.files import write_json
from studio.merge.asking import Asked, prepare
from studio.settings import Settings
from tests.merge.made import tensors

MakeModel = Callable[..., Path]


@pytest.fixture
def asked(settings: Settings) -> Callable[..., Asked]:
    """Prepare a linear merge of two folders; `more` goes into the recipe."""

    def ask(one: Path, two: Path, **more: Any) -> Asked:
        models = [{"model": str(folder), "parameters": {"weight": 1}} for folder in (one, two)]
        return prepare(json.dumps({"merge_method": "linear", "models": models} | more), settings, "r.yaml")

    return ask


def copy(folder: Path, target: Path) -> Path:
    return shutil.copytree(folder, target / f"copy-of-{folder.name}")


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_a_tied_head_that_was_saved_is_refused_where_changes_are_drawn(
    one: Path, two: Path, base: Path, tmp_path: Path, asked: Any, method: str
) -> None:
    headed = copy(two, tmp_path)
    (weights,) = headed.glob("*.safetensors")
    stored = tensors(headed)
    save_file({**stored, "lm_head.weight": stored["model.embed_tokens.weight"].clone()}, weights, {"format": "pt"})
    drawn = {"merge_method": method, "base_model": str(base), "parameters": {"density": 0.5}}
    asked(one, two, **drawn)
    with pytest.raises(InputError, match=r"stores lm_head\.weight beside the embedding.*save_pretrained") as error:
        asked(one, headed, **drawn)
    assert str(headed) in error.value.sentence
    asked(one, headed, merge_method="ties", base_model=str(base), parameters={"density": 0.5})
    again = tmp_path / "again"
    shutil.copytree(headed, again)
    AutoModelForCausalLM.from_pretrained(headed).save_pretrained(again)
    asked(one, again, **drawn)


SIZES = {
    "hidden size": ({"hidden_size": 48}, "different hidden size: 32 in '{one}', 48 in '{other}'"),
    "layers": ({"num_hidden_layers": 3}, "different numbers of layers: 2 in '{one}', 3 in '{other}'"),
    "heads": ({"num_key_value_heads": 4}, "different key and value heads: 2 in '{one}', 4 in '{other}'"),
    "vocabulary": ({"vocab_size": 49160}, "different vocabulary sizes: 49152 in '{one}', 49160 in '{other}'"),
    "inner width": ({"intermediate_size": 64}, "mlp.down_proj.weight: 32 × 48 in '{one}', 32 × 64 in '{other}'"),
}


@pytest.mark.parametrize("name", SIZES)
def test_other_sizes_are_refused_with_both(name: str, one: Path, make_model: MakeModel, asked: Any) -> None:
    sizes, said = SIZES[name]
    other = make_model(9, **sizes)
    with pytest.raises(InputError) as error:
        asked(one, other)
    assert said.format(one=one, other=other) in error.value.sentence and "r.yaml" in error.value.sentence


def test_another_architecture_is_refused(one: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(one, tmp_path)
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", config | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"})
    with pytest.raises(InputError, match=r"different architectures: LlamaForCausalLM in .*, Qwen3ForCausalLM in"):
        asked(one, other)


def swap(folder: Path, one: str, other: str) -> None:
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    vocabulary = state["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    file.write_text(json.dumps(state))


def test_tokens_with_other_ids_are_refused(one: Path, two: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(two, tmp_path)
    swap(other, "the", "and")
    with pytest.raises(InputError) as error:
        asked(one, other)
    assert "2 tokens have another id, such as 'and': 397 in" in error.value.sentence
    assert "tokenizer: {source: union}" in error.value.sentence
    asked(one, other, tokenizer={"source": "union"})


def test_an_id_of_two_tokens_is_refused(one: Path, two: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(two, tmp_path)
    state = json.loads((other / "tokenizer.json").read_text())
    vocabulary = state["model"]["vocab"]
    vocabulary["<new word>"] = vocabulary.pop(list(vocabulary)[-1])
    (other / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"1 id is of another token, such as .*'<new word>'"):
        asked(one, other)


def test_other_templates_and_settings_are_told(one: Path, two: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(two, tmp_path)
    for path in (other / "chat_template.jinja", other / "tokenizer_config.json"):
        if path.is_file():
            path.write_text(path.read_text().replace("You are a helpful", "You are an unhelpful"))
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", config | {"rms_norm_eps": 0.5})
    warnings = asked(one, other).warnings
    assert f"'{one}' and '{other}' have different chat templates; the child gets that of '{one}'" in warnings
    assert any("rms_norm_eps (1e-06 and 0.5)" in text for text in warnings)
    for source in ("union", str(other)):  # mergekit's tokenizer is that of the base model, or of the one that is named
        asked_of = asked(
            one, other, merge_method="task_arithmetic", base_model=str(other), tokenizer={"source": source}
        )
        assert (
            f"'{other}' and '{one}' have different chat templates; the child gets that of '{other}'"
            in asked_of.warnings
        )
    assert asked(one, two).warnings == []


def test_a_head_of_one_model_alone_is_told_and_no_slices_are_taken_of_both(
    one: Path, make_model: MakeModel, asked: Any, settings: Settings
) -> None:
    other = make_model(8, tie_word_embeddings=False)
    for first, second in ((one, other), (other, one)):
        assert asked(first, second).warnings == [
            f"'{other}' alone has an output head of its own; the child gets one, too"
        ]
    slices = [{"sources": [{"model": str(folder), "layer_range": [0, 1]}]} for folder in (other, one)]
    with pytest.raises(InputError, match=f"an output head of its own: yes in '{other}', no in '{one}'"):
        prepare(json.dumps({"merge_method": "passthrough", "slices": slices}), settings)


def test_tensors_that_either_lacks_are_told(one: Path, two: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(two, tmp_path)
    save_file({**tensors(other), "extra.weight": torch.ones(2)}, other / "model.safetensors", {"format": "pt"})
    assert asked(one, other).warnings == [f"'{one}' lacks 1 tensors of '{other}', such as extra.weight"]
    assert asked(other, one).warnings == [f"'{one}' lacks 1 tensors of '{other}', such as extra.weight"]


def test_a_slice_beyond_the_last_layer_is_refused(one: Path, settings: Settings) -> None:
    text = {"merge_method": "passthrough", "slices": [{"sources": [{"model": str(one), "layer_range": [0, 3]}]}]}
    with pytest.raises(InputError, match="has 2 layers, and the slice ends at 3"):
        prepare(json.dumps(text), settings)


def test_no_room_is_said(one: Path, two: Path, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()
    with monkeypatch.context() as patch:
        patch.setattr("studio.merge.needs.psutil.virtual_memory", lambda: free._replace(available=100_000_000))
        with pytest.raises(StudioError, match=r"the merge needs .* of memory, but only 100 MB is free"):
            asked(one, two)
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(StudioError, match=r"the merge needs .* of disk space"):
        asked(one, two)


PARENTS = {
    "nothing": ("nobody", "there is no run or model 'nobody'"),
    "a folder without a model": ("{folder}", "has no config.json"),
    "a step that is not there": ("orders@7", "has no usable checkpoint"),
    "a model and an adapter": ("owner/name+owner/adapter", "Name an adapter by its folder alone"),
    "a reward model": ("scorer", "trained a reward model, which scores completions and cannot generate"),
}


@pytest.mark.parametrize("name", PARENTS)
def test_a_model_that_is_not_there_is_a_sentence(
    name: str, one: Path, base: Path, make_run: Any, settings: Settings, tmp_path: Path
) -> None:
    make_run("orders", one, base)
    make_run("scorer", one, base, method={"name": "reward"})
    word, said = PARENTS[name]
    text = {"models": [{"model": word.format(folder=tmp_path)}]}
    with pytest.raises(InputError) as error:
        prepare(json.dumps(text), settings)
    assert said in error.value.sentence and "model.path" not in error.value.sentence


def test_a_checkpoint_of_a_run_is_a_model(
    base: Path, make_adapter: MakeModel, make_run: Any, settings: Settings
) -> None:  # fmt: skip
    run = make_run("orders", make_adapter(1, base), base)
    checkpoint = shutil.copytree(make_adapter(2, base), run.checkpoints / "checkpoint-10")
    seal(checkpoint, 10, {})
    asked = prepare('{"models": [{"model": "orders@10"}]}', settings)
    (parent,) = asked.parents
    assert (
        (parent.kind, parent.id) == ("checkpoint", f"{run.id}@10") == ("checkpoint", asked.config.parents["orders@10"])
    )
    assert (parent.weights, parent.adapter, parent.tokenizer) == (base, checkpoint, run.model)
    assert asked.config.like == run.request.config


def test_a_folder_with_an_adapter_is_a_model(base: Path, make_adapter: MakeModel, settings: Settings) -> None:
    adapter = make_adapter(1, base)
    (parent,) = prepare(json.dumps({"models": [{"model": str(adapter)}]}), settings).parents
    assert (parent.kind, parent.weights, parent.adapter) == ("folder", base, adapter)
    assert parent.base == {"name": str(base), "path": str(base), "source": "local"}


def test_names_mean_what_they_meant(one: Path, two: Path, base: Path, make_run: Any, settings: Settings) -> None:
    first = make_run("orders", one, base)
    asked = prepare('{"models": [{"model": "orders"}]}', settings)
    make_run("orders", two, base)
    assert asked.config.parents == {"orders": first.id}
    assert asked.config.like == first.request.config


def test_a_model_of_the_hub_that_is_not_here_is_left_to_the_job(one: Path, settings: Settings) -> None:
    text = {
        "merge_method": "slerp", "base_model": str(one), "parameters": {"t": 0.5},
        "models": [{"model": str(one)}, {"model": "nobody/nothing@v2"}],
    }  # fmt: skip
    asked = prepare(json.dumps(text), settings)
    assert asked.seconds is None and "nobody/nothing@v2: not on this machine yet" in asked.warnings[0]


BESIDE = {
    "DoRA": ({"use_dora": True}, "also has the lengths of DoRA"),
    "ranks": ({"r": 2}, "have different ranks (4 and 2)"),
    "layers": (
        {"target_modules": ["q_proj"], "layers_to_transform": [0]},
        "adapt different layers (layers_to_transform)",
    ),
    "whole layers": ({"modules_to_save": ["lm_head"]}, "also has fully trained layers"),
    "patterns": ({"rank_pattern": {"q_proj": 2}}, "has ranks of its own for some layers"),
    "a pattern of layers": ({"target_modules": r".*\.q_proj"}, "in a list and the other by a pattern"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_peft_would_leave_out_is_refused(
    name: str, base: Path, make_adapter: MakeModel, make_run: Any, settings: Settings
) -> None:
    options, said = BESIDE[name]
    make_run("plain", make_adapter(1, base), base)
    make_run("other", make_adapter(2, base, **options), base)
    models = [{"model": word, "parameters": {"weight": 1}} for word in ("plain", "other")]
    with pytest.raises(InputError) as error:
        prepare(json.dumps({"merge_method": "adapter_linear", "models": models}), settings)
    assert said in error.value.sentence


@pytest.mark.parametrize(
    ("options", "tied", "refused"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"]}, True, "embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, True, "lm_head"),
        ({"target_modules": ["q_proj", "lm_head"]}, False, ""),
        ({"modules_to_save": ["lm_head"]}, True, ""),
    ],
)
def test_an_adapter_of_a_head_that_is_the_embedding_is_not_merged(
    options: Any, tied: bool, refused: str, make_model: MakeModel, make_adapter: MakeModel, settings: Settings
) -> None:
    model = make_model(7, tie_word_embeddings=tied, vocab_size=49152)
    text = json.dumps({"models": [{"model": str(make_adapter(3, model, **options))}]})
    if not refused:
        assert prepare(text, settings).warnings == []
        return
    with pytest.raises(InputError, match=f"changes {refused} alone, .* both would change"):
        prepare(text, settings)


def test_adapters_of_two_bases_and_whole_models_are_refused(
    base: Path, one: Path, make_adapter: MakeModel, make_run: Any, settings: Settings
) -> None:
    make_run("plain", make_adapter(1, base), base)
    make_run("other", make_adapter(2, one), one)
    make_run("whole", one, base)

    def ask(*words: str) -> None:
        models = [{"model": word, "parameters": {"weight": 1}} for word in words]
        prepare(json.dumps({"merge_method": "adapter_cat", "models": models}), settings)

    with pytest.raises(InputError, match="different base models"):
        ask("plain", "other")
    with pytest.raises(InputError, match="'whole' has no adapter"):
        ask("plain", "whole")


def test_pickled_weights_are_refused(one: Path, two: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(two, tmp_path)
    torch.save(tensors(other), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    with pytest.raises(InputError, match="only pickled weights"):
        asked(one, other)


def test_a_tied_head_that_was_saved_is_no_difference(one: Path, two: Path, tmp_path: Path, asked: Any) -> None:
    other = copy(two, tmp_path)
    held = tensors(other)
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
    save_file(held, other / "model.safetensors", metadata={"format": "pt"})
    assert asked(one, other).warnings == [] == asked(other, one).warnings
