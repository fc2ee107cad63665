#!/usr/bin/env bash
# Set up the llama.cpp peers: a virtual environment with llama.cpp compiled for this CPU.
#
#   benchmarks/setup/llamacpp.sh VENV                          # the environment alone
#   benchmarks/setup/llamacpp.sh VENV CHECKPOINT DIRECTORY     # and q8_0.gguf and q4_0.gguf
#   benchmarks/setup/llamacpp.sh VENV MODEL.gguf DIRECTORY     # or q8_0.gguf and f16.gguf of a GGUF
#
# llama.cpp comes in llama-cpp-python's source package, with its converter. It needs a C++ compiler
# and CMake; the build takes about 8 minutes on 2 cores. The checkpoint is converted to bfloat16
# and quantised by llama.cpp with its own defaults: in Q4_0 the embedding, which is also the head,
# is Q6_K. The bfloat16 file is removed at the end. A GGUF of any type is dequantised and quantised
# anew, so that what is written has its numbers, as nearly as the type can. PyTorch is for the
# converter alone and comes first and by its version, so that a build for the CPU stays.
set -euo pipefail

version=0.3.36
venv=$1
source="$venv/src/llama_cpp_python-$version"
if [ ! -d "$venv" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install torch==2.13.0
  "$venv/bin/pip" install transformers==4.57.6 sentencepiece "protobuf<5" torch==2.13.0
  "$venv/bin/pip" download --no-deps --no-binary llama-cpp-python -d "$venv/src" "llama-cpp-python==$version"
  tar -xzf "$source.tar.gz" -C "$venv/src"
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" "$venv/bin/pip" install "$source"
fi

if [ $# -ge 3 ]; then
  mkdir -p "$3"
  source_file=$2
  names="Q8_0 F16"
  if [ -d "$2" ]; then
    source_file="$3/bf16.gguf"
    names="Q8_0 Q4_0"
    trap 'rm -f "$source_file"' EXIT
    "$venv/bin/python" "$source/vendor/llama.cpp/convert_hf_to_gguf.py" "$2" \
      --outtype bf16 --outfile "$source_file"
  fi
  "$venv/bin/python" - "$source_file" "$3" $names <<'PYTHON'
import ctypes
import sys

import llama_cpp

source, directory, *names = sys.argv[1:]
for name in names:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    settings.allow_requantize = True  # of a file that is quantised already
    target = f"{directory}/{name.lower()}.gguf"
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings))
    if code:
        sys.exit(f"llama.cpp could not quantise {source} to {name}")
PYTHON
fi
