"""Fine-tune Whisper for any language: what the stages, the pages and the commands stand on.

`asr/rooms.py` lists the rooms in the order sound travels, and says what each is for.

Importing `asr` costs nothing. It switches off the reports that our libraries send home, before any
of them is imported.
"""

import atexit
import gc
import os

for switch in (
    "HF_HUB_DISABLE_TELEMETRY",
    "MLFLOW_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "DVC_NO_ANALYTICS",
):
    os.environ.setdefault(switch, "1")

# Threads that wait without spinning: on a machine that does other things too, spinning makes
# training 10 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# torch and transformers make a million objects that stay. Python looks for garbage among them
# while they are imported, and once more when the process ends: together a third of the 6 s that a
# stage takes to start and to end.
gc.set_threshold(10_000)
atexit.register(gc.freeze)
