#!/usr/bin/env bash
# Set up the OpenVINO peers: a virtual environment with OpenVINO, NNCF and Optimum Intel, and what
# they run.
#
#   benchmarks/setup/openvino.sh VENV                               # the environment
#   benchmarks/setup/openvino.sh VENV export CHECKPOINT DIRECTORY   # int8 and fp16 weights
#   benchmarks/setup/openvino.sh VENV export CHECKPOINT DIRECTORY fp32 int8 int4   # or these
#   benchmarks/setup/openvino.sh VENV quantize BUNDLE TEXTS DIRECTORY
#
# `export` is what Optimum Intel's users do: the whole model with its key/value cache. `quantize`
# takes this project's own fp32 graph through NNCF; TEXTS is a file of JSON lines to calibrate on.
#
# Optimum Intel 2.2 exports Gemma with transformers before 5.0 only, whatever pip resolves, and
# asks for torchvision, whose build for CUDA cannot be imported beside PyTorch for the CPU.
set -euo pipefail

venv=$1
if [ ! -d "$venv" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install torch==2.13.0
  "$venv/bin/pip" install torch==2.13.0 transformers==4.57.6 \
    openvino==2026.4.1 nncf==3.4.0 optimum-intel==2.2.0 onnx
  "$venv/bin/pip" uninstall --yes torchvision
fi

case "${2:-}" in
  "") ;;
  export)
    checkpoint=$3
    directory=$4
    shift 4
    [ $# -gt 0 ] || set -- int8 fp16
    for format in "$@"; do
      "$venv/bin/optimum-cli" export openvino --model "$checkpoint" \
        --task text-generation-with-past --weight-format "$format" "$directory/$format"
    done
    ;;
  quantize)
    "$venv/bin/python" "$(dirname "$0")/quantize_with_openvino.py" "$3" "$4" "$5"
    ;;
  *)
    echo "$2 is not a step: export, quantize" >&2
    exit 2
    ;;
esac
