"""Which algorithm a network runs: what each part carries, and whether a causal model of the answer holds in it."""
