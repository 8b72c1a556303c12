"""Which devices there are, and which job takes which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.jobs.run import devices as module
from studio.jobs.run.devices import Device, assign, environment_of, list_devices, require_device, wanted_device
from studio.models.device.gpus import VISIBLE, Gpu
from studio.settings import Settings, read_settings

CPU = Device("cpu", "processor")
GPUS = [Device("cuda:0", "a GPU", environment={VISIBLE: "GPU-a"}), Device("cuda:1", "a GPU"), CPU]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: [Gpu("GPU-a", "H100", 8, 8), Gpu("GPU-b", "H100", 8, 8)])


def names(found: dict[str, Device]) -> dict[str, str]:
    return {job: device.name for job, device in found.items()}


@pytest.mark.parametrize(
    ("queued", "taken", "found"),
    [
        ([("a", "any"), ("b", "any"), ("c", "any")], [], {"a": "cuda:0", "b": "cuda:1"}),
        ([("a", "any")], ["cuda:0"], {"a": "cuda:1"}),
        ([("a", "any")], ["cuda:0", "cuda:1"], {}),  # never the slow one without being asked for
        ([("a", "cpu"), ("b", "any")], ["cuda:0"], {"a": "cpu", "b": "cuda:1"}),
        ([("a", "cuda:1"), ("b", "cuda:1"), ("c", "cuda:0")], [], {"a": "cuda:1", "c": "cuda:0"}),
        ([("a", "cuda:9"), ("b", "any")], [], {"b": "cuda:0"}),  # who waits for what is gone holds up nobody
        ([("a", "any"), ("b", "any")], [""], {"a": "cuda:1"}),  # begun by an older version, which wrote no device
        ([("a", "any")], ["cuda:7", "cuda:7"], {"a": "cuda:0"}),
        ([("a", "any*2"), ("b", "any")], [], {"a": "cuda:0,cuda:1"}),
        ([("a", "any*2"), ("b", "any")], ["cuda:0"], {"b": "cuda:1"}),  # it waits for both, and holds up nobody
        ([("a", "cuda:1,cuda:0"), ("b", "cpu")], [], {"a": "cuda:0,cuda:1", "b": "cpu"}),
        ([("a", "any")], ["cuda:0,cuda:1"], {}),
        ([("a", "cuda:0,cuda:9")], [], {}),
    ],
)
def test_each_job_takes_the_first_free_device_that_it_accepts(
    queued: list[tuple[str, str]], taken: list[str], found: dict[str, str]
) -> None:
    assert names(assign(queued, GPUS, taken)) == found


def test_a_processor_may_take_two() -> None:
    two = [Device("cpu", "processor", 2)]
    queued = [("a", "any"), ("b", "cpu"), ("c", "any")]
    assert names(assign(queued, two, [])) == {"a": "cpu", "b": "cpu"}
    assert names(assign(queued, two, ["cpu"])) == {"a": "cpu"}
    assert assign(queued, [], []) == {}
    # Several processes of one run share the cores, so they take one place.
    assert names(assign([("a", "any*2"), ("b", "any*3"), ("c", "any")], two, [])) == {"a": "cpu", "b": "cpu"}


def test_without_a_gpu_the_processor_is_all_there_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_gpus", list)
    (found,) = list_devices(settings)
    assert (found.name, found.slots, found.environment) == ("cpu", 1, {})
    assert environment_of(found, "any") == {}
    assert environment_of(found, "cpu") == {VISIBLE: ""}
    require_device("any", settings)
    with pytest.raises(InputError, match="there is no device 'cuda:0' here") as caught:
        require_device("cuda:0", settings)
    assert (caught.value.where, caught.value.fix) == ("training.device", "Set it to any or cpu")


def test_gpus_are_found_and_shown_to_their_job_alone(settings: Settings, two_gpus: None) -> None:
    found = list_devices(settings)
    assert [device.name for device in found] == ["cuda:0", "cuda:1", "cpu"]
    assert environment_of(found[1], "any") == {VISIBLE: "GPU-b"}
    assert environment_of(found[2], "cpu") == {VISIBLE: ""}
    both = assign([("a", "any*2")], found, [])["a"]
    assert environment_of(both, "any*2") == {VISIBLE: "GPU-a,GPU-b"}
    with pytest.raises(InputError) as caught:
        require_device("cuda:2", settings)
    assert caught.value.fix == "Set it to any or cuda:0 or cuda:1 or cpu"


def test_the_environment_names_the_devices(home: object, two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_DEVICES", " cuda:1, cpu*2 ")
    settings = read_settings()
    assert settings.devices == (("cuda:1", 1), ("cpu", 2))
    gpu, processor = list_devices(settings)
    assert (gpu.environment, processor.slots) == ({VISIBLE: "GPU-b"}, 2)
    assert int(processor.environment["OMP_NUM_THREADS"]) == max(1, module.cores() // 2)
    absent = replace(settings, devices=(("cuda:5", 1),))
    assert list_devices(absent) == []
    with pytest.raises(InputError, match="none of the devices in STUDIO_DEVICES is available"):
        require_device("any", absent)
    for wrong in ("gpu", "cpu*0", "cuda", "cpu*x", "cuda:0*"):
        monkeypatch.setenv("STUDIO_DEVICES", wrong)
        with pytest.raises(InputError, match="is not a device"):
            read_settings()


def test_only_trainings_choose() -> None:
    config = RunConfig().model_dump(mode="json")
    assert wanted_device("train", config) == "any"
    assert wanted_device("train", {"training": {"device": "cuda:1"}}) == "cuda:1"
    assert wanted_device("train", {"training": {"device": "any", "devices": "2"}}) == "any*2"
    assert wanted_device("train", {"training": {"device": "cpu", "devices": "2"}}) == "cpu"
    assert wanted_device("train", {"training": {"device": "any", "devices": "[0, 2]"}}) == "cuda:0,cuda:2"
    assert wanted_device("export", {"training": {"device": "cuda:1"}}) == "any"
    for strange in ({}, {"training": 3}, {"training": {"device": None}}):
        assert wanted_device("train", strange) == "any"
    for word in ("gpu", "cuda", "cuda:", "cuda:-1", "CPU"):
        with pytest.raises(InputErrors, match="any, cpu, or a GPU such as cuda:0"):
            build(RunConfig, {"training": {"device": word}})
