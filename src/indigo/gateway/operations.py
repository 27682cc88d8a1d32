"""The inference operations: one table from which routing, authorization and documentation are made."""

from __future__ import annotations

CHAT = "chat.completions"
COMPLETIONS = "completions"
EMBEDDINGS = "embeddings"
RERANK = "rerank"

PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/rerank": RERANK,
}
ALL = frozenset(PATHS.values())

CAPABILITIES = {"chat": CHAT, "completions": COMPLETIONS, "embeddings": EMBEDDINGS, "rerank": RERANK}
"""The words of `providers.yaml`."""
