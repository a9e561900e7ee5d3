#!/usr/bin/env bash
# The training step on an NVIDIA GPU, against a program that takes --device cuda --dtype --compile --model --batch --seq
# --steps --warmup and prints one line of JSON with the keys of `gpt2 bench step`.
#
#     bench/gpu.sh PEER [pairs] [gpt2] [python]
set -euo pipefail
export peer=$1 pairs=${2:-3} gpt2=${3:-target/release/gpt2} python=${4:-python3} model=${MODEL:-gpt2}
export shapes=${SHAPES:-"4:1024:20 8:1024:20 16:1024:20 32:1024:20"} dtype=${DTYPE:-bf16}
export ours="--backend cuda --precision $dtype --warmup-steps 5"
export theirs="--device cuda --dtype $dtype --compile ${COMPILE:-default} --warmup 5"
exec "$(dirname "$0")/pairs.sh"
