"""Fixtures of the suite."""

from support.plugins import PLUGINS as pytest_plugins  # noqa: F401
