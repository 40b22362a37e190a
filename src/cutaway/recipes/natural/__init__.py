"""Networks trained on a task of which others have published the mechanism, with nothing that pushes them to it."""
