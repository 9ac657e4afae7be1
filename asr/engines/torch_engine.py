"""A Whisper in torch: for GPUs, and where there is no OpenVINO. Importing costs torch, 3 s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import DynamicCache, EncoderDecoderCache, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperAttention

from asr.engines.engine import BF16, FP16, FP32, TORCH, Heads

DTYPES = {FP32: torch.float32, BF16: torch.bfloat16, FP16: torch.float16}


class TorchEngine:
    """See `asr.engines.engine.Engine`. The model is moved and cast in place."""

    name = TORCH

    def __init__(self, model: WhisperForConditionalGeneration, precision: str, device: str):
        self.precision = precision
        self.model = model.to(device, DTYPES[precision]).eval()
        # It plans each new shape, and decoding has one for each length: 12 times slower on an H200.
        torch.backends.cuda.enable_cudnn_sdp(False)

    @torch.inference_mode()
    def encode(self, features: np.ndarray) -> TorchEncoded:
        inputs = torch.from_numpy(features).to(self.model.device, self.model.dtype)
        return TorchEncoded(self.model, self.model.model.encoder(inputs).last_hidden_state)


class TorchEncoded:
    """The encoder's output (B, P, D)."""

    def __init__(self, model: WhisperForConditionalGeneration, states: torch.Tensor):
        self.model = model
        self.states = states

    def __len__(self) -> int:
        return len(self.states)

    def decoder(self, rows: Sequence[int]) -> TorchDecoder:
        everything = list(rows) == list(range(len(self)))
        return TorchDecoder(self.model, self.states if everything else self.states[list(rows)])

    @torch.inference_mode()
    def attention(self, window: int, tokens: np.ndarray, heads: Heads) -> np.ndarray:
        layers = self.model.model.decoder.layers
        picked = [*heads] or [
            (layer, head)
            for layer in range(len(layers) // 2, len(layers))
            for head in range(self.model.config.decoder_attention_heads)
        ]
        states = self.states[window : window + 1]
        queries = self._queries(torch.from_numpy(tokens)[None].to(states.device), states)
        shares = {
            layer: _shares(layers[layer].encoder_attn, queries[layer], states)
            for layer, _ in picked
        }
        found: np.ndarray = (
            torch.stack([shares[layer][head] for layer, head in picked]).cpu().numpy()
        )
        return found

    def _queries(self, tokens: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
        """What each decoder layer's attention to the sound is given, (1, N, D) a layer."""
        given: list[torch.Tensor] = []
        hooks = [
            layer.encoder_attn_layer_norm.register_forward_hook(
                lambda _module, _inputs, output: given.append(output)
            )
            for layer in self.model.model.decoder.layers
        ]
        try:
            self.model.model.decoder(
                input_ids=tokens, encoder_hidden_states=states, use_cache=False
            )
        finally:
            for hook in hooks:
                hook.remove()
        return given


def _shares(
    attention: WhisperAttention, queries: torch.Tensor, states: torch.Tensor
) -> torch.Tensor:
    """The shares (H, N, P) of a layer's heads; the fused attention that the model uses has none."""
    size = attention.head_dim
    asked = attention.q_proj(queries)[0].unflatten(-1, (-1, size)).transpose(0, 1)  # (H, N, size)
    keys = attention.k_proj(states)[0].unflatten(-1, (-1, size)).transpose(0, 1)
    shares: torch.Tensor = (asked.float() @ keys.float().mT * size**-0.5).softmax(-1)
    return shares


class TorchDecoder:
    """See `asr.engines.engine.Decoder`."""

    def __init__(self, model: WhisperForConditionalGeneration, states: torch.Tensor):
        self.model = model
        self.states = states
        own, cross = DynamicCache(config=model.config), DynamicCache(config=model.config)
        self.cache = EncoderDecoderCache(own, cross)

    @torch.inference_mode()
    def step(self, tokens: np.ndarray) -> np.ndarray:
        hidden = self.model.model.decoder(
            input_ids=torch.from_numpy(np.ascontiguousarray(tokens)).to(self.states.device),
            encoder_hidden_states=self.states,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        scores: np.ndarray = self.model.proj_out(hidden[:, -1]).float().cpu().numpy()
        return scores

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        picked = torch.tensor(list(rows), device=self.states.device)
        self.cache.batch_select_indices(picked)
        self.states = self.states[picked]
