"""Benchmark suites that compare this code with peers. torch runs only in the processes of the peers."""
