"""What is probed for: labelled examples, where they come from, which belong together, and how labels may be exchanged."""
