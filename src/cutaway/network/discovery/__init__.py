"""From one observed forward pass to the anatomy: a data-flow graph, read as sums, told apart into layers and parts."""
