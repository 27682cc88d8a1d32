"""The demonstration models: tiny, hand-made GGUF files that a real engine runs. They say what they are."""
