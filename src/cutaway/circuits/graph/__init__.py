"""The graph of a network: nodes, index arithmetic, how parts read and write the stream."""
