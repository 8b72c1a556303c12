"""Patterns of strangers mean what they mean to PEFT, and take no process for ever."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from studio.errors import InputError
from studio.patterns import LONGEST, MOST, PatternError, Patterns, engine, require_plain_repeats, require_quick
from tests.support.everyday import everyday

LAYERS = [
    f"{before}.{block}.{part}"
    for before in ("model.layers", "transformer.h", "model.language_model.layers")
    for block in (0, 1, 11)
    for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "mlp.experts.3.up_proj")
] + ["lm_head", "q_proj", "model.embed_tokens", "xq_proj", "model.layersx0.q_proj"]
ORDINARY = [
    "q_proj", "q_proj|v_proj", r".*\.(q|v)_proj", r"model\.layers\.\d+\.self_attn\.q_proj",
    "model.layers.0.mlp.down_proj",
    r"layers\.(0|11)\..*", r"(?:self_attn|mlp)\.[a-z]+_proj", r"layers\.[0-9]{1,2}\.self_attn\.q_proj", r".*", "",
    r"h\.\d\.mlp\.down_proj$", r"^model\.layers\.0\.self_attn\.q_proj", r"\bq_proj\b", r"(?i)Q_PROJ", r"q_proj\Z",
    r"layers\.\d{,1}\.mlp\.down_proj", r"[\s\S]*q_proj", r"[^.]+\.q_proj", r"\w+", r"(?P<one>mlp)\.\w+",
    r".*?(?:self_attn|attn|mlp).*?(?:k_proj|v_proj|down_proj).*?", r"experts\.\d+\.up_proj", "a|", r"[[:alpha:]]+_proj",
]  # fmt: skip
EXPONENTIAL = [
    r"([a-z0-9_.]+)+!", r"(a|a)*(b|b)*!", r"((\w+\.?)*)*!", r"(.*.*.*.*.*.*.*.*.*.*)!",
]  # fmt: skip
NO_RE2 = [
    r"^(?!.*visual).*q_proj",
    r"(?<=self_attn\.)q_proj",
    r"(q)_proj\1",
    "a{2000}",
    "(?x) q _proj",
    "(",
    "a**",
    "a" * 1001,
]


def peft_says(pattern: str, layer: str) -> bool:
    """What PEFT does for `target_modules` of this text."""
    config = LoraConfig(target_modules=pattern)
    return bool(check_target_module_exists(config, layer))


@pytest.mark.parametrize("pattern", ORDINARY)
def test_an_ordinary_pattern_means_what_it_means_to_peft(pattern: str) -> None:
    patterns = Patterns()
    for layer in LAYERS:
        assert patterns.fits_whole(pattern, layer) == (re.fullmatch(pattern, layer) is not None), layer
        if not pattern.startswith("(?i)"):  # flags may stand at the begin of the whole expression only
            assert patterns.fits(pattern, layer) == (get_pattern_key([pattern], layer) == pattern or layer == pattern)
        if pattern:
            assert patterns.fits_whole(pattern, layer) == peft_says(pattern, layer)


parts = st.sampled_from(
    ["q_proj", "v_proj", "layers", r"\.", ".", r"\d+", r"\d", "[0-9]", ".*", ".+", ".*?", r"\w+", "[a-z_]+", "mlp",
     "self_attn",
     "(q|v)_proj", "(?:mlp|self_attn)", "(0|1)?", "[^.]*", r"[\w.]+", "{,2}", r"\b", "$", "^", "|", "model", r"\-", "_"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(parts, min_size=1, max_size=5).map("".join))
def test_re2_and_python_agree(pattern: str) -> None:
    try:
        whole, start = re.compile(pattern), re.compile(rf"(.*\.)?({pattern})$")
        engine(pattern)
    except (re.error, PatternError):
        with pytest.raises(PatternError):
            engine(pattern)
        return
    patterns = Patterns(60)
    for layer in LAYERS:
        assert patterns.fits_whole(pattern, layer) == bool(whole.fullmatch(layer)), layer
        assert patterns.fits(pattern, layer) == bool(start.match(layer)), layer


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("aZé߀ 1٣\n_-\x85\u3000Ω中\x1c"), max_size=6))
@pytest.mark.parametrize(
    "pattern", [r"\w+", r"\d*", r"\s+", r"\W+", r"\D+", r"\S+", r"[\w-]+", r"[\d\s]+", r".+", r"[^\d]*"]
)
def test_classes_are_those_of_unicode(pattern: str, text: str) -> None:
    """A reward asks whether an answer is all letters, and answers are not all English."""
    wanted = re.compile(pattern, re.DOTALL).fullmatch(text) is not None
    assert (engine(pattern, across_lines=True).fullmatch(text) is not None) == wanted


@pytest.mark.parametrize("pattern", NO_RE2)
def test_what_re2_cannot_express_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(PatternError) as refused:
        engine(pattern)
    assert len(str(refused.value)) > 10


@pytest.mark.parametrize("pattern", everyday(EXPONENTIAL, EXPONENTIAL[0]))
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    """Neither here, nor in PEFT, which is not handed one that its engine does not get through."""
    names = [f"model.layers.{number}.self_attn.{'q' * 40}_proj" for number in range(50)]
    began = time.process_time()
    assert not any(Patterns().fits(pattern, name) or Patterns().fits_whole(pattern, name) for name in names)
    assert time.process_time() - began < 2
    began = time.monotonic()
    with pytest.raises(InputError, match="longer than"):
        require_quick({"rank_pattern": {pattern: 4}}, [*names, "a" * 40 + "b" * 40], "tuning.rank_pattern")
    assert time.monotonic() - began < 30


def test_ordinary_patterns_pass_the_trial() -> None:
    config: dict[str, Any] = {
        "target_modules": r".*\.(q|v)_proj", "rank_pattern": {"q_proj": 8, r"layers\.\d+\..*": 4},
        "modules_to_save": ["lm_head"], "layers_pattern": "layers",
    }  # fmt: skip
    require_quick(config, LAYERS, "adapter")


def test_a_pattern_for_each_layer_costs_no_square() -> None:
    """EVA writes a rank for each layer of a model: 126 blocks of 7 in Llama 3.1 405B."""
    names = [f"model.layers.{block}.self_attn.{letter}_proj" for block in range(126) for letter in "abcdefg"]
    ranks = {name: place for place, name in enumerate(names)}
    assert Patterns().first(ranks, names, -1) == list(range(len(names)))


def test_the_first_pattern_counts_as_with_peft() -> None:
    patterns = {r".*0\.self_attn.*": 1, "q_proj": 2, "v_proj": 3, r"self_attn\.v_proj": 4}
    for layer in LAYERS:
        wanted = patterns.get(get_pattern_key(list(patterns), layer), 0)
        assert Patterns().first(patterns, [layer], 0) == [wanted]


def test_many_patterns_and_names_are_given_up_in_time() -> None:
    many = {f"({'|'.join('abcdefgh')})*{number}[a-z]*": 1 for number in range(MOST)}
    began = time.monotonic()
    with pytest.raises(PatternError, match="take too long"):
        Patterns(0.5).first(many, ["a.b" * 100] * 100_000, 0)
    assert time.monotonic() - began < 10
    with pytest.raises(PatternError, match="the most"):
        Patterns().first({str(number): 1 for number in range(MOST + 1)}, ["a"], 0)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\s+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|\s+(?!\S)",
        r"(\r\n|\n)?", r"[()+*]+", r"\(a+\)+", r"[](+)]+",
    ],
)  # fmt: skip
def test_patterns_of_tokenizers_stay(pattern: str) -> None:
    require_plain_repeats(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+", r"(?:\p{L}*)*x", r"((ab?c*)d)+", r"(a|a)*", r"(?>a{2,}){3,}", r"(x(y+)z){1,999}", r"(a)\1", "a" * 9000]
)  # fmt: skip
def test_a_repeat_of_a_repeat_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        require_plain_repeats(pattern)


def test_a_long_pattern_is_refused_before_it_is_read() -> None:
    with pytest.raises(PatternError, match="the limit is"):
        engine("(?i)" + "[\0-\U0010ffff]" * LONGEST)
