#!/usr/bin/env python3
"""Times tiktoken and gigatoken on texts, on one thread, and compares their tokens.

    encode.py MODEL TEXT ...

MODEL is the directory of a checkpoint or of an exported model, whose tokenizer files are read: nothing is downloaded.
The lines are those of `cargo run --release -p gpt2-data --example encode -- TEXT ...`, with the tokenizer's name in front.
The first run of a text fills gigatoken's cache and is reported apart from the others.

    pip install tiktoken gigatoken
"""
import json, os, statistics, sys, time
from pathlib import Path

# Read when the thread pool starts.
os.environ["RAYON_NUM_THREADS"] = "1"
import gigatoken, tiktoken

RUNS = 9
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def encoding(model):
    """GPT-2's encoding from `vocab.json`, which spells each byte as a character (`bytes_to_unicode` in encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
    tokens = json.loads((Path(model) / "vocab.json").read_text())
    end_of_text = tokens.pop("<|endoftext|>")
    ranks = {bytes(byte_of[character] for character in token): rank for token, rank in tokens.items()}
    return tiktoken.Encoding(
        "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end_of_text}
    )


def main(model, *paths):
    gpt2 = encoding(model)
    for path in paths:
        # A new one for each text, as the cache of the last would help.
        fast = gigatoken.Tokenizer(str(Path(model) / "tokenizer.json"))
        text = Path(path).read_bytes().decode()  # as it is: no line ends are turned into others
        megabytes, expected = len(text.encode()) / 1e6, None
        for name, encode in [("tiktoken", gpt2.encode_ordinary), ("gigatoken", fast.encode)]:
            rates = []
            for _ in range(1 + RUNS):
                start = time.perf_counter()
                tokens = encode(text)
                rates.append(megabytes / (time.perf_counter() - start))
            first, *rest = rates
            tokens = list(tokens)
            expected = expected or tokens
            same = "" if tokens == expected else ", other tokens"
            print(
                f"{name}: {path}, {megabytes:.1f}, {len(tokens)}, {first:.1f}, "
                f"{statistics.median(rest):.1f} [{min(rest):.1f}, {max(rest):.1f}]{same}"
            )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
