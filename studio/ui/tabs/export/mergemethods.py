"""The methods that the Merge section offers, and why one is none for the chosen models.

A drop-down of gradio cannot refuse one of its choices: the reason stands in the choice, which the style greys by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.errors import StudioError
from studio.merge.methods import METHODS, UNLOAD, MergeMethod
from studio.merge.parents import find_parent
from studio.settings import Settings

# As assets/export/merge.css looks for it.
NOT_HERE = " · not here: "


def choices(whole: bool, models: Sequence[str] = (), wholes: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Labels and names of the methods, those that are none for these models with the reason.

    Args:
        whole: offer all, not only the usual ones and two of adapters.
        models: words of the chosen models; empty while there are none.
        wholes: those of them that have no adapter.
    """
    shown = [one for one in METHODS.values() if whole or one.usual or one.name in ("adapter_cat", "adapter_linear")]
    return [(_label(one, models, wholes), one.name) for one in [*shown, UNLOAD]]


def about(method: MergeMethod) -> str:
    """What a method makes, and what a person should know of it."""
    made = f"{method.makes[0].upper()}{method.makes[1:]}."
    return f"{made} {method.note}." if method.note else made


def whole_models(models: Sequence[str], settings: Settings) -> list[str]:
    """Return the words of those models that have no adapter; one that cannot be found is for the check.

    Args:
        models: words of the chosen models.
        settings: whose runs and models.
    """
    found = []
    for word in models:
        try:
            if find_parent(word, settings).adapter is None:
                found.append(word)
        except StudioError:
            continue
    return found


def why_not(method: MergeMethod, models: Sequence[str], wholes: Sequence[str]) -> str:
    """Return why a method cannot merge the chosen models; "" where it can, or none are chosen.

    Args:
        method: that is offered.
        models: words of the models, without a base model that is named apart.
        wholes: those of them that have no adapter.
    """
    count = len(models)
    if not count:
        return ""
    if method.of_adapters and wholes:
        return f"{wholes[0]:.40} has no adapter"
    least, most = method.others or (method.least, method.most)
    apart = method.base != "none" and not method.of_adapters
    if method.others is not None:
        most = None if most is None else most + apart  # one of them may be the base
    elif apart:
        least -= 1  # the base may be named apart
    if count < least:
        return f"it takes {_models(least)} or more" if most != least else f"it takes {_models(least)}"
    return f"it takes {_models(most)}" if most is not None and count > most else ""


def _label(method: MergeMethod, models: Sequence[str], wholes: Sequence[str]) -> str:
    reason = why_not(method, models, wholes)
    return f"{method.title}{NOT_HERE}{reason}" if reason else method.title


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"
