"""The profile of a run's data: what is in it, what will be done with it, and the rows that are worth a look.

Begun by a button, because it reads everything: first a sample, then the whole. It is made by the second data worker
(`DataTasks`) and drawn by assets/data/profile.js, which polls for it. When the settings change it says so and stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import InputError
from studio.ui.components.choices import piece
from studio.ui.errors import guard
from studio.ui.form.meta import WITH_META
from studio.ui.form.schema import TRAIN, Values
from studio.ui.page import QUIET, Page
from studio.ui.tabs.data.taskcard import (
    PROGRESS,
    Asked,
    Calls,
    begin_by_click,
    buttons,
    grouping_of,
    is_seen,
    places,
    sections_of,
)
from studio.ui.tabs.data.values import acted, change_actions

SAMPLE_ROWS = 2000
ACTED = ("data.max_length", "data.truncation", "data.deduplicate")
TEMPLATE = f"""
<section class="studio card profile" aria-label="Profile">
  <div class="row-flex wrap-flex"><h3>Profile</h3><span class="task-from pill" hidden></span><span class="grow"></span>
    {buttons("Profile the data")}</div>
  <p class="profile-intro muted">Reads every row as the run would and changes nothing: tokens, wasted space,
    duplicates, leaks into the validation data, broken rows, secrets.</p>
  {PROGRESS}
  <div class="profile-body" hidden>
    <dl class="facts profile-figures num"></dl>
    <ul class="findings profile-findings"></ul>
    <div class="profile-more"></div>
    <div class="profile-pairs"></div>
  </div>
