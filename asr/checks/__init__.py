"""Questions to a training, from outside; the answers are its checks.json.

Imports `training` and what `training` imports.
"""
