"""The journal of a training, MLflow that is filled from it, and the mirror of its checkpoints.

Changes no byte of an output. The only room that touches MLflow. Imports `errors`, `paths`,
`storage`, `runtime`, `metrics`, `training`.
"""
