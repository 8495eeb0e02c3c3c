"""Whether certified optima are the best there are, on simulated data."""
