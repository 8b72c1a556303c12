"""Whether a recipe can be meant: number of models, base model, and each parameter with its bounds.

mergekit passes over parameters that a method does not have, and finds the other faults only while it plans or computes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from studio.errors import InputError, InputErrors
from studio.merge.methods import MergeMethod, Parameter
from studio.merge.recipe import WHERE, Recipe, SliceSource, Source, Values

_FLAGS = ("true", "false")
# Chat templates that come with mergekit; a test compares them with its folder.
TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
# What a tokenizer's source says, beside the name of a model.
TOKENIZERS = ("union", "base")
_EPSILON = 0.15  # of DELLA where none is given


def require_sense(recipe: Recipe, where: str = WHERE) -> None:
    """Refuse a recipe that its method cannot follow.

    Args:
        recipe: of the right form.
        where: its file, for errors.

    Raises:
        InputErrors: with every problem.
    """
    found = list(_problems(recipe, where))
    if found:
        raise InputErrors(found)


def given(name: str, *scopes: Values) -> Any:
    """The value of a parameter, from the first scope that has it; None where none has.

    Args:
        name: of the parameter.
        scopes: the smallest part of the recipe first.
    """
    return next((scope[name] for scope in scopes if name in scope), None)


def _problems(recipe: Recipe, where: str) -> Iterator[InputError]:
    method = recipe.method
    if method.of_adapters and (recipe.models is None or recipe.base_model):
        key = "base_model" if recipe.base_model else "slices"
        fix = "Name the runs under models; their base model is known"
        yield InputError(f"{method.name} combines whole adapters", where=f"{where}: {key}", fix=fix)
        return
    if not method.name and recipe.models is None:
        yield InputError("a recipe with slices needs a merge_method", where=where, fix="Add merge_method: passthrough")
        return
    if (recipe.own_tokenizer or recipe.chat_template) and (method.of_adapters or not method.name):
        yield InputError(
            "this merge keeps the tokenizer and the chat template of its model", where=f"{where}: tokenizer",
            fix="Remove tokenizer, tokenizer_source and chat_template, or choose a merge_method of whole models",
        )  # fmt: skip
    yield from _template(recipe.chat_template, where)
    for place, sources, base, scopes in recipe.parts:
        at = f"{where}: {place}"
        yield from _counts(method, sources, base, not isinstance(sources[0], SliceSource), at)
        yield from _ranges(sources, at)
        for number, source in enumerate(sources):
            yield from _parameters(method, source.parameters, f"{at}.{number}.parameters", own=True)
        if any(source.model != base for source in sources):
            yield from _required(method, sources, base, scopes, at)
        yield from _sums(method, sources, scopes, at)
        yield from _chances(method, sources, base, scopes, at)
    for place, values in _shared(recipe):
        yield from _parameters(method, values, f"{where}: {place}parameters")
    made = recipe.tokenizer.source if recipe.tokenizer else recipe.tokenizer_source
    if made in TOKENIZERS and made in recipe.words:
        yield InputError(
            f"'{made}' is a model of this recipe, and for a tokenizer the word says how it is made",
            where=f"{where}: {'tokenizer' if recipe.tokenizer else 'tokenizer_source'}",
            fix=f"Name the model '{made}' by its id or its folder, wherever the recipe has it",
        )
    merged = {*recipe.words, *TOKENIZERS}
    for name in _tokenizer_models(recipe):
        if name not in merged:
            yield InputError(
                f"the tokenizer should come from '{name:.100}', which is not one of the merged models",
                where=f"{where}: {'tokenizer_source' if recipe.tokenizer_source else 'tokenizer'}",
                fix=f"Use union, base or one of {', '.join(recipe.words)}",
            )


def _counts(
    method: MergeMethod, sources: Sequence[Source], base: str | None, whole: bool, at: str
) -> Iterator[InputError]:
    names = [source.model for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        yield InputError(f"'{twice}' is named twice", where=at, fix="Name each model once, with the sum of its weights")
        return
    title = method.name or "a recipe without merge_method"
    if base is None and method.base == "required":
        yield InputError(
            f"{title} needs a base model", where=at, fix="Add base_model: the model that the others come from"
        )
        return
    if base is not None and base not in names and method.base == "none" and (whole or not method.name):
        yield InputError(
            f"{title} has no base model, so '{base}' would be one more model to merge", where=at,
            fix="Remove base_model, or list it under models",
        )  # fmt: skip
        return
    if base is not None and base not in names and not whole and method.base != "none":
        yield InputError(
            f"the base model '{base}' is not among the sources of this slice", where=at,
            fix="Add it to the sources with its layer_range",
        )  # fmt: skip
        return
    counted = len(names) + (base is not None and base not in names)
    if counted < method.least or (method.most is not None and counted > method.most):
        included = ", the base model included" if base else ""
        rule = f"{title} takes {_wanted(method.least, method.most, counted)}{included}"
        yield _miscounted(rule, counted, at)
    if method.others is not None:
        others, (least, most) = len([name for name in names if name != base]), method.others
        if others < least or (most is not None and others > most):
            yield _miscounted(f"{title} takes {_wanted(least, most, others)} besides the base model", others, at)


def _wanted(least: int, most: int | None, counted: int) -> str:
    number = least if counted < least or most is None else most
    limit = "exactly" if least == most else "at least" if counted < least else "at most"
    return f"{limit} {number} model{'' if number == 1 else 's'}"


def _miscounted(rule: str, counted: int, at: str) -> InputError:
    return InputError(
        f"{rule}, and the recipe has {counted}", where=at, fix="Add or remove models, or choose another merge_method"
    )


def _ranges(sources: Sequence[Source], at: str) -> Iterator[InputError]:
    lengths = set()
    for number, source in enumerate(sources):
        if not isinstance(source, SliceSource):
            continue
        first, end = source.layer_range
        if not 0 <= first < end:
            yield InputError(
                f"[{first}, {end}] holds no layers", where=f"{at}.sources.{number}.layer_range",
                fix="Give the first layer, counted from 0, and the one after the last",
            )  # fmt: skip
        lengths.add(end - first)
    if len(lengths) > 1:
        counts = " and ".join(map(str, sorted(lengths)))
        what = f"the sources of a slice have different numbers of layers: {counts}"
        yield InputError(what, where=at, fix="Take the same number of layers from each")


def _shared(recipe: Recipe) -> Iterator[tuple[str, Values]]:
    yield "", recipe.parameters
    for at, one in enumerate(recipe.slices or []):
        yield f"slices.{at}.", one.parameters
    for name, module in (recipe.modules or {}).items():
        yield f"modules.{name}.", module.parameters
        for at, one in enumerate(module.slices or []):
            yield f"modules.{name}.slices.{at}.", one.parameters


def _parameters(method: MergeMethod, values: Values, at: str, own: bool = False) -> Iterator[InputError]:
    known = [one.name for one in method.parameters]
    for name, value in values.items():
        parameter = method.parameter(name)
        if parameter is None:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            listed = f"It has {', '.join(known)}" if known else "It has none"
            yield InputError(
                f"{method.name or 'a recipe without merge_method'} has no parameter '{name!s:.60}'", where=at,
                fix=f"Did you mean {near[0]}?" if near else listed,
            )  # fmt: skip
        elif own and not parameter.each:
            yield InputError(
                f"{method.name} has one {name} for all models, and would not read that of one model", where=at,
                fix="Move it to the parameters of the recipe or of the slice",
            )  # fmt: skip
        elif problem := _setting(parameter, value, not method.of_adapters):
            yield InputError(f"{problem} (it is {value!r:.100})", where=f"{at}.{name}", fix=_form(parameter))


def _setting(parameter: Parameter, value: Any, varied: bool) -> str:
    """What is wrong with a value: one for all tensors, a list from the first to the last layer, or one by filter."""
    filters = [value] if isinstance(value, dict) else value
    if varied and isinstance(filters, list) and filters and all(isinstance(one, dict) for one in filters):
        for one in filters:
            if not {"value"} <= set(one) <= {"value", "filter"} or not isinstance(one.get("filter", ""), str | None):
                return "a part of it is not of the form {filter, value}"
            if problem := _setting(parameter, one["value"], varied):
                return problem
        return ""
    scalars = value if varied and isinstance(value, list) and value else [value]
    return next((problem for one in scalars if (problem := _scalar(parameter, one))), "")


def _scalar(parameter: Parameter, value: Any) -> str:
    if parameter.kind == "flag":
        return "" if isinstance(value, bool) else "it must be true or false"
    number = _number(value)
    if number is None or (parameter.kind == "integer" and number != int(number)):
        return "it must be a whole number" if parameter.kind == "integer" else "it must be a number"
    if parameter.low is not None and number < parameter.low:
        return f"it must be at least {parameter.low:g}"
    if parameter.high is not None and number > parameter.high:
        return f"it must be at most {parameter.high:g}"
    return ""


def _number(value: Any) -> float | None:
    """A finite number; also of text, since 1e-5 is text to some readers of YAML."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number - number == 0 else None


