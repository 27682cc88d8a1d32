"""The demonstration models: tiny, hand-made GGUF files that a real engine runs. They know nothing, and say so."""
