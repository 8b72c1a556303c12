"""What the Hub's refusals of a name, a token or an upload mean, in sentences that repeat nothing of what it says.

Its own words, and the addresses in the errors of its client, may hold the token or a mirror's password.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from studio.errors import InputError, StudioError
from studio.models.catalog.hubaccess import Aim, Asked, is_hub_id, sentence

WHERE = "repo"
TOKEN = "HF_TOKEN"
MAKE_ONE = "Create a token with write access (huggingface.co/settings/tokens) and set HF_TOKEN, or run `hf auth login`"


def require_repository(name: str | None) -> str:
    """Return the name of a repository.

    Raises:
        InputError: it is none that the Hub could have.
    """
    if not name:
        raise InputError("no repository is named", where=WHERE, fix="Give it as owner/name")
    part = name.rpartition("/")[2]
    if not is_hub_id(name) or part.endswith((".git", "-", ".")) or len(name) > 96:
        raise InputError(
            f"'{name:.100}' cannot be a repository of the Hub", where=WHERE,
            fix="Give owner/name, with letters, digits and single -, _ or . between them",
        )  # fmt: skip
    return name


def require_token() -> None:
    """Refuse to go on without a token; it is only looked whether there is one.

    Raises:
        InputError: there is none.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise no_token()


def no_token() -> InputError:
    """The error for a machine without a token."""
    return InputError("there is no Hub token", where=TOKEN, fix=MAKE_ONE)


@contextlib.contextmanager
def said_plainly(repo: str, aim: Aim) -> Iterator[None]:
    """Turn whatever fails within it into a sentence.

    Args:
        repo: the repository.
        aim: what it is asked for.

    Raises:
        InputError: no token, one that is not known or may not write.
        StudioError: anything else, by the class of the error.
    """
    from huggingface_hub import errors

    try:
        yield
    except StudioError:
        raise
    except errors.LocalTokenNotFoundError as error:
        raise no_token() from error
    except Exception as error:  # of the client, of its HTTP library, of a mirror's answer that is no JSON
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            raise InputError("the Hub does not accept the token", where=TOKEN, fix=MAKE_ONE) from None
        if status == 403:
            raise no_write_access(repo) from None
        if isinstance(error, ValueError) and "metadata in README" in str(error):
            raise StudioError(
                f"the Hub does not accept the model card of {repo}", where=WHERE,
                fix="Look at the first lines of README.md in the export's folder, and upload it with `hf upload`",
            ) from None  # fmt: skip
        otherwise = "export with --to folder"
        raise sentence(error, Asked(repo, "main", "repository", WHERE, WHERE, otherwise, aim)) from None


def no_write_access(repo: str) -> InputError:
    """The error for a token that may not write to a repository."""
    return InputError(f"the token may not write to {repo}", where=WHERE, fix=MAKE_ONE)


def require_shareable(base: str) -> None:
    """Refuse to upload an adapter whose base model nobody else has.

    Args:
        base: the name that the adapter carries.

    Raises:
        InputError: it is a folder on this machine.
    """
    if not is_hub_id(base):
        raise InputError(
            f"the adapter's base model is a folder on this machine ({base:.200}), which nobody else can load",
            where="base", fix="Give its Hub id as base, or upload the merged checkpoint",
        )  # fmt: skip
