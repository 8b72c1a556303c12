"""What the Hub says of models before one is downloaded: size, license, who may have it; and which it finds by words.

Every question has a deadline, so that a page without a network says so and does not hang: looking up a host's name
has no limit of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from studio.errors import InputError, StudioError
from studio.models.catalog import hub
from studio.models.catalog.hubaccess import Aim, hub_api

T = TypeVar("T")
SECONDS = 2.0
FOUND = 20  # models of a search
_GATED = {"auto": "accepting its terms on its page opens it", "manual": "its owners approve each request"}


@dataclass(frozen=True)
class HubCard:
    """A model on the Hub, as its page describes it.

    Attributes:
        name: Hub id.
        license: as the model card names it; empty where it names none.
        parameters: of the safetensors files; None where the Hub does not tell.
        bytes: what a download fetches.
        gated: what opens it; empty for a model that is open to all.
        refusal: why this machine has no access to a gated one, and where to get it; empty where it has.
    """

    name: str
    license: str
    parameters: int | None
    bytes: int
    gated: str
    refusal: str

    def as_dict(self) -> dict[str, Any]:
        """The attributes, and whether it is `locked`, for the page and JSON output."""
        return {**asdict(self), "locked": bool(self.refusal)}


def hub_card(name: str, revision: str = "main", seconds: float = SECONDS) -> HubCard:
    """Ask the Hub about a model.

    Args:
        name: Hub id, `owner/name`.
        revision: branch, tag or commit.
        seconds: how long to wait for all answers.

    Raises:
        InputError: there is no such model or revision, or nothing in it that can be trained.
        StudioError: the Hub cannot be reached, or has not answered in time.
    """

    def ask() -> HubCard:
        api = hub_api()
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=seconds)
        sizes = {item.rfilename: int(item.size or 0) for item in info.siblings or []}
        hub.refuse_untrainable(name, list(sizes))
        counted = getattr(info.safetensors, "total", None)
        gated = _GATED.get(str(info.gated), "") if info.gated else ""
        return HubCard(
            name=name, license=_license(info), parameters=int(counted) if counted else None,
            bytes=sum(size for file, size in sizes.items() if hub.wanted(file)), gated=gated,
            refusal=_refusal(api, name, revision) if gated else "",
        )  # fmt: skip

    return _in_time(ask, "look up", name, revision, seconds)


def find_models(words: str, seconds: float = 3 * SECONDS) -> list[dict[str, Any]]:
    """Search the Hub for models that write text, the most downloaded first.

    Args:
        words: part of their ids.
        seconds: how long to wait for the answer.

    Returns:
        up to `FOUND` of them: name, downloads, gated.

    Raises:
        StudioError: the Hub cannot be reached, or has not answered in time.
    """

    def ask() -> list[dict[str, Any]]:
        found = hub_api().list_models(
            search=words, pipeline_tag="text-generation", filter="safetensors", sort="downloads", limit=FOUND
        )
        return [{"name": one.id, "downloads": one.downloads or 0, "gated": bool(one.gated)} for one in found]

    return _in_time(ask, "search for", words, "main", seconds)


def cached_models() -> list[dict[str, Any]]:
    """List the models in huggingface_hub's own cache that could be trained: name and bytes, by name.

    A download takes from there what it holds already.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = {}
    for one in repositories:
        files = {file.file_name for revision in one.revisions for file in revision.files}
        if one.repo_type == "model" and "config.json" in files and any(file.endswith(".safetensors") for file in files):
            found[one.repo_id] = one.size_on_disk
    return [{"name": name, "bytes": found[name]} for name in sorted(found)]


def _license(info: Any) -> str:
    card = info.card_data
    named = card.get("license_name") or card.get("license") if card is not None else None
    if not named:
        named = next((tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")), "")
    return f"{named:.60}"


def _refusal(api: Any, name: str, revision: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.auth_check(name)
    except HfHubHTTPError as error:
        said = hub.said(error, name, revision, "look up")
        return StudioError(said.what, fix=said.fix).sentence
    return ""


def _in_time(ask: Callable[[], T], aim: Aim, name: str, revision: str, seconds: float) -> T:
    """Ask in a thread of its own, which a question without an end keeps, and not us."""
    answers: list[T] = []
    failures: list[Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # whatever it is, it is told in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=work, name="ask-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    if failures and isinstance(failures[0], InputError):
        raise failures[0]
    if failures:
        raise hub.said(failures[0], name, revision, aim) from failures[0]
    raise StudioError(
        f"the Hub has not answered within {seconds:g} s", where="model.path",
        fix="Check the network or proxy (HTTPS_PROXY), or try again",
    )  # fmt: skip
