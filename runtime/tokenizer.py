"""Reading ``tokenizer.json``, and turning token ids back into text piece by piece."""

import codecs
import json
import re
from pathlib import Path

from tokenizers import Tokenizer, decoders

from parrot_runtime.errors import BundleError

_MAX_BYTES = 256 << 20


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in ``path``, byte-level or with bytes to fall back on, with no truncation and no padding.

    Raises BundleError.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BundleError(
                f"{path}: over {_MAX_BYTES} bytes, which no tokenizer needs; put the model's own in place"
            )
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: the tokenizer cannot be read ({error.strerror}); put the model's own there"
        ) from error
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises plain Exception for everything it cannot parse
        raise BundleError(f"{path}: not a tokenizer ({error}); put the model's own tokenizer.json there") from error
    if not isinstance(tokenizer.decoder, decoders.ByteLevel) and not _falls_back_on_bytes(tokenizer):
        raise BundleError(
            f"{path}: expected a byte-level tokenizer (as Qwen's), or one of words and bytes (as LLaMA's); its decoder "
            f"is {tokenizer.decoder!r}"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Detokenizer:
    """Text from token ids as they come, never half a character.

    A byte-level token is a run of bytes, and a character of up to four bytes may be spread over several tokens: bytes
    wait here until they complete one. LLaMA's tokens are words with ``▁`` for a space, and single bytes; the space that
    its tokenizer puts before a text is taken off again. Joined, the pieces are what ``tokenizer.decode(ids)`` gives for
    all ids at once (LLaMA's also gives up the good characters among bytes of which one is broken; these stay here).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = _token_bytes if isinstance(tokenizer.decoder, decoders.ByteLevel) else _word_bytes
        self._strip = self._bytes is _word_bytes
        self._silent = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that ``token_id`` completes, often empty; special tokens have no text."""
        if token_id in self._silent:
            return ""
        token = self._tokenizer.id_to_token(token_id)
        # A vocabulary padded to a round size has rows that no token owns.
        text = "" if token is None else self._utf8.decode(self._bytes(token))
        if self._strip and text:
            text, self._strip = text.removeprefix(" "), False
        return text

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed, usually nothing."""
        return self._utf8.decode(b"", final=True)


def _byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table).

    Bytes that are printable in Latin-1 stand for themselves; the other 68 take the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _token_bytes(token: str) -> bytes:
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError:  # an added token is plain text, outside the alphabet
        return token.encode("utf-8")


_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _word_bytes(token: str) -> bytes:
    """Of LLaMA's vocabulary: ``▁word``, or one byte as ``<0xE2>``."""
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else token.replace("▁", " ").encode("utf-8")


def _falls_back_on_bytes(tokenizer: Tokenizer) -> bool:
    """Whether it decodes as LLaMA's do: ``▁`` to a space, bytes fused to text, one space less at the beginning."""
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    steps = [step.get("type") for step in decoder.get("decoders", ())]
    return steps == ["Replace", "ByteFallback", "Fuse", "Strip"]
