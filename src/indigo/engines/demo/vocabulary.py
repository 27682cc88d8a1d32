"""The tokens of the demonstration models: every byte, pairs of letters, some words, and the pieces they say.

Byte-level BPE (as GPT-2's), so any input has tokens. A word of the list is one token, any other word is cut
into pairs of letters; texts that share words, or parts of words, therefore share tokens.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from indigo.engines.demo import sentences

END_OF_TEXT = "<|endoftext|>"
TURN = "<|im_start|>"
END = "<|im_end|>"
CALL = "<tool_call>"
CALL_END = "</tool_call>"
WANTS_TOOL = "<|wants_tool|>"
HAS_RESULT = "<|has_result|>"
CONTROL = (END_OF_TEXT, TURN, END, WANTS_TOOL, HAS_RESULT)
MARKUP = (CALL, CALL_END)

STOP_WORDS = """
    a an and are as at be but by can do for from has have he her his how i if in is it its me my no
    not of on or our she so that the their them then there they this to us was we what when where
    which who will with would you your
"""
TOPIC_WORDS = """
    answer apple bank bird blue book bread business car cat child city cloud code coffee cold color
    computer cook country data day doctor dog engine error family file fish flower food game garden
    good green happy health hello home hot house key king language large light machine man memory
    model money moon morning mountain music network news night number ocean paris people piano
    plane price question rain red river road school sea server ship sky small song spring star stop
    story street summer sun teacher test text time token train travel tree user water weather week
    wind winter woman word work world write year
"""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens` as bytes, in order of their ids; `merges` in order of their rank."""

    tokens: tuple[bytes, ...]
    special: frozenset[bytes]
    merges: tuple[tuple[bytes, bytes], ...]

    def id(self, token: str) -> int:
        return self.tokens.index(token.encode())


def build() -> tuple[Vocabulary, dict[str, list[str]]]:
    """The vocabulary, and the pieces of each sentence."""
    special = [token.encode() for token in CONTROL + MARKUP]
    letters = [letter.encode() for letter in string.ascii_lowercase]
    merges = [(b" ", letter) for letter in letters]
    merges += [(first, second) for first in letters for second in letters]
    words = sorted({*STOP_WORDS.split(), *TOPIC_WORDS.split()})
    singles = [bytes([value]) for value in range(256)]
    texts = special + singles + [first + second for first, second in merges]
    texts += [form.encode() for word in words for form in (word, f" {word}")]
    texts += [text.encode() for text in ("demo", " demo", "true", "null")]
    used: set[str] = {text.decode("latin-1") for text in texts}
    said = {
        sentence: sentences.pieces(sentence, used)
        for sentence in (sentences.ANSWER, sentences.AFTER_TOOL, sentences.CONTINUATION)
    }
    texts += [piece.encode() for pieces in said.values() for piece in pieces]
    return Vocabulary(tuple(dict.fromkeys(texts)), frozenset(special), tuple(merges)), said


def printable(token: bytes) -> str:
    """GPT-2's way to write bytes as text: printable Latin-1 characters as they are, others from U+0100 on."""
    return token.decode("latin-1").translate(_PRINTABLE)


def _printable_table() -> dict[int, str]:
    kept = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [value for value in range(256) if value not in kept]
    return {value: chr(256 + place) for place, value in enumerate(others)}


_PRINTABLE = _printable_table()
