"""One forward pass under observation: taps that read and write, attention from the inside, the run itself."""
