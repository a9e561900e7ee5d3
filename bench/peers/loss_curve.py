#!/usr/bin/env python3
"""Follows a run of `gpt2 train` with PyTorch and transformers: the same weights, batches and learning rates.

    loss_curve.py init WEIGHTS [n_layer n_head n_embd]      a GPT-2 of random weights, for `gpt2 train --init WEIGHTS`
    gpt2 train --init WEIGHTS --data DATA --run RUN ...     any model, precision and schedule
    loss_curve.py follow WEIGHTS DATA RUN                   prints both curves, and how far apart they are

The batches follow from the run's seed (gpt2-data/src/order.rs says how), the learning rates are read from its metrics.
"""
import json, sys, tomllib
from pathlib import Path
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def mix2(a, b):
    return mix(mix((a + GOLDEN) & WORD) ^ ((b * GOLDEN + 1) & WORD))


def window(windows, seed, sequence):
    """The window of a sequence: a Feistel network of eight rounds, walked until it falls below the count."""
    key, value = mix2(seed, sequence // windows), sequence % windows
    half = max(1, ((windows - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = value >> half, value & mask
        for turn in range(8):
            left, right = right, left ^ (mix2(mix2(key, turn), right) & mask)
        value = left << half | right
        if value < windows:
            return value


def init(weights, *shape):
    n_layer, n_head, n_embd = map(int, shape or (12, 12, 768))
    torch.manual_seed(1)
    quiet = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    GPT2LMHeadModel(GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd, **quiet)).save_pretrained(weights)


def tokens_of(data, split):
    shards = sorted(path for path in Path(data).glob("*.bin") if split in path.stem)
    return np.concatenate([np.fromfile(path, dtype=np.uint16, offset=1024) for path in shards])


def follow(weights, data, run):
    config = tomllib.loads((Path(run) / "plan.toml").read_text())
    records = [json.loads(line) for line in open(Path(run) / "metrics.jsonl")]
    batch, seq, seed = config["batch"], config["seq"], config["seed"]
    training, validation = tokens_of(data, "train"), tokens_of(data, "val")
    windows = -(-(len(training) - 1) // seq)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = config["precision"] == "tf32"
    narrow = torch.autocast(device, dtype=torch.bfloat16, enabled=config["precision"] == "bf16")
    model = GPT2LMHeadModel.from_pretrained(weights, attn_implementation="sdpa").to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": config["weight-decay"]},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas, eps = (config["beta1"], config["beta2"]), config["eps"]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=betas, eps=eps, fused=device == "cuda")

    def loss_of(tokens, starts):
        rows = torch.tensor(np.stack([tokens[s : s + seq + 1] for s in starts]).astype(np.int64), device=device)
        with narrow:
            logits = model(rows[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    def train_step(step, lr):
        total = 0.0
        for micro_step in range(config["grad-accum"]):
            first = (step * config["grad-accum"] + micro_step) * batch
            starts = [window(windows, seed, first + row) * seq for row in range(batch)]
            loss = loss_of(training, [min(start, len(training) - 1 - seq) for start in starts])
            (loss / config["grad-accum"]).backward()
            total += loss.item() / config["grad-accum"]
        if config["grad-clip"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad-clip"])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    @torch.no_grad()
    def evaluate():
        starts = range(0, (len(validation) - 1) // seq * seq, seq)[: batch * config["eval-batches"]]
        batches = [starts[first : first + batch] for first in range(0, len(starts), batch)]
        return sum(loss_of(validation, some).item() * len(some) for some in batches) / len(starts)

    ours, theirs = [], []
    for record in records:
        if record.get("loss") is not None:
            ours.append(record["loss"])
            theirs.append(train_step(len(theirs), record["lr"]))
        if record.get("val_loss") is not None:
            print(f"step {len(theirs)}: validation loss {record['val_loss']:.4f} against {evaluate():.4f}")

    width = min(20, len(ours))
    smooth = lambda curve: np.convolve(curve, np.ones(width) / width, mode="valid")
    apart = np.abs(smooth(ours) - smooth(theirs))
    for step in sorted({*range(0, len(ours), max(1, len(ours) // 10)), len(ours) - 1}):
        print(f"step {step + 1}: {ours[step]:.4f} against {theirs[step]:.4f}")
    for end in sorted({min(200, len(ours)), len(ours)}):
        found = apart[: end - width + 1]
        print(f"means over {width} steps, until step {end}: at most {found.max():.4f} nat apart, at the end {found[-1]:.4f}")


if __name__ == "__main__":
    {"init": init, "follow": follow}[sys.argv[1]](*sys.argv[2:])
