#!/usr/bin/env bash
# snnc on a GPU machine that has no network: pack here, run there.
#
#   benchmarks/gpu.sh --pack FOLDER SHARED_DATA PYGENN.whl ML_GENN.whl CURAND_INCLUDE
#       with network and Keras, from an environment with snnc, GeNN and mlGeNN (PYTHON names its interpreter): puts into
#       FOLDER, under 40 MB, the wheels, cuRAND's headers, the converted networks and their test images. The wheels are
#       of pygenn, built with CUDA 13.0 for Python 3.12 (and against libcuda: `readelf -d` of cuda_backend*.so names
#       libcuda.so.1), and of mlGeNN; CURAND_INCLUDE is nvidia/cu13/include of PyPI's nvidia-curand 10.4.0.35.
#
#   benchmarks/gpu.sh FOLDER [options of "gpu.py run"]
#       on the GPU machine, with Python 3.12 with snnc's needs, CUDA 13.0, g++ and make: installs the wheels into a
#       temporary folder, measures, in under 8 minutes, and leaves gpu.json in $OUT (or here).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

if [ "${1:-}" = --pack ]; then
    [ $# = 6 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
    folder=$2 data=$3 pygenn=$4 ml_genn=$5 curand=$6
    mkdir -p "$folder/wheels" "$folder/include"
    rm -f "$folder"/wheels/*
    cp "$pygenn" "$ml_genn" "$folder/wheels/"
    cp -r "$curand/." "$folder/include/"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/wheels" "$here/.."
    # what mlGeNN and SpikingJelly need beside what such a machine has
    "$python" -m pip download --quiet --no-deps --dest "$folder/wheels" enum-compat deprecated spikingjelly loguru
    "$python" "$here/gpu.py" pack "$folder/data" --data "$data"
    du -sh "$folder"
    exit
fi

folder=$(cd "${1:?a folder that --pack has filled}" && pwd)
shift
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$folder"/wheels/*.whl
export PYTHONPATH=$site PYTHONUNBUFFERED=1
if [ -z "${CUDA_PATH:-}" ] && nvcc=$(command -v nvcc); then
    CUDA_PATH=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
fi
export CUDA_PATH=${CUDA_PATH:-/usr/local/cuda}
export LD_LIBRARY_PATH=$CUDA_PATH/lib64:${LD_LIBRARY_PATH:-} NVCC_PREPEND_FLAGS="-I$folder/include ${NVCC_PREPEND_FLAGS:-}"
"$python" "$here/gpu.py" run "$folder/data" --out "${OUT:-.}/gpu.json" "$@"
