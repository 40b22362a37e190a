"""The map of a label over a network's places, with its controls, and the verdict on the best place."""
