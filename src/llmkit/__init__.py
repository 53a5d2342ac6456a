"""llmkit: train, sample, serve and measure language models from one command line."""
