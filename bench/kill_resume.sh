#!/usr/bin/env bash
# Kills a CPU run at ten random moments, resumes it each time, and compares its losses with those of a run that never stopped.
#
#     bench/kill_resume.sh [path of gpt2]
set -euo pipefail
gpt2=${1:-target/release/gpt2}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
flags=(--backend ndarray --model d4 --n-layer 2 --n-embd 64 --batch 2 --seq 64 --steps 300 --dropout 0.1 --eval-every 50
    --eval-batches 4 --sample-every 100 --checkpoint-every 5 --quiet)

"$gpt2" train "${flags[@]}" --run "$dir/whole"
"$gpt2" train "${flags[@]}" --run "$dir/killed" & pid=$!
for kill in $(seq 10); do
    sleep "$((1 + RANDOM % 3)).$((RANDOM % 10))"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    reached=$(cat "$dir/killed/metrics.jsonl" 2>/dev/null | wc -l)
    echo "kill $kill after $reached records"
    # Killed before its first checkpoint, a run has nothing to go on from and starts again.
    if ls "$dir/killed/checkpoints/" 2>/dev/null | grep -q '^step-'; then
        "$gpt2" train --run "$dir/killed" --resume --quiet & pid=$!
    else
        rm -rf "$dir/killed"
        "$gpt2" train "${flags[@]}" --run "$dir/killed" & pid=$!
    fi
done
wait "$pid"
losses() { grep -o '"step":[0-9]*\|"loss":[^,}]*\|"val_loss":[^,}]*\|"grad_norm":[^,}]*' "$1/metrics.jsonl"; }
diff <(losses "$dir/whole") <(losses "$dir/killed")
echo "equal: $(losses "$dir/whole" | wc -l) values of $(wc -l < "$dir/whole/metrics.jsonl") records"
