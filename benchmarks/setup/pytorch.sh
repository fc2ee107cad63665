#!/usr/bin/env bash
# Set up the PyTorch peers: a virtual environment with PyTorch and transformers.
#
#   benchmarks/setup/pytorch.sh VENV
#
# The peer reads the checkpoint itself: nothing is exported. On machines without a GPU add
# `--index-url https://download.pytorch.org/whl/cpu` to PyTorch's line where pip would take a
# build for CUDA.
set -euo pipefail

venv=$1
python3 -m venv "$venv"
"$venv/bin/pip" install torch==2.13.0
"$venv/bin/pip" install torch==2.13.0 transformers==5.23.0 safetensors
