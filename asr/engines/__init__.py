"""Engines: a Whisper that encodes sound and scores the next token, and decides nothing.

`openvino_engine` is the fastest on a CPU and needs no torch; `torch_engine` serves GPUs, and
machines without OpenVINO. Imports `errors` and `runtime`.
"""
