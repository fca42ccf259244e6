#!/bin/sh
# Compile the CUDA sources for every supported architecture, without running anything, and compare the registers of
# the kernels with registers.txt (--update: write it). Needs nvcc, no GPU.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v nvcc >/dev/null; then
  echo "compile_check: no nvcc on PATH, nothing checked"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
supported=$(nvcc --list-gpu-code)
flags=
for arch in 75 80 86 89 90 100 120; do
  case "$supported" in *"sm_$arch"*) flags="$flags -gencode arch=compute_$arch,code=sm_$arch" ;; esac
done
for source in "$here"/src/cuda/*.cu; do
  # shellcheck disable=SC2086
  nvcc -std=c++17 -O3 --threads 0 -Werror all-warnings $flags -Xptxas -v \
    -Xcompiler -fPIC,-Wall,-Wextra,-fvisibility=hidden -I "$here/include" \
    -c "$source" -o "$out/$(basename "$source").o" >"$out/output" 2>&1 || { cat "$out/output"; exit 1; }
  cat "$out/output" >>"$out/log"
  echo "compile_check: $(basename "$source") compiles for$(echo "$flags" | sed 's/ -gencode arch=compute_[0-9]*,code=/ /g')"
done
python3 "$here/registers.py" "$out/log" "$@"
