#!/usr/bin/env bash
# The training step on an NVIDIA GPU against PyTorch, interleaved.
#
#     bench/gpu.sh [pairs] [gpt2] [python]
#
# From the environment: SHAPES (batch:seq:steps ...), MODEL, DTYPE, COMPILE (a mode of torch.compile, or none).
# PEER is another program to compare with. It takes the flags of bench/peers/step.py and prints one line of JSON with the
# keys of `gpt2 bench step`.
set -euo pipefail
here=$(dirname "$0")
export peer=${PEER:-$here/peers/step.py} pairs=${1:-3} gpt2=${2:-target/release/gpt2} python=${3:-python3}
export model=${MODEL:-gpt2} shapes=${SHAPES:-"4:1024:20 8:1024:20 16:1024:20 32:1024:20"}
dtype=${DTYPE:-bf16}
export ours="--backend cuda --precision $dtype --warmup-steps 5"
export theirs="--device cuda --dtype $dtype --compile ${COMPILE:-default} --warmup 5"
exec "$here/pairs.sh"
