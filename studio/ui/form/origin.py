"""Where the form's values came from, and what becomes of them with another method or tuning.

What a preset, a file or a run brought belongs to its method and tuning: with another one it goes back to the default,
which is `auto` wherever there is one. What a person has typed over it stays, and is marked. The browser keeps the
origin beside the draft, so the marks survive a reload.
"""

from __future__ import annotations

from typing import Any

from studio.config.presets import belongs, demo_of, load_named, preset_names
from studio.config.renamed import by_current_name, current_name
from studio.errors import InputError
from studio.methods import METHODS
from studio.tunings import title_of
from studio.ui.form.fields import from_field, to_field
from studio.ui.form.reading import reads
from studio.ui.form.schema import METHOD, TRAIN, TUNING, Form, Values

# name: what brought the values; values: by option; kept: options that were typed and stayed when method or tuning
# changed; went: what the others had before, by option; since: method and tuning for which they had it.
Origin = dict[str, Any]


def origin_of(form: Form, values: Values, name: str) -> Origin:
    """The origin of values that were just brought by a preset, a file or a run.

    Args:
        form: its options.
        values: by option, as the fields hold them.
        name: shown name of the preset, file or run.
    """
    held = {path: values[path] for path, spec in form.specs.items() if _is_ours(spec.path, form)}
    return {"name": name, "values": held, "kept": [], "went": {}, "since": ""}


def known(form: Form, origin: Any) -> Origin:
    """What the browser has kept, or the demo that the page opens with."""
    if isinstance(origin, dict) and {"name", "values", "kept", "went", "since"} <= set(origin):
        return {
            **origin,
            "values": by_current_name(origin["values"]),
            "kept": [current_name(path) for path in origin["kept"]],
            "went": by_current_name(origin["went"]),
        }
    return origin_of(form, form.start, "the demo")


def switched(form: Form, values: Values, origin: Origin) -> tuple[Values, Origin]:
    """Return the options that change because method or tuning are others now, and the new origin.

    While the data is a demo set, the method brings its own, with the settings of its demo. Other data stays whatever
    the method: the plan line says if it does not fit.

    Args:
        form: its options.
        values: by option, as the fields hold them now.
        origin: of the values before the switch.
    """
    method, tuning = str(values[METHOD]), str(values[TUNING])
    before = origin["values"]
    other_method = method != before[METHOD]
    if not other_method and tuning == before[TUNING]:
        return {}, origin
    demo, data = _demo(form, method, values) if other_method else ({}, {})
    held = {**before, METHOD: method, TUNING: tuning}
    changes: Values = dict(data)
    kept: list[str] = []
    went: dict[str, Any] = {}
    for path, spec in form.specs.items():
        if not belongs(spec, method=other_method):
            if path in origin["kept"]:
                kept.append(path)
            continue
        usual = to_field(spec, spec.default)
        # What a demo set for its own tuning is not meant for another one.
        if demo and (demo[TUNING] == tuning or not belongs(spec, method=False)):
            usual = demo[path]
        if not same(form, path, values[path], before.get(path, usual)):
            if not same(form, path, values[path], usual):
                kept.append(path)
        elif not same(form, path, values[path], usual):
            changes[path] = usual
            went[path] = values[path]
        held[path] = usual
    name = origin["name"] if not demo else demo_of(method)
    since = f"{METHODS[before[METHOD]].title} with {title_of(before[TUNING])}"
    new = {"name": name, "values": held, "kept": kept, "went": went if not demo else {}, "since": since}
    return changes, {**new, "before": origin["name"]}


def kept_by_person(form: Form, values: Values, origin: Origin) -> list[str]:
    """Options that were typed for another method or tuning, and are still as they were typed.

    Args:
        form: its options.
        values: by option, as the fields hold them now.
        origin: as `switched` returned it.
    """
    return [
        path
        for path in origin["kept"]
        if path in values
        and reads(form.specs, path, values)
        and not same(form, path, values[path], origin["values"].get(path))
    ]


def went_back(form: Form, values: Values, origin: Origin) -> dict[str, str]:
    """What of a preset went back, by option, in words.

    Args:
        form: its options.
        values: by option, as the fields hold them now.
        origin: as `switched` returned it.
    """
    return {
        path: f"{value} was for {origin['since']}, by {origin.get('before') or origin['name']}"
        for path, value in origin["went"].items()
        if path in values and value not in ("", None) and same(form, path, values[path], origin["values"].get(path))
    }


def same(form: Form, path: str, value: Any, other: Any) -> bool:
    """Whether two values of a field mean the same; what cannot be read is compared as it stands.

    Args:
        form: its options.
        path: dotted name of the option.
        value, other: as fields hold them; "8", 8 and 8.0 are one number.
    """
    spec = form.specs[path]
    try:
        return bool(from_field(spec, value) == from_field(spec, other))
    except InputError:
        return bool(value == other)


def _demo(form: Form, method: str, values: Values) -> tuple[Values, Values]:
    """The values of the demo of a method, and the data options that change, where the data is a demo set."""
    demos = {name: form.raw(form.values(load_named(name))) for name in preset_names() if name.startswith("demo/")}
    olds = [shown for shown in demos.values() if shown[TRAIN] == values[TRAIN]]
    new = demos.get(demo_of(method))
    if new is None or not olds:
        return {}, {}
    old = olds[0]
    moved = [path for path, spec in form.specs.items() if spec.section == "data"]
    if new[TRAIN] == values[TRAIN]:
        return new, {}
    return new, {path: new[path] for path in moved if values[path] == old[path] != new[path]}


def _is_ours(path: str, form: Form) -> bool:
    return path in (METHOD, TUNING) or belongs(form.specs[path], method=True)
