"""A tokenizer of LLaMA's kind: words with ``▁`` for spaces, bytes for what it has no word for."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

WORDS = ("USER:", "ASSISTANT:", "What", "is", "there?", "A", "chat", "Görselde", "ne", "var?", "kuş")


def llama_tokenizer() -> Tokenizer:
    """Bytes, letters, and merges that build WORDS; ``<image>`` is a special token, as in LLaVA's."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", *map(chr, range(0x21, 0x7F)), "\n", "ş", "ö"]
    merges = []
    for word in WORDS:
        built = "▁"
        for letter in word:
            merges.append((built, letter))
            built += letter
            tokens.append(built)
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    model = models.BPE(
        vocab=vocabulary, merges=list(dict.fromkeys(merges)), unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = ("<unk>", "<s>", "</s>", "<image>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
