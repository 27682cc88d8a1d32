"""What the demonstration model says. Each sentence is split into pieces that no other place uses.

A model that sees only the last token can say a sentence if each of its tokens has one successor: a word that
was used before is therefore joined with the word after it.
"""

from __future__ import annotations

import re

ANSWER = (
    "Hello! I am indigo-demo, a tiny demonstration model. My weights were written by hand, not trained, "
    "so this answer is always the same. Everything around it is real: the engine, the streaming, "
    "the token counts, the keys and the metering. Start Indigo with another model to hold a conversation."
)
AFTER_TOOL = (
    "The tool has answered. As a demonstration model I cannot read its result, but a real model would now use it."
)
CONTINUATION = " … and here the demonstration model ends your text, since it has no words of its own."


def pieces(sentence: str, used: set[str]) -> list[str]:
    """`sentence` in pieces that are not in `used`; they are added to it."""
    found: list[str] = []
    piece = ""
    for word in re.findall(r" ?[^\s]+", sentence):
        piece += word
        if piece not in used:
            found.append(piece)
            used.add(piece)
            piece = ""
    if piece:
        used.discard(found[-1])
        found[-1] += piece
        used.add(found[-1])
    return found
