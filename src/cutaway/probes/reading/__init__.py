"""Where and how a network is read and moved: places, activations, spots, and prompts that are tested."""
