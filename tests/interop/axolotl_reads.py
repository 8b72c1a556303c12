"""Run by the Python that has Axolotl (`test_axolotl_schema.py`): configs are read as `axolotl train` reads them.

Prints as JSON, by file name, the problems of each: what Axolotl's schema refuses, keys that it does not know (it drops
them without a word), and sets whose `type` names no strategy of its package.
"""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import torch
import yaml
from axolotl.prompt_strategies.dpo import load as load_dpo
from axolotl.prompt_strategies.kto import load as load_kto
from axolotl.prompt_strategies.orpo import load as load_orpo
from axolotl.utils.config import validate_config
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.config import AxolotlInputConfig
from axolotl.utils.schemas.datasets import DPODataset, KTODataset, SFTDataset
from axolotl.utils.schemas.trl import TRLConfig

MACHINE = {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_90"}
VERSIONS = {"torch_version": torch.__version__.partition("+")[0]}
logging.disable(logging.CRITICAL)
SETS = {"dpo": DPODataset, "simpo": DPODataset, "kto": KTODataset}
PAIRS = {"dpo": load_dpo, "simpo": load_dpo, "orpo": load_orpo, "kto": load_kto}


def names_of(model: type) -> set[str]:
    """The keys that a schema knows, with their other spellings."""
    fields = model.model_fields
    others = {name for field in fields.values() for name in (field.alias, field.validation_alias)}
    return set(fields) | {name for name in others if isinstance(name, str)}


def strategy_missing(config: DictDefault, at: int) -> bool:
    """Whether the `type` of a set is nothing that Axolotl makes examples by."""
    kind, rl = config.datasets[at]["type"], config.rl
    if rl in PAIRS:
        return PAIRS[rl]("user_defined.default" if isinstance(kind, dict) else kind, config, dataset_idx=at) is None
    if not isinstance(kind, str):
        return kind is None and rl != "grpo"
    module, _, function = kind.replace(":", ".").partition(".")
    if module in ("alpaca", "alpaca_chat", "alpaca_w_system") or function.startswith("load"):
        return False
    return importlib.util.find_spec(f"axolotl.prompt_strategies.{kind}") is None


def problems_of(text: str) -> list[str]:
    """What is wrong with a config, in Axolotl's eyes."""
    given = yaml.safe_load(text)
    found = [f"unknown key {key}" for key in given if key not in names_of(AxolotlInputConfig)]
    found += [f"unknown key trl.{key}" for key in given.get("trl", {}) if key not in names_of(TRLConfig)]
    entries = SETS.get(given.get("rl"), SFTDataset)
    for entry in [*given["datasets"], *given.get("test_datasets", [])]:
        found += [f"unknown key {key} of a set" for key in entry if key not in names_of(entries)]
    try:
        config = validate_config(DictDefault(given), capabilities=MACHINE, env_capabilities=VERSIONS)
    except Exception as error:
        return [*found, f"{type(error).__name__}: {error}"]
    return [
        *found,
        *(f"no strategy {one.type}" for at, one in enumerate(config.datasets) if strategy_missing(config, at)),
    ]


print(json.dumps({file.name: problems_of(file.read_text(encoding="utf-8")) for file in Path(sys.argv[1]).iterdir()}))
