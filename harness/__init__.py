"""What shakes the product rather than checks it: kills, faults, broken files, crowds, size.

    make harness                      # the list
    make harness NAME=short           # a slice of each with its control: what CI runs (10 minutes)
    make harness NAME=fuzz COUNT=2000 # one of them, as long as COUNT says

Each has a control: the same with a fault built in (`python -m harness NAME --broken`), which it
must notice. The files test_*.py are the slices. Imports the product and tests/support; nothing
imports this but tests/tracking/test_mirror.py, which borrows its kills.
"""
