"""Arrays in, arrays out: layouts, bicubic, alpha, self-ensemble, metrics, and an estimate of degradations."""
