"""Training: data set and settings in, a run folder out. Everything here needs torch."""
