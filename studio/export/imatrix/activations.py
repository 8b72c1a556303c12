"""Sums of squared inputs of each weight matrix, taken out of llama.cpp while it computes.

llama.cpp calls back for every product of its graph, so that names, order of columns and experts are those of the file
and nothing has to be mapped from another program. Python's binding does not describe a tensor of ggml, so it is
described here (ggml.h), and checked against tensors that the library makes itself before anything is read.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.errors import StudioError

_DIMENSIONS, _SOURCES, _NAME_BYTES = 4, 10, 64
F32, _I32 = 0, 26  # of enum ggml_type, which never changes: it is stored in files


class _Tensor(ctypes.Structure):
    """struct ggml_tensor; ne[0] is the innermost size, nb the strides in bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _DIMENSIONS),
        ("nb", ctypes.c_size_t * _DIMENSIONS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _SOURCES),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _NAME_BYTES),
    )


class _InitParameters(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@dataclass
class Sums:
    """What one weight matrix was given; experts are matrices of one tensor.

    Attributes:
        squares: (matrices, columns) sums of squared inputs, float64.
        counts: (matrices,) how many inputs were summed.
    """

    squares: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]


class Collector:
    """Adds up inputs; `callback` is for llama.cpp's parameter cb_eval and must live as long as the context.

    Raises:
        StudioError: the installed library describes tensors in another way.
    """

    def __init__(self) -> None:
        from llama_cpp.llama_cpp import ggml_backend_sched_eval_callback

        self.sums: dict[str, Sums] = {}
        self._product, self._chosen = _operations()
        self._failure: BaseException | None = None
        self._last: tuple[int, Sums] | None = None
        self.callback = ggml_backend_sched_eval_callback(self._on_tensor)

    def after_batch(self) -> None:
        """Raise what went wrong while llama.cpp computed; tensors of the next batch are new ones."""
        self._last = None
        if self._failure is not None:
            raise self._failure

    def _on_tensor(self, address: int, asking: bool, _: Any) -> bool:
        # An exception would be printed by ctypes, and lost.
        try:
            tensor = _Tensor.from_address(address)
            if tensor.op not in (self._product, self._chosen):
                return not asking
            weight, given = (_Tensor.from_address(tensor.src[place]) for place in (0, 1))
            name = weight.name.decode("utf-8", "replace")
            wanted = bool(name.startswith("blk.") and name.endswith(".weight") and given.type == F32)
            if asking or not wanted:
                return wanted
            if tensor.op == self._chosen:
                self._add(name, _chosen_sums(weight, given, _Tensor.from_address(tensor.src[2])))
            else:
                self._add(name, self._product_sums(tensor.src[1], weight, given))
        except BaseException as error:
            self._failure = self._failure or error
            return False
        return True

    def _product_sums(self, address: int, weight: _Tensor, given: _Tensor) -> Sums:
        """Sums of a plain product; queries, keys and values share their input, which is then summed once."""
        if self._last is not None and self._last[0] == address and len(self._last[1].counts) == weight.ne[2]:
            return self._last[1]
        # (ne3, ne2, ne1, ne0): one matrix for each index of ne2, or one for all.
        values, matrices = _values(given, np.dtype(np.float32)), int(weight.ne[2])
        groups = values.reshape(-1, matrices, *values.shape[2:])
        squares = np.square(groups).sum(axis=(0, 2), dtype=np.float64)
        found = Sums(squares, np.full(matrices, groups.shape[0] * groups.shape[2], np.float64))
        self._last = (address, found)
        return found

    def _add(self, name: str, found: Sums) -> None:
        known = self.sums.setdefault(name, Sums(np.zeros_like(found.squares), np.zeros_like(found.counts)))
        known.squares += found.squares
        known.counts += found.counts


def _chosen_sums(weight: _Tensor, given: _Tensor, choice: _Tensor) -> Sums:
    """Sums of a product with the experts that each token chose.

    Args:
        weight: (experts, rows, columns).
        given: (tokens, chosen or 1, columns).
        choice: (tokens, chosen) numbers of experts.
    """
    values, chosen = _values(given, np.dtype(np.float32))[0], _values(choice, np.dtype(np.int32))[0, 0]
    found = Sums(np.zeros((weight.ne[2], weight.ne[0])), np.zeros(weight.ne[2]))
    squares = np.square(values, dtype=np.float64)
    for place in range(chosen.shape[1]):
        np.add.at(found.squares, chosen[:, place], squares[:, place % squares.shape[1]])
        np.add.at(found.counts, chosen[:, place], 1)
    return found


def _values(tensor: _Tensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The numbers of a tensor in main memory, as (ne3, ne2, ne1, ne0), without copying them."""
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    size = sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) + dtype.itemsize
    held = (ctypes.c_char * size).from_address(tensor.data)
    return np.ndarray(shape, dtype, held, strides=strides)


def _operations() -> tuple[int, int]:
    """Make two products with the library; return the numbers of their operations, or refuse what is not as expected."""
    from llama_cpp._ggml import libggml as library

    library.ggml_init.restype, library.ggml_init.argtypes = ctypes.c_void_p, [_InitParameters]
    for name, count in (("ggml_new_tensor_2d", 2), ("ggml_new_tensor_3d", 3)):
        made = getattr(library, name)
        made.restype, made.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * count]
    for name, count in (("ggml_mul_mat", 2), ("ggml_mul_mat_id", 3)):
        made = getattr(library, name)
        made.restype, made.argtypes = ctypes.c_void_p, [ctypes.c_void_p] * (1 + count)
    library.ggml_set_name.restype, library.ggml_set_name.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    library.ggml_get_data.restype, library.ggml_get_data.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    library.ggml_free.restype, library.ggml_free.argtypes = None, [ctypes.c_void_p]
    context = library.ggml_init(_InitParameters(1 << 20, None, False))
    try:
        weight = library.ggml_new_tensor_2d(context, F32, 5, 7)
        given = library.ggml_new_tensor_2d(context, F32, 5, 3)
        experts = library.ggml_new_tensor_3d(context, F32, 5, 7, 4)
        inputs = library.ggml_new_tensor_3d(context, F32, 5, 1, 3)
        choice = library.ggml_new_tensor_2d(context, _I32, 2, 3)
        library.ggml_set_name(weight, b"blk.0.attn_q.weight")
        product = library.ggml_mul_mat(context, weight, given)
        chosen = library.ggml_mul_mat_id(context, experts, inputs, choice)
        first, second, third = (_Tensor.from_address(one) for one in (product, chosen, weight))
        expected = (
            tuple(first.ne) == (7, 3, 1, 1)
            and tuple(first.src[:2]) == (weight, given)
            and tuple(second.ne) == (7, 2, 3, 1)
            and tuple(second.src[:3]) == (experts, inputs, choice)
            and tuple(third.nb) == (4, 20, 140, 140)
            and third.name == b"blk.0.attn_q.weight"
            and third.data == library.ggml_get_data(weight)
            and _Tensor.from_address(choice).type == _I32
            and first.op not in (second.op, third.op)
        )
        operations = int(first.op), int(second.op)
    finally:
        library.ggml_free(context)
    if not expected:
        raise StudioError(
            "the installed llama-cpp-python lays out tensors in an unknown way, so no importance matrix can be made",
            fix="Install the version in constraints.txt, or export with imatrix: off",
        )
    return operations
