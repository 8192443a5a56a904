"""R2Rec: recommendation by reasoning over interaction chains, in JAX."""
