"""Fine-tune Whisper for any language: the package used by the stages, the pages and the commands.

`asr/rooms.py` lists its parts, the rooms, in the order sound travels, and says what each is for.

Importing `asr` costs nothing. It must come before NumPy and torch, whose threads it settles; and it
switches off the telemetry of our libraries.
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

# Threads wait without spinning: where other processes run too, spinning makes training 10 times
# slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# NumPy's matrix products sum in another order with another number of threads, so features would
# differ with the number of cores. Work is spread over processes instead.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# torch and transformers create a million objects that are never freed. Python searches them for
# garbage during the import and again when the process ends, which takes a third of the 6 s that a
# stage needs to start and end.
gc.set_threshold(10_000)
atexit.register(gc.freeze)
