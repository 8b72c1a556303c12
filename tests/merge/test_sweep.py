"""A sweep over one value: a recipe for each value, and what is wrong with it told before anything is queued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from studio.config.jobs import MergeConfig
from studio.errors import InputError, StudioError
from studio.export import files
from studio.jobs.actions.removal import refers
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.merge.asking import prepare
from studio.merge.curve import curve_of
from studio.merge.job import Merging
from studio.merge.recipe import read_recipe
from studio.merge.sweep import in_a_line, places, prepare_sweep, split_item, spread, variants
from studio.settings import Settings
from tests.merge.made import MIX, put_point

TEXT = """
merge_method: ties
base_model: c
models:
  - {model: a, parameters: {weight: 0.5}}
  - {model: b, parameters: {weight: 0.5}}
"""


def test_each_value_has_its_recipe() -> None:
    found = variants(TEXT, *split_item("models.1.parameters.weight=0.2, 0.8"), "r.yaml")
    assert [value for value, _ in found] == [0.2, 0.8]
    for value, text in found:
        recipe = read_recipe(text)
        assert [one.parameters["weight"] for one in recipe.models or []] == [0.5, value]
        assert recipe.base_model == "c" and recipe.merge_method == "ties"


def test_a_parameter_that_was_not_given_is_added() -> None:
    text = TEXT.rstrip() + "\nparameters: {normalize: true}\n"
    (_, first), _ = variants(text, "parameters.density", [0.1, 0.9], "r.yaml")
    assert read_recipe(first).parameters == {"normalize": True, "density": 0.1}


WRONG = {
    "no values": ("models.1.parameters.weight", "is not PLACE=VALUES"),
    "one value": ("models.1.parameters.weight=0.5", "is not a list of 2 to 20 different numbers"),
    "a word": ("models.1.parameters.weight=0.5,much", "is not a list of 2 to 20 different numbers"),
    "another model": ("models.2.parameters.weight=0.1,0.2", "the recipe has no '2' in 'models'. There are 0, 1"),
    "a wrong name": ("model.1.parameters.weight=0.1,0.2", "Did you mean 'models'?"),
    "below a value": ("base_model.weight=0.1,0.2", "'base_model' holds a value, so it has no parts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_sentence(name: str) -> None:
    item, said = WRONG[name]
    with pytest.raises(InputError) as error:
        variants(TEXT, *split_item(item), "r.yaml")
    assert said in error.value.sentence and "sweep" in error.value.sentence


def test_what_can_be_varied_has_a_name() -> None:
    text = TEXT.rstrip() + "\nparameters: {normalize: true, lambda: 0.7, density: [0, 1]}\n"
    assert places(read_recipe(text)) == {
        "models.0.parameters.weight": "weight of a", "models.1.parameters.weight": "weight of b",
        "parameters.lambda": "lambda",
    }  # fmt: skip
    shared = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}"
    assert list(places(read_recipe(shared)).values()) == ["weight of a", "weight of b", "weight"]
    listed = "merge_method: ties\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}"
    assert list(places(read_recipe(listed)).values()) == ["weight of b", "weight"]
    slices = "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1], parameters: {scale: 2}}]}]"
    assert places(read_recipe(slices)) == {"slices.0.sources.0.parameters.scale": "scale of a in slice 1"}


def test_values_lie_at_equal_distances() -> None:
    assert spread("0", "1", "5") == [0, 0.25, 0.5, 0.75, 1] and spread("1", "0.4", "3") == [1, 0.7, 0.4]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("much", "1", "5"), "From: 'much' is not a number"), (("0", "nan", "5"), "To: 'nan' is not a number"),
        (("0", "1", "1"), "a sweep has 2 to 20 merges"), (("0", "1", "2.5"), "a sweep has 2 to 20 merges"),
        (("0", "1", "21"), "a sweep has 2 to 20 merges"), (("1", "1", "3"), "both ends are the same value"),
    ],
)  # fmt: skip
def test_ends_that_make_no_sweep_are_a_sentence(typed: tuple[str, str, str], said: str) -> None:
    with pytest.raises(InputError) as error:
        spread(*typed)
    assert said in error.value.sentence


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Hi", "completion": "Hello"}\n')
    return str(path)


@pytest.fixture
def linear(one: Path, two: Path) -> str:
    return f"merge_method: linear\nmodels: [{{model: {one}}}, {{model: {two}}}]\nparameters: {{weight: 1}}"


PLACE = "models.1.parameters.weight"


def test_all_merges_are_checked_and_what_they_take_is_known(linear: str, rows: str, settings: Settings) -> None:
    sweep = prepare_sweep(linear, PLACE, [0.2, 0.8], settings, "r.yaml", evaluate=rows)
    assert [config.varied for config in sweep.configs.values()] == [{PLACE: 0.2}, {PLACE: 0.8}]
    assert [config.compare for config in sweep.configs.values()] == [True, False], "the models answer once"
    weights = [(read_recipe(config.recipe).models or [])[1].parameters for config in sweep.configs.values()]
    assert weights == [{"weight": 0.2}, {"weight": 0.8}]
    first = sweep.first
    assert first.bytes and sweep.bytes == 2 * first.bytes and first.seconds and sweep.seconds == 2 * first.seconds
    assert in_a_line(sweep).startswith(f"Linear, 2 merges with weight of {first.recipe.words[1]} = 0.2, 0.8. The child")
    with pytest.raises(InputError, match="add up to 0"):
        prepare_sweep(linear, PLACE, [0.2, -1], settings, "r.yaml", evaluate=rows)
    with pytest.raises(InputError, match="compares its children on rows"):
        prepare_sweep(linear, PLACE, [0.2, 0.8], settings, "r.yaml")


def test_a_disk_that_holds_one_child_is_too_small_for_all(
    linear: str, rows: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare(linear, settings).bytes or 0
    monkeypatch.setattr(files, "free_bytes", lambda folder: files.SPARE_BYTES + 2 * one)
    prepare_sweep(linear, PLACE, [0.2, 0.8], settings, "r.yaml", evaluate=rows)
    with pytest.raises(StudioError, match=r"a sweep of 3 merges needs .* of disk space"):
        prepare_sweep(linear, PLACE, [0.2, 0.5, 0.8], settings, "r.yaml", evaluate=rows)


def test_the_curve_has_a_point_for_each_child_and_a_line_for_each_model(settings: Settings) -> None:
    jobs = [put_point(settings, 0.8, 1, models=True), put_point(settings, 0.2, 3), put_point(settings, 0.5, None)]
    curve = curve_of([*jobs, create_job(settings.jobs, "merge", "apart", {"recipe": TEXT})])
    assert (curve["place"], curve["measure"], curve["total"]) == (PLACE, "exact_match", 4)
    assert [one["name"] for one in curve["parents"]] == ["a"]
    points = [(one["value"], one["id"], one["status"], one["score"]) for one in curve["points"]]
    ids = [job.id for job in jobs]
    assert points == [
        (0.2, ids[1], "completed", 0.75), (0.5, ids[2], "queued", None), (0.8, ids[0], "completed", 0.25),
    ]  # fmt: skip
    assert curve["best"] == [ids[1]]


def test_the_models_stay_when_the_child_that_asked_them_is_deleted(settings: Settings) -> None:
    first, second = put_point(settings, 0.2, 1, models=True), put_point(settings, 0.8, 3)
    report = json.loads((second.report / "merge.json").read_text())
    config = MergeConfig(recipe=MIX, evaluate="rows.jsonl", compare=False, asked_by=first.id)
    asked = Merging(JobContext(second, settings), config)._models_of_sweep()
    assert asked == [{"name": "a", "score": 0.5, "correct": 2, "seconds": 1.0}]
    report["evaluation"]["models"] = asked
    write_json(second.report / "merge.json", report)
    third = create_job(settings.jobs, "merge", "mix-0.9", config.model_dump(mode="json"))
    assert not refers(third, first), "it was not made of that one"
    shutil.rmtree(first.path)
    curve = curve_of([second])
    assert [one["name"] for one in curve["parents"]] == ["a"] and len(curve["points"]) == 1
    assert Merging(JobContext(second, settings), config)._models_of_sweep() == []
