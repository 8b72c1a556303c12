"""The Dockerfile and its context as files. That its steps work is seen by `container.py`, in a fresh root."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.project.container import Stage, kept, stages

ROOT = Path(__file__).parents[2]
FOUND = stages((ROOT / "Dockerfile").read_text())


def chain(name: str) -> list[Stage]:
    """A stage and those it comes from, the first one first."""
    return [*(chain(FOUND[name].base) if FOUND[name].base in FOUND else []), FOUND[name]]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_who_runs_it_has_no_rights_and_the_home_is_a_volume(target: str) -> None:
    steps = [step for stage in chain(target) for step in stage.steps]
    assert [rest for word, rest in steps if word == "USER"] == ["1000"]
    assert any("useradd --uid 1000 " in rest for word, rest in steps if word == "RUN")
    assert ("VOLUME", "/data") in steps
    assert "HEALTHCHECK" in dict(steps)
    env = " ".join(rest for word, rest in steps if word == "ENV")
    assert "STUDIO_HOME=/data" in env and "PASSWORD" not in env
    assert not any("build-essential" in rest for _, rest in steps), "no compiler in what runs"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_studio_is_compiled_where_it_is_built(target: str) -> None:
    """Its user may not write beside it: each process would compile its modules anew, for a second and a half."""
    (copied,) = [rest.split()[0] for word, rest in FOUND[target].steps if word == "COPY"]
    runs = [rest for word, rest in FOUND[copied.removeprefix("--from=")].steps if word == "RUN"]
    assert any(rest.endswith("-m compileall -q studio") for rest in runs)


def test_what_is_not_named_stands_last_so_that_it_is_the_default() -> None:
    assert list(FOUND)[-1] == "cpu"


def test_the_context_has_what_the_installation_reads_and_nothing_more() -> None:
    names = {entry.name for entry in kept(ROOT)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {*included, "studio", "Makefile", "constraints.txt", project["project"]["readme"]} <= names
    assert all((ROOT / name).exists() for name in names)
    assert not {"tests", ".git", ".venv"} & names


def test_compose_asks_for_a_password_and_stays_on_this_machine() -> None:
    services = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert service["environment"]["STUDIO_PASSWORD"].startswith("${STUDIO_PASSWORD:?")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["build"]["target"] in FOUND
