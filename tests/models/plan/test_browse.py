"""The list of models: what fits by the plan, and what is on this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from studio.models.device.machine import device_info
from studio.models.inspect.known_shapes import KNOWN
from studio.models.plan import browse
from studio.settings import Settings
from tests.models.checkpoints import write_checkpoint

GB = 2**30


def test_the_less_memory_the_less_fits(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "cached_models", list)
    device = device_info(settings)

    def fits(size: int) -> dict[str, str]:
        smaller = replace(device, kind="cuda", memory_bytes=size * GB, available_bytes=size * GB)
        monkeypatch.setattr(browse, "device_info", lambda settings: smaller)
        return {one.name: one.fit for one in browse.offers(settings) if one.fit}

    small, large, huge = fits(8), fits(16), fits(4000)
    assert set(small) == set(large) == set(huge) and len(small) == len(KNOWN)
    assert small["google/gemma-2-9b-it"] == "none" and small["smollm2-135m-instruct"] == "fits"
    assert large["Qwen/Qwen3-8B"] == "qlora"
    assert set(huge.values()) == {"fits"}
    order = ["none", "shorter", "qlora", "fits"]
    for name, word in small.items():
        assert order.index(word) <= order.index(large[name])


def test_what_is_here_is_listed_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(settings.models / "mine")
    monkeypatch.setattr(
        browse, "cached_models", lambda: [{"name": "Qwen/Qwen3-0.6B", "bytes": 5}, {"name": "a/b", "bytes": 7}]
    )
    found = browse.offers(settings)
    here = {one.name: one for one in found}
    assert len(here) == len(found)
    assert (here[str(folder)].here, here["a/b"].here, here["Qwen/Qwen3-0.6B"].here) == ("ready", "cached", "cached")
    assert here[str(folder)].bytes == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert here["google/gemma-2-2b-it"].here == ""
