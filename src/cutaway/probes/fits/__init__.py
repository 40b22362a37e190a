"""Fitting: the kinds of linear probe, held-out outputs, and how well they tell labels apart."""
