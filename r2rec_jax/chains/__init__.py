"""The bipartite rating graph and the sampler of closed interaction chains."""
