"""The command line. It says the same words as the library: open, run, patch, explain, zoo."""
