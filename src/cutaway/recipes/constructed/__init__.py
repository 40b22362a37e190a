"""Networks whose weights are written, not trained: a stated algorithm in an ordinary architecture, exact by design."""
