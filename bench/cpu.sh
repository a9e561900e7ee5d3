#!/usr/bin/env bash
# The training step on the CPU against PyTorch, interleaved.
#
#     bench/cpu.sh [pairs] [gpt2] [python]
#
# From the environment: SHAPES (batch:seq:steps ...), MODEL, BACKEND, DTYPE.
# PEER is another program to compare with. It takes the flags of bench/peers/step.py and prints one line of JSON with the
# keys of `gpt2 bench step`.
set -euo pipefail
here=$(dirname "$0")
export peer=${PEER:-$here/peers/step.py} pairs=${1:-5} gpt2=${2:-target/release/gpt2} python=${3:-python3}
export model=${MODEL:-gpt2} shapes=${SHAPES:-"4:64:10 4:256:5 1:1024:5"}
dtype=${DTYPE:-f32}
export ours="--backend ${BACKEND:-ndarray} --precision $dtype --warmup-steps 2"
export theirs="--device cpu --dtype $dtype --warmup 2"
exec "$here/pairs.sh"
