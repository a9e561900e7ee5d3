#!/usr/bin/env bash
# The training step on the CPU, against a program that takes --device cpu --dtype --model --batch --seq --steps --warmup
# and prints one line of JSON with the keys of `gpt2 bench step`.
#
#     bench/cpu.sh PEER [pairs] [gpt2] [python]
set -euo pipefail
export peer=$1 pairs=${2:-5} gpt2=${3:-target/release/gpt2} python=${4:-python3} model=${MODEL:-gpt2}
export shapes=${SHAPES:-"4:64:10 4:256:5 1:1024:5"}
dtype=${DTYPE:-f32}
export ours="--backend ${BACKEND:-ndarray} --precision $dtype --warmup-steps 2" theirs="--device cpu --dtype $dtype --warmup 2"
exec "$(dirname "$0")/pairs.sh"
