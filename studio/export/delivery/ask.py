"""What the Hub knows of a repository before anything is made for it: a step of the export, as it needs the network.

Asked for: whose token this is and whether it may write there, which files the repository holds, and the license of the
base model. Nothing is created: if the making fails, the Hub is as it was.
"""

from __future__ import annotations

from typing import Any

from studio.errors import InputError
from studio.export.delivery.refusals import MAKE_ONE, TOKEN, WHERE, no_write_access, said_plainly
from studio.export.steps import Report, serve_step
from studio.models.catalog.hub import license_named
from studio.models.catalog.hubaccess import hub_api, is_hub_id

# What the Hub itself puts into a new repository.
ITS_OWN = (".gitattributes",)


def ask(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Ask.

    Args:
        request: repo (owner/name), base (name of the base model).
        report: not used.

    Returns:
        exists, private (None before it exists), files (names in it), license (as the base model's card has it).

    Raises:
        InputError: the token may not write there, or is none.
        StudioError: the Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    repo, api = request["repo"], hub_api()
    with said_plainly(repo, "look up"):
        require_owner(repo, api.whoami())
        try:
            found = api.model_info(repo)
        except RepositoryNotFoundError:
            found = None
        if found is not None:
            require_write(repo, api)
    files = [one.rfilename for one in found.siblings or []] if found is not None else []
    return {
        "exists": found is not None,
        "private": bool(found.private) if found is not None else None,
        "files": sorted(name for name in files if name not in ITS_OWN),
        "license": base_license(request["base"], api),
    }


def require_owner(repo: str, who: dict[str, Any]) -> None:
    """Refuse a repository of somebody else, and a token that may only read.

    Args:
        repo: owner/name.
        who: what the Hub says of the token's owner.

    Raises:
        InputError: it is such a one.
    """
    name, owner = str(who.get("name")), repo.partition("/")[0]
    ours = [name, *(str(one.get("name")) for one in who.get("orgs") or [])]
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise InputError(f"the token of {name} can only read", where=TOKEN, fix=MAKE_ONE)
    if owner.casefold() not in [one.casefold() for one in ours]:
        raise InputError(
            f"the token is one of {name}, who is not a member of {owner}", where=WHERE,
            fix=f"Give {name}/{repo.partition('/')[2]}, or set HF_TOKEN to a token of a member",
        )  # fmt: skip


def require_write(repo: str, api: Any) -> None:
    """Refuse a repository that the token may not write to.

    Args:
        repo: owner/name; it exists.
        api: what asks the Hub.

    Raises:
        InputError: it may not.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        api.auth_check(repo, write=True)
    except (GatedRepoError, RepositoryNotFoundError):  # as the Hub says of what a token may see and not write
        raise no_write_access(repo) from None


def base_license(base: str, api: Any) -> dict[str, str]:
    """What the Hub says of the license of the base model; empty if it is no model of the Hub, or one that is hidden.

    Args:
        base: its name.
        api: what asks the Hub.
    """
    from huggingface_hub.errors import HfHubHTTPError

    if not is_hub_id(base):
        return {}
    try:
        return license_named(api.model_info(base))
    except HfHubHTTPError:
        return {}


if __name__ == "__main__":
    raise SystemExit(serve_step(ask))
