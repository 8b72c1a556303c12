"""The models that a person may choose from: well-known ones with what fits here, by the memory plan, and what is here.

The plan is the one of the model's preset, with all rows as long as its `data.max_length`: the worst case.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from studio.config import RunConfig
from studio.config.load import load_run
from studio.config.model import EMBEDDED_MODEL
from studio.errors import StudioError
from studio.models.catalog.hubcard import cached_models
from studio.models.catalog.names import known_models
from studio.models.device.machine import DeviceInfo, device_info
from studio.models.inspect.known_shapes import KNOWN, KnownModel, shape_of
from studio.models.inspect.shape import ModelShape
from studio.models.plan.cards import Fit, best_fit, preset_file
from studio.settings import Settings
from studio.tunings import QLORA

FITS = {
    "fits": "fits", "qlora": "fits with QLoRA", "shorter": "fits with shorter rows", "none": "does not fit here", "": ""
}  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """One model of the list.

    Attributes:
        name: as `model.path` takes it.
        family: as people call it: "SmolLM2", "Qwen3"; or where the model lies.
        parameters: their number; None where it is not known before a download.
        bytes: on the disk, or of the weights in 16 bits.
        here: "ready" for a model of this machine, "cached" for one in huggingface_hub's cache, "" for one on the Hub.
        fit: "fits", "qlora" (only so), "shorter" (only with shorter rows), "none"; "" where no plan was made.
        words: how it fits, "LoRA, micro-batch 4"; empty where it does not.
        preset: of the well-known models, with its options.
    """

    name: str
    family: str
    parameters: int | None
    bytes: int
    here: str
    fit: str = ""
    words: str = ""
    preset: str = ""


def offers(settings: Settings) -> list[Offer]:
    """List the well-known models by family, smallest first, then what else is on this machine.

    Args:
        settings: home and folders; the plans are for the memory that is free on this machine now.
    """
    ready = {info.name: info for info in known_models(settings) if info.ready}
    cached = {one["name"]: one["bytes"] for one in cached_models()}
    device = device_info(settings)
    made = []
    for model in KNOWN:
        name = EMBEDDED_MODEL if model.name == EMBEDDED_MODEL else model.hub
        here = "ready" if name in ready or name == EMBEDDED_MODEL else "cached" if name in cached else ""
        made.append(_known(model, name, here, device))
    made.sort(key=lambda one: (one.family, one.parameters or 0))
    names = {one.name for one in made}
    others = [
        Offer(name, "On this computer", info.parameters, sum(_sizes(info.path)), "ready")
        for name, info in ready.items() if name not in names and info.path is not None
    ]  # fmt: skip
    names |= {one.name for one in others}
    return made + others + [
        Offer(name, "In the Hugging Face cache", None, size, "cached")
        for name, size in cached.items() if name not in names
    ]  # fmt: skip


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Return `offers` for the page and JSON output, with `memory`: what `fit` means, in words."""
    return [asdict(one) | {"memory": FITS[one.fit]} for one in offers(settings)]


def _known(model: KnownModel, name: str, here: str, device: DeviceInfo) -> Offer:
    config, shape = _of_preset(model.name)
    try:
        fit = best_fit(config, shape, device)
    except StudioError:  # what the preset asks for is not to be had here
        fit = None
    usual = config.data.limit
    return Offer(
        name=name, family=_family(model), parameters=shape.parameters,
        bytes=2 * shape.parameters, here=here, fit=_word(fit, usual), words=fit.words(usual) if fit else "",
        preset=f"models/{model.name}",
    )  # fmt: skip


def _family(model: KnownModel) -> str:
    first = model.title.partition("-")[0]
    return first[:1].upper() + first[1:]


def _word(fit: Fit | None, usual: int) -> str:
    if fit is None:
        return "none"
    if fit.length != usual:
        return "shorter"
    return "qlora" if fit.tuning == QLORA.name else "fits"


@lru_cache(maxsize=len(KNOWN))
def _of_preset(name: str) -> tuple[RunConfig, ModelShape]:
    """The preset of a well-known model, and its shape: some of them have 46,000 tensors to lay out."""
    model = next(one for one in KNOWN if one.name == name)
    return load_run(preset_file(model)), shape_of(model)


def _sizes(folder: Any) -> list[int]:
    return [file.stat().st_size for file in folder.glob("*.safetensors")]
