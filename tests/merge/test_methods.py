"""Our table of methods is mergekit's registry and PEFT's list, which cannot be imported where the table is read."""

from __future__ import annotations

import inspect
from importlib import resources
from typing import Any, get_args

import pytest
from mergekit._data import chat_templates
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy, ParameterScope
from peft.tuners.lora import LoraModel

from studio.merge.methods import ADAPTERS, METHODS
from studio.merge.rules import TEMPLATES

THEIRS = {method.spec.name: method.spec for method in registered_methods()}
BASES = {BasePolicy.REQUIRED: "required", BasePolicy.OPTIONAL: "optional", BasePolicy.IGNORED: "none"}


def kind_of(type_: Any) -> str:
    kinds = set(get_args(type_)) - {type(None)} or {type_}
    return {bool: "flag", int: "integer", float: "number"}[kinds.pop()]


def test_all_of_mergekits_methods_are_here() -> None:
    assert {name for name, one in METHODS.items() if not one.of_adapters} == set(THEIRS)


@pytest.mark.parametrize("name", THEIRS)
def test_a_method_is_as_mergekit_declares_it(name: str) -> None:
    ours, spec = METHODS[name], THEIRS[name]
    contract = spec.contract
    assert ours.base == BASES[contract.base]
    assert (ours.least, ours.most) == (contract.min_inputs, contract.max_inputs)
    others = None if contract.min_non_base is None else (contract.min_non_base, contract.max_non_base)
    assert ours.others == others
    assert {one.name: (one.kind, one.each, one.required) for one in ours.parameters} == {
        one.name: (kind_of(one.value_type), one.scope != ParameterScope.SHARED, one.required) for one in spec.parameters
    }


def test_templates_are_those_that_come_with_mergekit() -> None:
    names = [file.name for file in resources.files(chat_templates).iterdir()]
    assert sorted(name.removesuffix(".jinja") for name in names if name.endswith(".jinja")) == sorted(TEMPLATES)


def test_methods_of_adapters_are_pefts() -> None:
    words = get_args(
        inspect.signature(LoraModel.add_weighted_adapter, eval_str=True).parameters["combination_type"].annotation
    )
    ours = {name.removeprefix(ADAPTERS) for name, one in METHODS.items() if one.of_adapters}
    assert ours == {word for word in words if not word.endswith("_svd")}
