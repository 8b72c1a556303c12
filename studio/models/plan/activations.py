"""What a block keeps of each token from the forward pass for the backward pass, tensor by tensor.

H is the hidden width, Q that of the queries, K that of keys or values, I the intermediate width, and c the bytes of a
computed number: 2 under autocast, else 4.
"""

from __future__ import annotations

from studio.models.inspect.adapted import Adapted
from studio.models.inspect.shape import ModelShape

# Layers that take the same input in a Llama-like block, by the last part of their names.
_TOGETHER = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


def plain_block(shape: ModelShape, adapter: Adapted | None, *, autocast: bool) -> float:
    """Bytes a token keeps in one block of the libraries' layers.

    - Each of the two norms keeps its input in float32 (4 H). A trained norm also keeps its normalized output.
    - A linear layer keeps its input only when its weight is trained, or an adapter's. PEFT casts the input anew
      for every adapter, so q, k, v (and gate, up) each keep a copy of the same input; full tuning shares one.
    - Attention keeps q, k, v after the rotation, k and v repeated to the query heads, the output, and a
      float32 log-sum per head.
    - SwiGLU keeps gate, silu(gate) and up (3 c I); the down projection keeps its input (c I).

    Args:
        shape: the model's.
        adapter: what is trained beside the weights; None when every weight is trained.
        autocast: products are computed in bfloat16.
    """
    c = 2 if autocast else 4
    hidden, inner = shape.hidden, shape.intermediate
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * 4 * hidden
    attention = c * (query + 2 * key + query) + 4 * shape.heads
    if key != query:
        attention += 2 * c * query
    swiglu = 3 * c * inner
    if adapter is None:
        inputs = c * (hidden + query + hidden + inner)
        return norms + 2 * c * hidden + attention + swiglu + inputs
    layers = max(1, shape.layers)
    # Without autocast the adapter takes the very tensor that the block computed, so copies cost nothing more.
    trained = [layer for layer, _ in adapter.layers]
    copies = sum(layer.inputs for layer in trained) / layers
    shared = 0.0 if autocast else max(0.0, copies - 2 * hidden - query - inner)
    low_rank = c * sum(rank for _, rank in adapter.layers) / layers
    # DoRA scales what the layer and the adapter give, and keeps both for the gradient of the scale.
    scaled = 2 * c * sum(layer.outputs for layer in trained) / layers if adapter.dora else 0.0
    return norms + attention + swiglu + c * (copies - shared) + low_rank + scaled


def fused_block(shape: ModelShape, adapter: Adapted | None, *, autocast: bool) -> float:
    """Bytes a token keeps in one block of the engine's layers (`studio.train.engine.fused`).

    - Each of the two norms keeps its input (c H; 4 H where weights and so the stream are in float32) and a number.
    - Linear layers with adapters keep one input for all that take the same, the products with their A, and with DoRA
      what is scaled; others keep nothing. Full tuning keeps the inputs, and computes the gate as the model does.
    - Attention keeps q, k and v, its output and a float32 number per head.
    - The gate keeps gate and up (2 c I), and silu(gate) where up has no adapter, since the model computes it then.

    Args:
        shape: the model's.
        adapter: what is trained beside the weights; None when every weight is trained.
        autocast: products are computed in bfloat16.
    """
    c = 2 if autocast else 4
    hidden, inner = shape.hidden, shape.intermediate
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    kept = 2 * ((4 if adapter is None else c) * hidden + 4) + c * (2 * query + 2 * key) + 4 * shape.heads
    if adapter is None:
        return kept + 3 * c * inner + c * (2 * hidden + inner)
    trained = {layer.suffix: layer for layer, _ in adapter.layers}
    kept += c * inner * (2 if {"gate_proj", "up_proj"} <= set(trained) or "gate_up_proj" in trained else 3)
    inputs = {_TOGETHER.get(name, name): layer.inputs for name, layer in trained.items() if name != "o_proj"}
    each = sum(rank + (layer.outputs if adapter.dora else 0) for layer, rank in adapter.layers) / max(1, shape.layers)
    return kept + c * (sum(inputs.values()) + each)
