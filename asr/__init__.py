"""What two rooms need, in the order sound travels: one noun per module, imports point left only.

    faults, chance, languages, files, contradictions, params, workers, stage: what everything stands on
    audio, sound, transcripts, tally, hub, sources, selection, shards, kept, limits, guarded, fingerprint, rejects, heard, leaks,
    left_out, census, scripts, suspects, window_choice, stats_report, acoustics, augment, features: what the data stages stand on
    tokenizer, model, batches, decode, wer, memory, timestamps, windows, epochs, lora, regularisation, start, trial, checkpoints,
    signals, validation, optimisation, progress: what training stands on
    journal, replica, tracking, store, copies, mirror, refusals, training, preflight, checks: and what watches and tells it
    reports, utterances, alignment, corpus, revisions, runs, facts, refresh, compare: what pages read
    transcription, jobs, decoding, recordings, youtube, chat, speech: what pages do
    keep, summary, transcribe, carrier, overfit, tracking, leftovers, doctor: the commands that people call

Importing `asr` costs nothing. It switches off the reports that our libraries send home, before any of them is imported.
"""

import atexit
import gc
import os

for switch in ("HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DVC_NO_ANALYTICS"):
    os.environ.setdefault(switch, "1")

# Threads that wait without spinning: on a machine that does other things too, spinning makes training 10 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# torch and transformers make a million objects that stay. Python looks for garbage among them all the while they are imported, and once
# more when the process ends: together a third of the 6 s that a stage takes to start and to end.
gc.set_threshold(10_000)
atexit.register(gc.freeze)
