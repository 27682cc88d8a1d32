"""Writes the demonstration models as GGUF files of the llama architecture, the same bytes every time.

The transformer block is all zeros, so what a token becomes depends on that token alone. In the chat model the
output matrix is then a table: the score of each token after each other. In the embedding model the mean over
the tokens is a bag of words.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from indigo.engines.demo import sentences, template
from indigo.engines.demo import vocabulary as words
from indigo.engines.demo.names import CHAT_ID, CONTEXT_LENGTH, EMBEDDING_ID, RELEASE
from indigo.engines.demo.vocabulary import Vocabulary

CHAT_WIDTH = 128
EMBEDDING_WIDTH = 256
HEAD_WIDTH = 32
"""Of the attention head, and of the feed-forward layer."""

CERTAIN = 70.0
"""Score of a token's one successor. Scores lie 6 apart where a choice matters (e^-6 = 0.25 %), all within 80,
so that the choice holds at the usual temperatures and no probability becomes 0."""

ANYWHERE = {
    sentences.CONTINUATION: 54.0,
    '"': 48.0,
    "}": 36.0,
    "]": 30.0,
    ",": 24.0,
    ":": 24.0,
    words.END: 18.0,
}
"""Scores without regard to the token before: JSON is closed as soon as a grammar lets it be."""

DIGITS = {digit: 12.0 - place for place, digit in enumerate("1023456789")}
AFTER = {
    "\n": {sentences.ANSWER: CERTAIN},
    words.WANTS_TOOL: {words.CALL: CERTAIN},
    words.HAS_RESULT: {sentences.AFTER_TOOL: CERTAIN},
    words.CALL: {"\n": CERTAIN},
    words.CALL_END: {words.END: CERTAIN},
    "{": {'"': 66.0},
    "[": {'"': 66.0, "1": 42.0, "true": 38.0},
    ":": {'"': 66.0, "1": 22.0, "true": 20.0, "null": 16.0, "[": 12.0, "{": 6.0},
    '"': {"demo": 66.0},
    "demo": {'"': 66.0, " demo": 60.0},
    " demo": {'"': 66.0, " demo": 60.0},
    "}": {words.END: CERTAIN, words.CALL_END: 40.0},
    "]": {words.END: CERTAIN},
}

Matrix = npt.NDArray[np.float32]


def write_chat(path: Path) -> None:
    """The chat model, at `path`; complete or not at all."""
    vocabulary, said = words.build()
    embeddings, output = _chat_weights(vocabulary, said)
    writer = _writer(CHAT_ID, "A hand-made demonstration model that says fixed sentences. Not for real use.")
    _hyperparameters(writer, vocabulary, CHAT_WIDTH)
    writer.add_chat_template(template.CHAT)
    writer.add_sampling_temp(0.0)
    _tensors(writer, embeddings, output)
    _write(writer, path)


def write_embedding(path: Path) -> None:
    """The embedding model, at `path`; complete or not at all."""
    vocabulary, _ = words.build()
    writer = _writer(EMBEDDING_ID, "A hand-made demonstration model that embeds bags of words. Not for real use.")
    _hyperparameters(writer, vocabulary, EMBEDDING_WIDTH)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _tensors(writer, _bag_weights(vocabulary), None)
    _write(writer, path)


def _chat_weights(vocabulary: Vocabulary, said: dict[str, list[str]]) -> tuple[Matrix, Matrix]:
    """Embeddings: a 1 that all tokens share, and one of each token's own if others depend on it."""
    first = {sentence: pieces[0] for sentence, pieces in said.items()}
    after = {token: {first.get(next, next): score for next, score in row.items()} for token, row in AFTER.items()}
    for pieces in said.values():
        for token, successor in zip(pieces, [*pieces[1:], words.END], strict=True):
            after[token] = {successor: CERTAIN}
    embeddings = np.zeros((len(vocabulary.tokens), CHAT_WIDTH), np.float32)
    embeddings[:, 0] = embeddings[:, 1] = 1.0
    output = np.zeros_like(embeddings)
    # A norm over rows with two ones in them makes each 1 this:
    one = (CHAT_WIDTH / 2) ** 0.5
    output[:, 0] -= np.arange(len(output)) / 4096 / one
    for token, score in (ANYWHERE | DIGITS).items():
        output[vocabulary.id(first.get(token, token)), 0] += score / one
    for place, (token, row) in enumerate(after.items(), start=2):
        embeddings[vocabulary.id(token), [1, place]] = 0.0, 1.0
        for successor, score in row.items():
            target = vocabulary.id(successor)
            output[target, place] = score / one - output[target, 0]
    return embeddings, output


def _bag_weights(vocabulary: Vocabulary) -> Matrix:
    """A random direction for each token, long for the words of the list, short for stop words and pieces."""
    directions: dict[bytes, Matrix] = {}
    generator = np.random.default_rng(20_260_101)
    rows: list[Matrix] = []
    stop_words = frozenset(words.STOP_WORDS.split())
    for token in vocabulary.tokens:
        word = token.strip().lower() or token
        if word not in directions:
            directions[word] = generator.choice(np.array([-1.0, 1.0], np.float32), EMBEDDING_WIDTH)
        rows.append(directions[word] * _weight(vocabulary, token, word.decode("latin-1"), stop_words))
    return np.stack(rows)


def _weight(vocabulary: Vocabulary, token: bytes, word: str, stop_words: frozenset[str]) -> float:
    if token in vocabulary.special or word in stop_words or not word.isalnum():
        return 0.02
    return 1.0 if len(word) > 2 else 0.4


def _writer(name: str, description: str) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_version(str(RELEASE))
    writer.add_license("apache-2.0")
    return writer


def _hyperparameters(writer: gguf.GGUFWriter, vocabulary: Vocabulary, width: int) -> None:
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HEAD_WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    # Large for the embedding model's sake: short vectors stay short, as they would not with the usual 1e-5.
    writer.add_layer_norm_rms_eps(1e-5 if width == CHAT_WIDTH else 1.0)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(
        [token.decode() if token in vocabulary.special else words.printable(token) for token in vocabulary.tokens]
    )
    writer.add_token_types([_token_type(vocabulary, token) for token in vocabulary.tokens])
    writer.add_token_merges([" ".join(words.printable(part) for part in pair) for pair in vocabulary.merges])
    writer.add_eos_token_id(vocabulary.id(words.END))
    writer.add_bos_token_id(vocabulary.id(words.END_OF_TEXT))
    writer.add_add_bos_token(False)


def _token_type(vocabulary: Vocabulary, token: bytes) -> gguf.TokenType:
    if token not in vocabulary.special:
        return gguf.TokenType.NORMAL
    # The engine finds a call by its text, and does not print control tokens.
    return gguf.TokenType.USER_DEFINED if token.decode() in words.MARKUP else gguf.TokenType.CONTROL


def _tensors(writer: gguf.GGUFWriter, embeddings: Matrix, output: Matrix | None) -> None:
    width = embeddings.shape[1]
    writer.add_tensor("token_embd.weight", embeddings.astype(np.float16))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    if output is not None:
        writer.add_tensor("output.weight", output.astype(np.float16))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
    into = (HEAD_WIDTH, width)
    out_of = (width, HEAD_WIDTH)
    zeros = {"attn_q": into, "attn_k": into, "attn_v": into, "attn_output": out_of}
    zeros |= {"ffn_gate": into, "ffn_up": into, "ffn_down": out_of}
    for name, shape in zeros.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float16))


def _write(writer: gguf.GGUFWriter, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    try:
        writer.write_header_to_file(Path(partial))
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
