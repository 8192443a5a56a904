"""Rating logs in: readers, the generator, the protocol, prepared folders."""
