"""Processes, limits, signals, progress, the command line of a stage, numbers as text.

It changes how fast and how safely work is done, and no byte of an output.

Imports `errors`, `paths`, `storage`.
"""
