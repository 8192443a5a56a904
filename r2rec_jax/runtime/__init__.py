"""Mesh and sharding rules, checkpoints, metrics, phases, paths and workdirs: shared by all packages."""
