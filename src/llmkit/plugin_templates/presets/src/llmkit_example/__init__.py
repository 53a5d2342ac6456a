"""Settings for a first fine-tuning run."""
