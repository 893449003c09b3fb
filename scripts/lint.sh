#!/usr/bin/env bash
# make lint: formatting, layers, scripts and style sheets, and clang-tidy's short list (.clang-tidy) over the sources of the program.
# make lint-all: clang-tidy over the tests, too; every source parsed alone; the fuzz targets.
#
#   scripts/lint.sh [--all] [JOBS]
#
# The lint builds configure only and compile nothing but syntax, in build-lint. Tools come from the Python packages of
# scripts/setup.sh --test.
set -euo pipefail
cd "$(dirname "$0")/.."
is_all=
[ "${1:-}" != --all ] || { is_all=1; shift; }
jobs=${1:-$(nproc)}
tools=.venv/bin

configure() {  # configure FOLDER FLAGS...
  mkdir -p build-lint
  cmake -S . -B "build-lint/$1" -G Ninja "${@:2}" ${TORCH_DIR:+-DTORCH_DIR="$TORCH_DIR"} > "build-lint/$1.log" 2>&1 || {
    cat "build-lint/$1.log" >&2
    exit 1
  }
}

echo "lint: clang-format"
git ls-files '*.h' '*.cpp' | xargs "$tools/clang-format" --dry-run --Werror

echo "lint: layers, messages"
python3 scripts/check_layering.py
python3 scripts/check_messages.py

echo "lint: scripts and style sheets of the report and of the server's page"
(cd quiver/report/assets && "$OLDPWD/$tools/biome" lint --error-on-warnings .)
"$tools/biome" lint --error-on-warnings --config-path=quiver/report/assets quiver/serve/web

# clang-tidy reads no precompiled header of GCC, so each call reads libtorch's headers: unity sources make it eight times fewer.
# The kernels are left out: Clang lacks GCC's __builtin_shuffle. The sanitizers run over them (make asan).
mkdir -p build-lint/include
ln -sf "$(g++ -print-file-name=include)/omp.h" build-lint/include/omp.h
echo "lint: clang-tidy"
configure unity -DQUIVER_UNITY=ON -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON
python3 scripts/lint_sources.py build-lint/unity --jobs "$jobs" --skip "_isa$([ -n "$is_all" ] || echo "|_test")" -- "$tools/clang-tidy" -p build-lint/unity --quiet \
  --extra-arg="-isystem$PWD/build-lint/include" --extra-arg=-Wno-deprecated-declarations --extra-arg=-Wno-unknown-warning-option
[ -n "$is_all" ] || exit 0

echo "lint: every source alone"
configure alone -DQUIVER_UNITY=OFF
ninja -C build-lint/alone quiver_torch_pch > /dev/null
python3 scripts/lint_sources.py build-lint/alone --jobs "$jobs" --syntax

# The fuzz targets are compiled by the system's Clang, which refuses more of libstdc++'s ranges than clang-tidy's.
if command -v clang++ > /dev/null; then
  echo "lint: fuzz targets"
  scripts/fuzz.sh --build > build-lint/fuzz.log || [ $? = 3 ] || {
    cat build-lint/fuzz.log >&2
    exit 1
  }
else
  echo "lint: fuzz targets not compiled, there is no clang++"
fi
