"""Fixtures of the slices: those of the suite."""

from support.plugins import PLUGINS as pytest_plugins  # noqa: F401
