"""Planning and profiling: FLOPs, memory, HLO, rooflines and traces of a run's programs."""
