"""Model engines that this machine runs: llama.cpp, vLLM, and a mock for development."""