def _form(parameter: Parameter) -> str:
    if parameter.kind == "flag":
        return f"Write {' or '.join(_FLAGS)}"
    return "Write a number, a list of numbers from the first layer to the last, or a list of {filter, value}"


def _required(
    method: MergeMethod, sources: Sequence[Source], base: str | None, scopes: Sequence[Values], at: str
) -> Iterator[InputError]:
    for parameter in (one for one in method.parameters if one.required):
        add = f"Add parameters: {{{parameter.name}: 0.5}}"
        if not parameter.each:
            if given(parameter.name, *scopes) is None:
                yield InputError(f"{method.name} needs the parameter {parameter.name}", where=at, fix=add)
            continue
        for source in sources:
            needed = source.model != base or method.base == "none"
            if needed and given(parameter.name, source.parameters, *scopes) is None:
                what = f"{method.name} needs the {parameter.name} of '{source.model}'"
                yield InputError(what, where=at, fix=f"{add} to it")


def _sums(method: MergeMethod, sources: Sequence[Source], scopes: Sequence[Values], at: str) -> Iterator[InputError]:
    """A mean whose weights cancel out divides by zero."""
    if method.base != "none" or method.parameter("normalize") is None or given("normalize", *scopes) is False:
        return
    weights = [_number(given("weight", source.parameters, *scopes)) for source in sources]
    if weights and all(weight is not None for weight in weights) and abs(sum(filter(None, weights))) < 1e-8:
        yield InputError(
            f"the weights of {method.name} add up to 0, so their mean is undefined", where=at,
            fix="Change a weight, or set normalize: false",
        )  # fmt: skip


