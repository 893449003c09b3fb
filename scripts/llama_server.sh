#!/bin/sh
# Builds llama.cpp's llama-server from the sources that llama-cpp-python ships: .venv-llama/llama-server. Some minutes, once.
set -eu
cd "$(dirname "$0")/.."
version=0.3.36
folder=.venv-llama
[ -x $folder/llama-server ] && exit 0
[ -x $folder/bin/python ] || python3 -m venv $folder
mkdir -p $folder/source
cd $folder/source
if [ ! -d llama.cpp ]; then
  ../bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python llama-cpp-python==$version
  tar -xzf llama_cpp_python-$version.tar.gz --strip-components=2 --wildcards '*/vendor/llama.cpp'
  rm llama_cpp_python-$version.tar.gz
fi
# With AMX the native build of these sources crashed: such CPUs get all of AVX-512 that it knows, and not AMX.
if grep -q amx_int8 /proc/cpuinfo; then
  isa="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON"
else
  isa="-DGGML_NATIVE=ON"
fi
# shellcheck disable=SC2086
cmake -S llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
  -DLLAMA_OPENSSL=OFF $isa > configure.log
cmake --build build --target llama-server --parallel "${JOBS:-$(nproc)}" > build.log
cp build/bin/llama-server ../llama-server
