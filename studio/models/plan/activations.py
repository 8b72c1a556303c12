"""What a block keeps of each token from the forward pass for the backward pass, tensor by tensor.

H is the hidden width, Q that of the queries, K that of keys or values, I the intermediate width, and c the bytes of a
computed number: 2 under autocast, else 4.
"""

from __future__ import annotations

from studio.models.inspect.adapted import Adapted
from studio.models.inspect.shape import ModelShape

# Layers that take the same input in a Llama-like block, by the last part of their names.
_TOGETHER = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
_GATED = ("gate_proj", "up_proj", "gate_up_proj")  # what the gate keeps


def block_bytes(shape: ModelShape, adapter: Adapted | None, *, autocast: bool, fused: bool) -> float:
    """Bytes a token keeps in one block.

    Args:
        shape: the model's.
        adapter: what is trained beside the weights; None when every weight is trained.
        autocast: products are computed in bfloat16.
        fused: by the engine's layers (`studio.train.engine.fused`), not by those of the libraries.
    """
    c = 2 if autocast else 4
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # Attention keeps q, k, v after the rotation, its output, and a float32 log-sum per head.
    attention = c * (2 * query + 2 * key) + 4 * shape.heads
    fused = fused and not (adapter is not None and adapter.dora and adapter.dropout)  # which stays PEFT's
    rest = _fused(shape, adapter, c) if fused else _plain(shape, adapter, c, query, key)
    return attention + rest


def _plain(shape: ModelShape, adapter: Adapted | None, c: int, query: int, key: int) -> float:
    """What the libraries' layers keep besides.

    - Each of the two norms keeps its input in float32 (4 H). A trained norm also keeps its normalized output.
    - A linear layer keeps its input only when its weight is trained, or an adapter's. PEFT casts the input anew
      for every adapter, so q, k, v (and gate, up) each keep a copy of the same input; full tuning shares one.
    - Attention keeps k and v repeated to the query heads.
    - SwiGLU keeps gate, silu(gate) and up (3 c I); the down projection keeps its input (c I).
    """
    hidden, inner = shape.hidden, shape.intermediate
    kept = 2 * 4 * hidden + 3 * c * inner + (2 * c * query if key != query else 0)
    if adapter is None:
        return kept + 2 * c * hidden + c * (hidden + query + hidden + inner)
    layers = max(1, shape.layers)
    # Without autocast the adapter takes the very tensor that the block computed, so copies cost nothing more.
    trained = [layer for layer, _ in adapter.layers]
    copies = sum(layer.inputs for layer in trained) / layers
    shared = 0.0 if c == 2 else max(0.0, copies - 2 * hidden - query - inner)
    low_rank = c * sum(rank for _, rank in adapter.layers) / layers
    # DoRA scales what the layer and the adapter give, and keeps both for the gradient of the scale.
    scaled = 2 * c * sum(layer.outputs for layer in trained) / layers if adapter.dora else 0.0
    return kept + c * (copies - shared) + low_rank + scaled


def _fused(shape: ModelShape, adapter: Adapted | None, c: int) -> float:
    """What the engine's layers keep besides.

    - Each of the two norms keeps its input (c H; 4 H where weights and so the stream are in float32) and a number.
    - Linear layers with adapters keep one input for all that take the same (that of o is attention's output), the
      products with their A, and with DoRA what they give; others keep nothing. Full tuning keeps the inputs.
    - The gate keeps gate and up (2 c I), and silu(gate) where up has no adapter, since the model computes it then.
    - With dropout each layer is computed by itself and keeps which numbers of its input it dropped, a byte each.
    """
    hidden, inner = shape.hidden, shape.intermediate
    if adapter is None:
        return 2 * (4 * hidden + 4) + 3 * c * inner + c * (2 * hidden + inner)
    trained = {layer.suffix: layer for layer, _ in adapter.layers}
    gated = ({"gate_proj", "up_proj"} <= set(trained) and not adapter.dropout) or "gate_up_proj" in trained
    inputs = {_TOGETHER.get(name, name): layer.inputs for name, layer in trained.items() if name != "o_proj"}
    given = [layer.outputs for layer, _ in adapter.layers if adapter.dora and not (gated and layer.suffix in _GATED)]
    each = (sum(rank for _, rank in adapter.layers) + sum(given)) / max(1, shape.layers)
    masks = sum(layer.inputs for layer, _ in adapter.layers) / max(1, shape.layers) if adapter.dropout else 0.0
    return 2 * (c * hidden + 4) + c * inner * (2 if gated else 3) + c * (sum(inputs.values()) + each) + masks
