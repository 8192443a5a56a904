"""Rating logs: readers, the generator, the split protocol and prepared folders."""
