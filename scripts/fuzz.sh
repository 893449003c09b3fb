#!/usr/bin/env bash
# Every parser under libFuzzer with ASan and UBSan, SECONDS_EACH (60) seconds each, or those that are named. A crash, or an input that
# takes 30 seconds, ends the run and leaves its input in build-fuzz/found/<name>; it becomes a file of fuzz/corpus/<name>.
#
#   scripts/fuzz.sh [NAME ...]      NAME is a folder of fuzz/corpus
#   scripts/fuzz.sh --build         compiles all of them and runs none (make lint, where Clang is)
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang++ > /dev/null && [ -n "$(find /usr/lib -name 'libclang_rt.fuzzer-*' -print -quit 2>/dev/null)" ] || {
  printf 'fuzz: Clang and its runtime are missing; run as root:\n\n    apt-get install -y clang libclang-rt-14-dev\n\n' >&2
  exit 3  # make lint goes on without
}
cmake -S . -B build-fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DQUIVER_FUZZ=ON -DQUIVER_TESTS=OFF > /dev/null
build_only=
[ "${1:-}" != --build ] || { build_only=1; shift; }
[ $# -gt 0 ] || set -- $(ls fuzz/corpus)
cmake --build build-fuzz --target "${@/%/_fuzz}"
[ -z "$build_only" ] || exit 0
for name in "$@"; do
  found=build-fuzz/found/$name
  mkdir -p "$found"
  echo "== $name"
  "build-fuzz/${name}_fuzz" -max_total_time="${SECONDS_EACH:-60}" -timeout=30 -artifact_prefix="$found/" "$found" "fuzz/corpus/$name" 2>&1 | tail -2
done
