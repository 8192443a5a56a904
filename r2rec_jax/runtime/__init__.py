"""Mesh and sharding rules, checkpoints, metrics, phases, paths and workdirs: what every room stands on."""
