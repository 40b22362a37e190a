"""Whether the network uses what a probe reads: directions moved, erased and exchanged, and what the output does."""
