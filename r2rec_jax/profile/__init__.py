"""Where the time of a run's own steps goes: captured, read, priced by the roofline, compared."""
