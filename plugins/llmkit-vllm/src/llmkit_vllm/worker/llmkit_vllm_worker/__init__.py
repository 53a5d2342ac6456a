"""What a vLLM server imports to take weights from llmkit. It runs in the server's own environment, without llmkit."""
