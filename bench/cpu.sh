#!/usr/bin/env bash
# Times the training step on the CPU against PyTorch, in turn: A B A B. Prints each line, then medians, spread and ratios.
#
#     bench/cpu.sh PEER [pairs] [gpt2] [python]
#
# PEER is a program that takes --device cpu --dtype f32 --model --batch --seq --steps --warmup and prints one line of JSON with
# the keys of `gpt2 bench step`.
set -euo pipefail
peer=$1 pairs=${2:-5} gpt2=${3:-target/release/gpt2} python=${4:-python3}
shapes=${SHAPES:-"4:64:10 4:256:5 1:1024:5"}
model=${MODEL:-gpt2} backend=${BACKEND:-ndarray}
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
for shape in $shapes; do
    IFS=: read -r batch seq steps <<<"$shape"
    work=(--model "$model" --batch "$batch" --seq "$seq" --steps "$steps")
    for _ in $(seq "$pairs"); do
        "$gpt2" bench step --backend "$backend" "${work[@]}" --warmup-steps 2 | tee -a "$lines"
        "$python" "$peer" --device cpu --dtype f32 "${work[@]}" --warmup 2 | tee -a "$lines"
    done
done
"$python" - "$lines" <<'PYTHON'
import json, statistics, sys

rows = [json.loads(line) for line in open(sys.argv[1])]
shapes = dict.fromkeys((row["batch"], row["seq"]) for row in rows)
for batch, seq in shapes:
    ours, peer = (
        [row for row in rows if (row["batch"], row["seq"]) == (batch, seq) and ("backend" in row) == mine]
        for mine in (True, False)
    )
    rate = lambda rows: statistics.median(row["tokens_per_sec"] for row in rows)
    memory = lambda rows: statistics.median(row["peak_mem_mib"] for row in rows)
    spread = lambda rows: "%.1f to %.1f" % (min(r["tokens_per_sec"] for r in rows), max(r["tokens_per_sec"] for r in rows))
    pairs = [a["tokens_per_sec"] / b["tokens_per_sec"] for a, b in zip(ours, peer)]
    print(
        f"B={batch} T={seq}: {rate(ours):.1f} ({spread(ours)}) against {rate(peer):.1f} ({spread(peer)}) tokens/s, "
        f"x {rate(ours) / rate(peer):.2f} (pairs {min(pairs):.2f} to {max(pairs):.2f}); "
        f"{memory(ours):.0f} against {memory(peer):.0f} MiB, x {memory(ours) / memory(peer):.2f}"
    )
PYTHON
