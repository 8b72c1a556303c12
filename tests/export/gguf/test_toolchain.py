"""The converter: where it is found, how it is unpacked, and what is said when it cannot be had."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from studio.errors import InputError, StudioError
from studio.export.gguf import toolchain
from studio.settings import Settings
from tests.export.conftest import Recorder

TOP = "llama_cpp_python-0"
FILES = {name: name for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "LICENSE")}
FILES |= {"conversion/base.py": "c", "gguf-py/gguf/__init__.py": "g"}


def pack(path: Path, files: dict[str, str], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def inside(files: dict[str, str]) -> dict[str, str]:
    return {f"{TOP}/vendor/llama.cpp/{name}": text for name, text in files.items()}


def test_only_the_converter_is_unpacked_whatever_the_archive_holds(tmp_path: Path) -> None:
    hostile = {
        f"{TOP}/vendor/llama.cpp/conversion/../../../../evil.py": "e",
        f"{TOP}/vendor/llama.cpp/src/llama.cpp": "s",
        f"{TOP}/setup.py": "s",
        "/absolute.py": "a",
    }
    archive = pack(
        tmp_path / "a.tar.gz", inside(FILES) | hostile, {f"{TOP}/vendor/llama.cpp/conversion/link": "/etc/passwd"}
    )
    toolchain.unpack(archive, tmp_path / "out")
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(
        FILES
    )
    assert not list(tmp_path.rglob("evil.py"))


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_garbage_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        toolchain.unpack(archive, tmp_path / "out")


def test_a_package_without_the_converter_is_a_sentence(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", inside({"LICENSE": "l"}))
    with pytest.raises(InputError, match=r"does not hold convert_hf_to_gguf\.py"):
        toolchain.unpack(archive, tmp_path / "out")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No converter is installed, and its place is an empty folder."""
    place = tmp_path / "share" / "llama.cpp-x"
    monkeypatch.setattr(toolchain, "places", lambda settings: [place])
    return place


def test_installs_from_a_source_package_at_hand(
    elsewhere: Path, settings: Settings, tmp_path: Path, watcher: Recorder
) -> None:
    archive = pack(tmp_path / f"llama_cpp_python-{toolchain.installed_version()}.tar.gz", inside(FILES))
    assert toolchain.find_toolchain(settings) is None
    for given in (archive, tmp_path):
        assert toolchain.install(settings, watcher, given).path == elsewhere
        assert toolchain.find_toolchain(settings) == toolchain.Toolchain(elsewhere)
    assert [path.name for path in elsewhere.parent.iterdir()] == [elsewhere.name], "nothing half-made is left"


def test_a_source_package_of_another_version_is_refused(
    elsewhere: Path, settings: Settings, tmp_path: Path, watcher: Recorder
) -> None:
    archive = pack(tmp_path / "llama_cpp_python-0.0.1.tar.gz", inside(FILES))
    with pytest.raises(InputError, match="no source package"):
        toolchain.install(settings, watcher, archive)


def test_missing_without_a_network_names_the_line_to_run(
    elsewhere: Path, settings: Settings, watcher: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(StudioError) as caught:
        toolchain.ensure_toolchain(settings, watcher)
    assert "could not be downloaded" in caught.value.what
    assert "-m studio.export.gguf.toolchain" in caught.value.fix
    assert not elsewhere.exists()


def test_command_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert toolchain.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
