"""Sizes are read from headers, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InputError
from studio.models.inspect.headers import Tensor, read_header
from studio.models.inspect.shape import ModelShape
from tests.models.checkpoints import llama_config, tensor_shapes, write_checkpoint


def _tensors(tied: bool = True, **sizes: int) -> list[Tensor]:
    return [Tensor(name, "BF16", shape) for name, shape in tensor_shapes(tied, **sizes).items()]


def test_embedded_model(model_path: Path) -> None:
    shape = ModelShape.from_folder(model_path)
    assert shape.parameters == 134_515_008
    assert (shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (576, 30, 9, 3, 64)
    assert (shape.vocab, shape.intermediate, shape.context, shape.tied) == (49152, 1536, 8192, True)
    assert (shape.dtype, shape.dtype_bytes) == ("bfloat16", 2.0)
    assert len(shape.linears) == 7 * 30
    assert not any("head" in linear.name or "embed" in linear.name for linear in shape.linears)


def test_shards_and_one_file_give_the_same(tmp_path: Path) -> None:
    one = ModelShape.from_folder(write_checkpoint(tmp_path / "a"))
    many = ModelShape.from_folder(write_checkpoint(tmp_path / "b", shards=4))
    assert (one.parameters, set(one.linears)) == (many.parameters, set(many.linears))


def test_head_counts_only_when_it_is_one_of_its_own() -> None:
    tied = ModelShape.from_parts(llama_config(True), _tensors(True))
    loose = ModelShape.from_parts(llama_config(False), _tensors(False))
    stored_twice = ModelShape.from_parts(llama_config(True), _tensors(False))
    assert loose.parameters == tied.parameters + 100 * 16
    assert stored_twice.parameters == tied.parameters
    assert (tied.tied, loose.tied, stored_twice.tied) == (True, False, True)


@pytest.mark.parametrize(
    ("asked", "window"),
    [
        ({}, None),
        ({"sliding_window": None}, None),
        ({"sliding_window": 512}, 512),
        ({"sliding_window": 512, "use_sliding_window": False}, None),
        ({"sliding_window": "wide"}, None),
    ],
)
def test_window(asked: dict[str, Any], window: int | None) -> None:
    assert ModelShape.from_parts({**llama_config(), **asked}, _tensors()).window == window


def test_targets() -> None:
    shape = ModelShape.from_parts(llama_config(), _tensors())
    assert len(shape.targets("all-linear")) == 14
    assert {linear.suffix for linear in shape.targets(["q_proj", "v_proj"])} == {"q_proj", "v_proj"}
    assert len(shape.targets(["layers.1.mlp.up_proj"])) == 1
    with pytest.raises(InputError, match=r"no linear layer named 'qproj'.*q_proj"):
        shape.targets(["qproj"])


def test_text_part_of_a_larger_config() -> None:
    config = {"model_type": "gemma3", "text_config": llama_config(), "vision_config": {"hidden_size": 5}}
    assert ModelShape.from_parts(config, _tensors()).hidden == 16


def test_config_without_sizes_is_a_sentence() -> None:
    with pytest.raises(InputError, match="hidden_size"):
        ModelShape.from_parts({"model_type": "unet"}, _tensors())
    with pytest.raises(InputError, match="num_hidden_layers"):
        ModelShape.from_parts({**llama_config(), "num_hidden_layers": "two"}, _tensors())


@given(st.binary(max_size=200))
def test_hostile_bytes_are_never_a_traceback(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as handle:
        for prefix in (b"", len(data).to_bytes(8, "little")):
            handle.seek(0)
            handle.truncate()
            handle.write(prefix + data)
            handle.flush()
            try:
                read_header(Path(handle.name))
            except InputError as error:
                assert error.fix
