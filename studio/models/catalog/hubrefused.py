"""Why the Hub does not let this machine have something: no token, one that it does not know, or one without access.

The Hub tells these apart by its status (401 or 403) and by whether a token was sent; the page where terms are accepted
is that of the repository itself. The token is asked for only to know that there is one.
"""

from __future__ import annotations

import os

from studio.errors import InputError

TOKENS = "https://huggingface.co/settings/tokens"
SIGN_IN = f"with a token from {TOKENS} (hf auth login, or HF_TOKEN where the studio is started)"


def unknown_token(status: int | None, where: str) -> InputError | None:
    """The refusal of a token that the Hub does not know; None where the status says something else.

    It is refused for open repositories too, and for those that do not exist.

    Args:
        status: of the Hub's answer; None where there was none.
        where: the option that named what was asked for.
    """
    if status != 401 or not _has_token():
        return None
    own = bool(os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"))
    return InputError(
        f"the Hub does not know the token {'in HF_TOKEN' if own else 'that hf auth login has saved'}: it is wrong, "
        "expired or revoked",
        where=where,
        fix=f"Replace it by one from {TOKENS}, or remove it: what is open to all needs none",
    )


def gated(name: str, page: str, said: str, where: str) -> InputError:
    """The refusal of what opens only to those who have accepted its terms.

    Args:
        name: Hub id.
        page: address of its page.
        said: what the Hub answered.
        where: the option that named it.
    """
    if not _has_token():
        what = f"{name} is gated, and this machine is not signed in to the Hub"
        fix = f"Accept its terms on {page} and sign in {SIGN_IN}"
    elif "awaiting" in said:
        what = f"{name} is gated, and your request for access has not been approved yet"
        fix = f"Wait for its owners; {page} shows the state of your request"
    elif "rejected" in said:
        what, fix = f"{name} is gated, and its owners have rejected your request for access", "Choose another one"
    else:
        what = f"{name} is gated, and the account of your token has no access to it"
        fix = f"Accept its terms on {page} with that account; a fine-grained token must also permit gated repositories"
    return InputError(what, where=where, fix=fix)


def refused(name: str, page: str, status: int, where: str) -> InputError:
    """Any other refusal.

    Args:
        name: Hub id.
        page: address of its page.
        status: of the Hub's answer.
        where: the option that named it.
    """
    fix = f"Check on {page} that your account has access, and sign in {SIGN_IN}"
    return InputError(f"the Hub refused access to {name} ({status})", where=where, fix=fix)


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())
