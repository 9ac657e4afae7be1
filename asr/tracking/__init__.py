"""The journal of a training, MLflow that is filled from it, its kept results, the mirror of its
checkpoints.

Changes no byte of an output. The only room that touches MLflow. Imports `errors`, `paths`,
`dvc_hashes`, `storage`, `runtime`, `metrics`, `training`.
"""
