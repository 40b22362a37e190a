"""Linear fits on plain tensors, for every room: ridge regression, logistic regression, class means, and concept erasure."""
