"""A Whisper as three OpenVINO graphs, built from its weights without torch.

The encoder ends with each decoder layer's keys and values of the sound, keys scaled and transposed:
they are computed once, and a step of the decoder reads them as they lie. The decoder takes the keys
and values of the tokens so far as inputs and returns them with the new ones, so that a batch can
lose rows at any step. The aligner is the decoder with other outputs: how a text attends to the
sound, for the times of words.

B: rows, T: frames, P = T / 2: positions, N: new tokens, L: tokens so far, H: heads, D: `d_model`,
V: vocabulary. Building costs a second for 73 M weights, mostly reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as op

from asr.engines.engine import FP32, Heads

Weights = Callable[[str], np.ndarray]  # returns a tensor by its name in transformers
EPSILON = 1e-5  # of the layer norms
SHARES = "shares"  # names the nodes of a decoder that say how it attends to the sound
ACTIVATIONS = {
    "gelu": lambda x: op.gelu(x, "erf"),
    "gelu_new": lambda x: op.gelu(x, "tanh"),
    "relu": op.relu,
    "silu": op.swish,
    "swish": op.swish,
}


def io_type(precision: str) -> ov.Type:
    """The type of the keys and values that go from graph to graph."""
    return ov.Type.f32 if precision == FP32 else ov.Type.bf16


class _Builder:
    """Layers of a Whisper as nodes of a graph."""

    def __init__(self, weights: Weights, config: dict[str, Any], precision: str):
        self.weights = weights
        self.width: int = config["d_model"]
        self.activation = ACTIVATIONS[config["activation_function"]]
        self.precision = precision
        self.io = io_type(precision)
        self.parameters: list[Any] = []
        self.results: list[Any] = []

    def parameter(self, name: str, shape: list[int], kind: ov.Type) -> Any:
        node = op.parameter(shape, kind, name=name)
        node.output(0).get_tensor().set_names({name})
        self.parameters.append(node)
        return node

    def result(self, name: str, node: Any) -> None:
        node.output(0).get_tensor().set_names({name})
        self.results.append(op.result(node))

    def state(self, name: str, shape: list[int]) -> Any:
        """An input of keys or values, in float32."""
        node = self.parameter(name, shape, self.io)
        return node if self.io == ov.Type.f32 else op.convert(node, ov.Type.f32)

    def keep_state(self, name: str, node: Any) -> None:
        """An output of keys or values."""
        self.result(name, node if self.io == ov.Type.f32 else op.convert(node, self.io))

    def constant(self, values: np.ndarray) -> Any:
        """Weights, stored in half the bytes where that loses nothing that the engine would use."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        fits = np.isfinite(half).all() if self.precision != FP32 else (half == values).all()
        if not fits:
            return op.constant(values)
        return op.convert(op.constant(half), ov.Type.f32)

    def linear(self, x: Any, name: str, scale: float = 1.0, bias: bool = True) -> Any:
        y = op.matmul(x, self.constant(self.weights(f"{name}.weight") * scale), False, True)
        return op.add(y, self.constant(self.weights(f"{name}.bias") * scale)) if bias else y

    def norm(self, x: Any, name: str) -> Any:
        y = op.mvn(x, _integers([-1]), True, EPSILON, "inside_sqrt")
        y = op.multiply(y, self.constant(self.weights(f"{name}.weight")))
        return op.add(y, self.constant(self.weights(f"{name}.bias")))

    def split(self, x: Any, heads: int, keys: bool = False) -> Any:
        """(B, N, D) to (B, H, N, D / H); keys that stand to the right of a product: transposed."""
        x = op.reshape(x, _integers([0, 0, heads, self.width // heads]), True)
        return op.transpose(x, _integers([0, 2, 3, 1] if keys else [0, 2, 1, 3]))

    def join(self, x: Any) -> Any:
        """(B, H, N, D / H) to (B, N, D)."""
        x = op.transpose(x, _integers([0, 2, 1, 3]))
        return op.reshape(x, _integers([0, 0, self.width]), True)

    def feed_forward(self, x: Any, layer: str) -> Any:
        """The second half of a layer, with its residual."""
        y = self.norm(x, f"{layer}.final_layer_norm")
        y = self.activation(self.linear(y, f"{layer}.fc1"))
        return op.add(x, self.linear(y, f"{layer}.fc2"))


def _integers(values: Sequence[int]) -> Any:
    return op.constant(np.array(values, np.int64))


def encoder(weights: Weights, config: dict[str, Any], precision: str) -> ov.Model:
    """Features (B, M, T) to `cross_key{i}` (B, H, D / H, P), `cross_value{i}` (B, H, P, D / H)."""
    build = _Builder(weights, config, precision)
    positions = config["max_source_positions"]
    shape = [-1, config["num_mel_bins"], 2 * positions]
    x = build.parameter("features", shape, ov.Type.f32)
    for name, stride in (("conv1", 1), ("conv2", 2)):
        kernel = build.constant(weights(f"model.encoder.{name}.weight"))
        x = op.convolution(x, kernel, [stride], [1], [1], [1])
        bias = weights(f"model.encoder.{name}.bias")[None, :, None]
        x = op.gelu(op.add(x, build.constant(bias)), "erf")
    x = op.transpose(x, _integers([0, 2, 1]))
    table = weights("model.encoder.embed_positions.weight")[:positions]
    x = op.add(x, build.constant(table[None]))
    for index in range(config["encoder_layers"]):
        layer = f"model.encoder.layers.{index}"
        x = _hear_itself(build, x, layer, config["encoder_attention_heads"])
        x = build.feed_forward(x, layer)
    x = build.norm(x, "model.encoder.layer_norm")
    heads = config["decoder_attention_heads"]
    for index in range(config["decoder_layers"]):
        keys, values = _cross_states(build, x, index, heads)
        build.keep_state(f"cross_key{index}", keys)
        build.keep_state(f"cross_value{index}", values)
    return ov.Model(build.results, build.parameters, "encoder")


def _hear_itself(build: _Builder, x: Any, layer: str, heads: int) -> Any:
    """An encoder layer's self-attention, with its residual."""
    attention = f"{layer}.self_attn"
    y = build.norm(x, f"{layer}.self_attn_layer_norm")
    queries = build.split(build.linear(y, f"{attention}.q_proj"), heads)
    keys = build.split(build.linear(y, f"{attention}.k_proj", bias=False), heads)
    values = build.split(build.linear(y, f"{attention}.v_proj"), heads)
    heard = op.scaled_dot_product_attention(queries, keys, values, causal=False)
    return op.add(x, build.linear(build.join(heard), f"{attention}.out_proj"))


def _cross_states(build: _Builder, x: Any, index: int, heads: int) -> tuple[Any, Any]:
    """A decoder layer's keys, scaled and transposed, and values of the encoder's output."""
    attention = f"model.decoder.layers.{index}.encoder_attn"
    scale = (build.width // heads) ** -0.5
    keys = build.linear(x, f"{attention}.k_proj", scale, bias=False)
    values = build.linear(x, f"{attention}.v_proj")
    return build.split(keys, heads, keys=True), build.split(values, heads)


def decoder(weights: Weights, config: dict[str, Any], precision: str) -> ov.Model:
    """One step: new tokens to the scores of the next one.

    Inputs: `tokens` (B, N) and `positions` (N), int32; `mask` (N, L + N), added to the attention;
    `cross_key{i}` and `cross_value{i}` of the encoder; `past_key{i}` and `past_value{i}`
    (B, H, L, D / H).
    Outputs: `scores` (B, 1, V); `key{i}` and `value{i}` (B, H, L + N, D / H).
    """
    build = _Builder(weights, config, precision)
    x = _embed(build)
    mask = build.parameter("mask", [-1, -1], ov.Type.f32)
    for index in range(config["decoder_layers"]):
        x = _remember(build, x, mask, index, config["decoder_attention_heads"])
        x = _listen(build, x, index, config)
        x = build.feed_forward(x, f"model.decoder.layers.{index}")
    x = op.gather(x, _integers([-1]), op.constant(np.int64(1)))
    x = build.norm(x, "model.decoder.layer_norm")
    head = build.constant(weights("proj_out.weight"))
    build.result("scores", op.matmul(x, head, False, True))
    return ov.Model(build.results, build.parameters, "decoder")


def _embed(build: _Builder) -> Any:
    """Tokens and positions to (B, N, D)."""
    tokens = build.parameter("tokens", [-1, -1], ov.Type.i32)
    positions = build.parameter("positions", [-1], ov.Type.i32)
    axis = op.constant(np.int64(0))
    words = build.constant(build.weights("model.decoder.embed_tokens.weight"))
    places = build.constant(build.weights("model.decoder.embed_positions.weight"))
    x = op.gather(words, tokens, axis)
    return op.add(x, op.gather(places, positions, axis))


def _remember(build: _Builder, x: Any, mask: Any, index: int, heads: int) -> Any:
    """A decoder layer's attention to the tokens so far, with its residual."""
    layer = f"model.decoder.layers.{index}"
    attention = f"{layer}.self_attn"
    size = build.width // heads
    y = build.norm(x, f"{layer}.self_attn_layer_norm")
    queries = build.split(build.linear(y, f"{attention}.q_proj", size**-0.5), heads)
    keys = build.split(build.linear(y, f"{attention}.k_proj", bias=False), heads)
    values = build.split(build.linear(y, f"{attention}.v_proj"), heads)
    keys = op.concat([build.state(f"past_key{index}", [-1, heads, -1, size]), keys], 2)
    values = op.concat([build.state(f"past_value{index}", [-1, heads, -1, size]), values], 2)
    build.keep_state(f"key{index}", keys)
    build.keep_state(f"value{index}", values)
    shares = op.softmax(op.add(op.matmul(queries, keys, False, True), mask), -1)
    attended = op.matmul(shares, values, False, False)
    return op.add(x, build.linear(build.join(attended), f"{attention}.out_proj"))


def _listen(build: _Builder, x: Any, index: int, config: dict[str, Any]) -> Any:
    """A decoder layer's attention to the sound, with its residual.

    Spelt as two products and a softmax: the fused operation would scale and transpose all keys at
    every step, and take twice the time.
    """
    heads, positions = config["decoder_attention_heads"], config["max_source_positions"]
    size = build.width // heads
    layer = f"model.decoder.layers.{index}"
    attention = f"{layer}.encoder_attn"
    y = build.norm(x, f"{layer}.encoder_attn_layer_norm")
    queries = build.split(build.linear(y, f"{attention}.q_proj"), heads)
    keys = build.state(f"cross_key{index}", [-1, heads, size, positions])
    values = build.state(f"cross_value{index}", [-1, heads, positions, size])
    shares = op.softmax(op.matmul(queries, keys, False, False), -1)
    shares.set_friendly_name(f"{SHARES}{index}")
    heard = op.matmul(shares, values, False, False)
    return op.add(x, build.linear(build.join(heard), f"{attention}.out_proj"))


def aligner(decoder: ov.Model, heads: Heads) -> ov.Model:
    """The attention of a text to the sound, one output (B, K, N, P) `shares`.

    Args:
        decoder: a graph of this module, built or read; the inputs are the same.
        heads: K of them; none are all heads of the upper half of the layers.
    """
    nodes = {node.get_friendly_name(): node for node in decoder.get_ops()}
    layers = sum(name.startswith(SHARES) for name in nodes)
    if heads:
        picked = [
            op.gather(nodes[f"{SHARES}{layer}"], _integers([head]), op.constant(np.int64(1)))
            for layer, head in heads
        ]
    else:
        picked = [nodes[f"{SHARES}{layer}"] for layer in range(layers // 2, layers)]
    shares = op.concat(picked, 1)
    shares.output(0).get_tensor().set_names({SHARES})
    return ov.Model([op.result(shares)], decoder.get_parameters(), "aligner")