def _chances(
    method: MergeMethod, sources: Sequence[Source], base: str | None, scopes: Sequence[Values], at: str
) -> Iterator[InputError]:
    """DELLA keeps each change with a chance between density - epsilon and density + epsilon."""
    if not (method.parameter("density") and method.parameter("epsilon")):
        return
    for source in sources:
        values = [given(name, source.parameters, *scopes) for name in ("density", "epsilon")]
        density, epsilon = _number(values[0]), _number(_EPSILON if values[1] is None else values[1])
        if source.model == base or density is None or epsilon is None or not 0 < density < 1:
            continue
        if density - epsilon <= 0 or density + epsilon >= 1:
            yield InputError(
                f"density {density:g} ± epsilon {epsilon:g} of '{source.model}' is no chance between 0 and 1", where=at,
                fix=f"Set an epsilon below {min(density, 1 - density):g}",
            )  # fmt: skip


def _template(name: str | None, where: str) -> Iterator[InputError]:
    """mergekit logs what is no template, and the child would keep that of its first model."""
    if name and name not in ("auto", *TEMPLATES) and (len(name) < 20 or "{" not in name):
        near = difflib.get_close_matches(name, ("auto", *TEMPLATES), n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]}?" if near else f"Use auto, {', '.join(TEMPLATES)}, or a template's own text"
        yield InputError(f"there is no chat template '{name:.60}'", where=f"{where}: chat_template", fix=fix)


def _tokenizer_models(recipe: Recipe) -> Iterator[str]:
    if recipe.tokenizer_source:
        yield recipe.tokenizer_source
    waiting: list[Any] = [recipe.tokenizer.model_dump() if recipe.tokenizer else {}]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from (one[key] for key in ("source", "model") if isinstance(one.get(key), str))
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