</section>
"""
_DOUBLES = {"duplicate": "exact", "near_duplicate": "near", "leak": "exact", "near_leak": "near"}


def profile_card(page: Page) -> gr.HTML:
    """Make the card and wire it."""
    card = piece(TEMPLATE, "profile", elem_id="profile")
    form = page.form

    def calls(asked: Asked, raw: Values) -> Calls:
        sections, seed, micro = sections_of(page, raw)
        args = {**sections, **grouping_of(page, raw), "seed": seed, "micro_batch": micro}
        return [("profile", {**args, "sample": SAMPLE_ROWS}), ("profile", args)]

    def act(current: list[Values] | None, text: str) -> list[Any]:
        return acted(text, current, ACTED)

    def connect() -> None:
        begin_by_click(page, card, "profile", calls, profile_value)
        files = form.components[TRAIN]
        targets = [*(form.components[option] for option in ACTED), files]
        card.select(guard(act), [files, form.meta], targets, js=WITH_META, **QUIET)
        changed = [form.components[path].change for path in form.specs if is_seen(path)]
        told = f"(...values) => {{ window.studioForm?.dataValues?.(values, {json.dumps(places(form))}) }}"
        gr.on(changed, None, form.inputs, None, js=told, **QUIET)

    form.wiring.append(connect)
    return card


def profile_value(found: Values) -> Values:
    """Turn the worker's answer to `profile` into what the card draws.

    Returns:
        from (of a sample: how much of the data it is), figures [[name, value]], findings, lists ([title, lines]),
        pairs ([{title, pairs}]), checks ({check: rows}), doubles (rows, None in a sample).
    """
    doubles, leaks = found["duplicates"], found["leakage"]
    several = len({place["source"] for one in found["findings"] for place in one["places"]}) > 1
    findings = [finding_value(one, found["lengths"]["longest"], several) for one in found["findings"]]
    nothing = {"level": "good", "label": "0", "text": "No findings", "now": "", "fix": "",
               "check": "", "places": [], "actions": []}  # fmt: skip
    secrets = [
        f"{kind}: {one['count']:,} ({', '.join(one['shown'])}{' …' if one['count'] > len(one['shown']) else ''})"
        for kind, one in found["secrets"].items()
    ]
    lists = [["Secrets, masked", secrets], ["Why rows are unusable", [one["sentence"] for one in found["errors"]]]]
    pairs = [] if doubles is None else [
        {"title": f"Duplicates: {doubles['exact']:,} exact, {doubles['near']:,} near", "pairs": doubles["pairs"]},
        {"title": f"In training and validation: {leaks['exact']:,} exact, {leaks['near']:,} near",
         "pairs": leaks["pairs"]},
    ]  # fmt: skip
    return {
        "from": found["sampled"]["text"] if found["sampled"] else "",
        "figures": figures(found),
        "findings": findings or [nothing],
        "lists": [one for one in lists if one[1]],
        "pairs": [{**one, "pairs": [pair_value(pair) for pair in one["pairs"]]} for one in pairs if one["pairs"]],
        "checks": {one["check"]: one["count"] for one in found["findings"] if one["check"]},
        "doubles": None if doubles is None else doubles["exact"] + doubles["near"],
    }


def figures(found: Values) -> list[list[str]]:
    """The figures of a profile, as [name, value]."""
    tokens, lengths = found["tokens"], found["lengths"]
    fates = {"refused": "refused", "dropped": "dropped", "cut": "cut", "without_answer": "dropped, without an answer"}
    over = [f"{lengths[name]:,} {word}" for name, word in fates.items() if lengths[name]]
    shown = [
        ["Rows", f"{found['rows']:,}" + (f", {found['unusable']:,} unusable" if found["unusable"] else "")],
        ["Training / validation", f"{found['train']:,} / {found['validation']:,}"],
        [f"Longer than {lengths['limit']:,} tokens", ", ".join(over) or "none"],
        ["Tokens", f"{tokens['total']:,}"],
        ["Trained on", f"{tokens['trained']:,} ({share(tokens['trained'], tokens['total'])})"],
        ["Used by the run", f"{tokens['kept']:,} ({share(tokens['kept'], tokens['total'])})"],
    ]
    if found["padding"]:
        padding = found["padding"]
        shown.append([f"Padding, up to {padding['micro_batch']} rows at a time", f"{padding['waste']:.1%}"])
    if found["packing"]:
        shown.append(["Left empty by packing", f"{found['packing']['waste']:.1%}"])
    most = sorted(found["turns"].items(), key=lambda one: -one[1])[:3]
    turns = [f"{count} in {rows:,} row{'' if rows == 1 else 's'}" for count, rows in most]
    rest = len(found["turns"]) - len(turns)
    shown.append(["Turns", ", ".join(turns + ([f"{rest} other turn counts"] if rest else [])) or "none"])
    if found["roles"]:
        shown.append(["Roles", ", ".join(f"{role} {count:,}" for role, count in found["roles"].items())])
    return shown


def finding_value(finding: Values, longest: int, several: bool) -> Values:
    """One finding as the card lists it; `several` files name the file of a row too.

    Args:
        finding: as the worker returns it.
        longest: tokens of the longest row; a button offers it as the new limit.
        several: whether there is more than one file.
    """
    check, count = finding["check"], finding["count"]
    text = finding["text"]
    return {
        "level": finding["level"],
        "label": f"{count:,} row{'' if count == 1 else 's'}",
        "text": text[:1].upper() + text[1:],
        "now": f"{finding['action'][:1].upper()}{finding['action'][1:]}." if finding["action"] else "",
        "fix": f"{finding['fix']}." if finding["fix"] else "",
        "check": check,
        "places": [{**place_value(place), "label": row_label(place, several)} for place in finding["places"]],
        "actions": actions(check, longest) or change_actions(finding),
    }


def actions(check: str, longest: int) -> list[Values]:
    """The ways out of a finding that an option has, as buttons that set it."""
    if check == "too_long":
        return [
            {"label": f"Raise the limit to {longest:,}", "set": {"data.max_length": longest}},
            {"label": "Drop them", "set": {"data.truncation": "drop"}},
            {"label": "Cut them", "set": {"data.truncation": "cut"}},
        ]
    if check in _DOUBLES:
        how = _DOUBLES[check]
        return [
            {
                "label": f"Drop {how} duplicates",
                "set": {"data.deduplicate": how},
            }
        ]
    return []


def pair_value(pair: Values) -> Values:
    """A pair as the card lists it."""
    several = pair["first"]["source"] != pair["second"]["source"]
    alike = "equal" if pair["exact"] else "alike" if pair["similarity"] is None else f"{pair['similarity']:.0%} alike"
    label = f"{row_label(pair['first'], several)} and {row_label(pair['second'], several)}: {alike}"
    return {"label": label, "first": place_value(pair["first"]), "second": place_value(pair["second"])}


def opened_pair(answer: Values) -> Values:
    """Turn the worker's answer to `pair` into what is shown side by side."""
    sides = [
        {**place_value(one["place"]), "title": row_label(one["place"], True), "texts": one["texts"]}
        for one in (answer["first"], answer["second"])
    ]
    said = "The same words; whitespace may differ." if answer["exact"] else ""
    return {"sides": sides, "said": said or f"{answer['similarity']:.1%} of the word trigrams in common."}


def place_value(place: Values) -> Values:
    """Where a row is, as the row view takes it."""
    return {"source": place["source"], "at": place["at"]}


def row_label(place: Values, several: bool) -> str:
    """What a row is called."""
    return f"{Path(place['path']).name}, row {place['row']:,}" if several else f"row {place['row']:,}"


def share(part: float, whole: float) -> str:
    """A part in per cent."""
    return f"{part / whole:.0%}" if whole else "0%"


def place_of(text: str) -> Values:
    """Read a place from an address: SOURCE:AT.

    Raises:
        InputError: it is none.
    """
    parts: Sequence[str] = text.split(":")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 12 for part in parts):
        raise InputError(f"'{text[:40]}' does not identify a row", fix="Reload the page")
    return {"source": int(parts[0]), "at": int(parts[1])}
