"""The demonstration models' names; apart from their making, which takes numpy and half a second to import."""

CHAT_ID = "indigo-demo"
EMBEDDING_ID = "indigo-demo-embedding"
RELEASE = 1
"""Goes up when the files' bytes change, so that one left by an older release is not taken."""
CONTEXT_LENGTH = 8192
