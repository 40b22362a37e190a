"""`tales`: a small language network, trained here on stories from a grammar whose every variable is known."""
