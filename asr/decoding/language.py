"""Detect the language of a recording with a Whisper."""

from __future__ import annotations

import torch
from transformers import WhisperForConditionalGeneration

from asr.errors import ModelError
from asr.features import LogMel, input_features
from asr.model import loader
from asr.whisper import FRAMES_PER_SECOND


@torch.inference_mode()
def detect_language(
    whisper: WhisperForConditionalGeneration, features: LogMel
) -> tuple[str, float]:
    """Whisper's code of the likeliest language in the first window, and its probability.

    Raises:
        ModelError: the model knows one language only.
    """
    generation = whisper.generation_config
    if not generation.is_multilingual:
        raise ModelError("this model knows one language only; choose no language")
    window_frames = loader.window_seconds(whisper) * FRAMES_PER_SECOND
    inputs = input_features([features], window_frames).to(whisper.device, whisper.dtype)
    encoded = whisper.model.encoder(inputs).last_hidden_state
    # The token after the start token is the language.
    start = torch.tensor([[generation.decoder_start_token_id]], device=whisper.device)
    hidden = whisper.model.decoder(
        input_ids=start, encoder_hidden_states=encoded, use_cache=False
    ).last_hidden_state
    codes = {int(token): name.strip("<|>") for name, token in generation.lang_to_id.items()}
    logits = whisper.proj_out(hidden[0, -1])[list(codes)]  # of languages alone
    probabilities = logits.float().softmax(-1)
    best = int(probabilities.argmax())
    return list(codes.values())[best], float(probabilities[best])
