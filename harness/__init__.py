"""What shakes the product rather than checks it: kills, faults, broken files, crowds, size.

    make harness                      # the list
    make harness NAME=short           # a slice of each with its control: what CI runs (10 minutes)
    make harness NAME=fuzz COUNT=2000 # one of them, as long as COUNT says

Each has a control: the same with a fault built in, which it must notice. Those that are modules
take it as `python -m harness NAME --broken`, and the files test_*.py are their slices; those that
are test files alone (browser, experiments, outages, visitors) have tests for it. Imports the
product and tests/support; nothing imports this but tests/tracking/test_mirror.py, which borrows
its kills.
"""

import asr  # noqa: F401  its settings, before a harness imports NumPy or torch
