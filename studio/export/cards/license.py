"""The license of a base model, as its makers name it: in its README, or when it was downloaded from the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from studio.errors import InputError
from studio.foreign import parse_yaml, read_json_file
from studio.models.catalog.embedded import LICENSE
from studio.models.catalog.hubaccess import is_hub_id
from studio.reach import read_text

KEYS = ("license", "license_name", "license_link")
# The Hub takes its own identifiers only; "other" stands for any license with a name and an address.
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]{0,59}")
_CARD_BYTES = 1_000_000


def license_of(base: Path | None, recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return `license`, and for "other" its name and address where they are known; empty where none is.

    Args:
        base: folder of the base model; None where it is not there.
        recorded: what the run noted of it: name, source.
    """
    if recorded.get("source") == "embedded":
        return {"license": LICENSE}
    if base is None:
        return {}
    name = str(recorded.get("name") or "").partition("@")[0]
    return told(front_of(base / "README.md"), name) or told(_marked(base / "studio.json"), name)


def told(values: Mapping[str, Any], name: str) -> dict[str, str]:
    """Take the license out of a model card's front matter.

    Args:
        values: the front matter.
        name: of the model; a link to a file of it becomes an address if it is a Hub id.

    Returns:
        as `license_of`.
    """
    found = {key: value for key in KEYS if isinstance(value := values.get(key), str) and value.isprintable()}
    if not _IDENTIFIER.fullmatch(found.get("license", "")):
        return {}
    link = found.get("license_link", "")
    if link and not link.startswith(("https://", "http://")):
        file = link.removeprefix("./")
        found["license_link"] = f"https://huggingface.co/{name}/blob/main/{file}"
        if not is_hub_id(name) or "/" in file:
            del found["license_link"]
    return found


def front_of(path: Path) -> dict[str, Any]:
    """The front matter of a model's README; empty where there is none that anybody could read."""
    try:
        text = read_text(path, _CARD_BYTES)
        front = text.removeprefix("---\n").partition("\n---")[0] if text.startswith("---\n") else ""
        found = parse_yaml(front) if front else {}
    except (OSError, ValueError, InputError, YAMLError):  # none, or none that anybody could read
        return {}
    return found if isinstance(found, dict) else {}


def _marked(path: Path) -> dict[str, Any]:
    try:
        found = read_json_file(path)
    except (OSError, ValueError, InputError):
        return {}
    return found if isinstance(found, dict) else {}
