#!/usr/bin/env bash
# Times the training step against another program, interleaved: A B A B. Prints each line, then medians, spread and
# ratios.
# bench/cpu.sh and bench/gpu.sh set what this takes from the environment:
#
#   gpt2, python, peer   the programs
#   ours, theirs         the flags that only one of them takes
#   shapes               batch:length:steps, one after the other
#   pairs, model         how often, and of what
set -euo pipefail
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
for shape in $shapes; do
    IFS=: read -r batch seq steps <<<"$shape"
    work=(--model "$model" --batch "$batch" --seq "$seq" --steps "$steps")
    for _ in $(seq "$pairs"); do
        # shellcheck disable=SC2086 # several flags
        "$gpt2" bench step $ours "${work[@]}" | tee -a "$lines"
        # shellcheck disable=SC2086
        "$python" "$peer" $theirs "${work[@]}" | tee -a "$lines"
    done
done
"$python" - "$lines" <<'PYTHON'
import json, statistics, sys

rows = [json.loads(line) for line in open(sys.argv[1])]
shapes = dict.fromkeys((row["batch"], row["seq"]) for row in rows)
for batch, seq in shapes:
    ours, peer = (
        [row for row in rows if (row["batch"], row["seq"]) == (batch, seq) and row["peer"].startswith("gpt2 ") == mine]
        for mine in (True, False)
    )
    rate = lambda rows: statistics.median(row["tokens_per_sec"] for row in rows)
    memory = lambda rows: statistics.median(row.get("peak_reserved_mib", row["peak_mem_mib"]) for row in rows)
    spread = lambda rows: "%.1f to %.1f" % (min(r["tokens_per_sec"] for r in rows), max(r["tokens_per_sec"] for r in rows))
    pairs = [a["tokens_per_sec"] / b["tokens_per_sec"] for a, b in zip(ours, peer)]
    print(
        f"B={batch} T={seq}: {rate(ours):.1f} ({spread(ours)}) against {rate(peer):.1f} ({spread(peer)}) tokens/s, "
        f"x {rate(ours) / rate(peer):.2f} (pairs {min(pairs):.2f} to {max(pairs):.2f}); "
        f"{memory(ours):.0f} against {memory(peer):.0f} MiB reserved, x {memory(ours) / memory(peer):.2f}"
    )
PYTHON
