"""One module for each constructed mechanism."""
