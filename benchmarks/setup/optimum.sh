#!/usr/bin/env bash
# Set up the `quantize_dynamic` peers: a virtual environment with Optimum and ONNX Runtime, and what
# they run.
#
#   benchmarks/setup/optimum.sh VENV                              # the environment
#   benchmarks/setup/optimum.sh VENV export CHECKPOINT DIRECTORY  # Optimum's export, quantised
#   benchmarks/setup/optimum.sh VENV quantize GRAPH DIRECTORY     # a bundle's fp32 graph
#
# Both hold the model in memory several times. Four layers of Gemma-2B's shape need 16 GB as this
# project's graph and more than 20 GB as Optimum's export, which has the output layer twice.
set -euo pipefail

venv=$1
quantize=$(dirname "$0")/quantize_with_onnxruntime.py
if [ ! -d "$venv" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install torch==2.13.0
  "$venv/bin/pip" install torch==2.13.0 optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.31.1
fi

case "${2:-}" in
  "") ;;
  export)
    "$venv/bin/optimum-cli" export onnx --model "$3" --task text-generation-with-past \
      --dtype fp32 --no-post-process "$4/fp32"
    "$venv/bin/python" "$quantize" "$4/fp32/model.onnx" "$4/quantised/model.onnx" --last-position
    cp "$4/fp32/tokenizer.json" "$4/quantised/"
    ;;
  quantize)
    "$venv/bin/python" "$quantize" "$3" "$4/model.onnx"
    ;;
  *)
    echo "$2 is not a step: export, quantize" >&2
    exit 2
    ;;
esac
