"""One script per DVC stage; none imports another."""

import asr  # noqa: F401  its settings, before a stage imports NumPy or torch
