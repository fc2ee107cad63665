#!/usr/bin/env bash
# Set up the onnxruntime-genai peer: a virtual environment with it and its model builder.
#
#   benchmarks/setup/genai.sh VENV                          # the environment alone
#   benchmarks/setup/genai.sh VENV CHECKPOINT DIRECTORY     # and DIRECTORY/int4, its model
#   benchmarks/setup/genai.sh VENV CHECKPOINT DIRECTORY fp32 int4     # or in these precisions
#
# int4 has the builder's fastest settings for one answer on a CPU: int4 weights in blocks of 32,
# products in int8 (accuracy level 4), the head for the last token only, one matrix for gate and up,
# and one quantised table for embedding and head. The builder holds the whole model in memory: 20.4
# GB for Gemma-2B. PyTorch comes first and by its version, so that a build for the CPU stays.
#
# The builder of 0.18 imports transformers 5, and cannot read Gemma 3's configuration as that has it
# (KeyError: 'rope_type'). So Gemma 3 is written by an older builder, beside the environment's own
# packages and without one matrix for gate and up; what runs it is 0.18.
set -euo pipefail

venv=$1
if [ ! -d "$venv" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install torch==2.13.0
  "$venv/bin/pip" install onnxruntime-genai==0.18.0 onnxruntime==1.31.1 transformers==5.23.0 \
    onnx==1.23.2 onnx-ir==1.1.0 sentencepiece requests torch==2.13.0
fi

if [ $# -ge 3 ]; then
  cache=$(mktemp -d)
  trap 'rm -rf "$cache"' EXIT
  checkpoint=$2
  directory=$3
  quantised="accuracy_level=4 block_size=32 fuse_mlp_gate_up=true"
  if grep -q '"gemma3' "$checkpoint/config.json"; then
    [ -d "$venv/gemma3" ] || "$venv/bin/pip" install --no-deps --target "$venv/gemma3" \
      onnxruntime-genai==0.12.2 transformers==4.57.6 tokenizers==0.22.2 huggingface-hub==0.36.2
    export PYTHONPATH="$venv/gemma3"
    quantised="int4_accuracy_level=4 int4_block_size=32"
  fi
  shift 3
  for precision in "${@:-int4}"; do
    options=(prune_lm_head=true)
    if [ "$precision" = int4 ]; then
      options+=($quantised shared_embeddings=true)
    fi
    "$venv/bin/python" -m onnxruntime_genai.models.builder -i "$checkpoint" \
      -o "$directory/$precision" -c "$cache" -p "$precision" -e cpu --extra_options "${options[@]}"
  done
fi
