#!/usr/bin/env bash
# The curve by size of data: one adapter of all 96 training tasks, with 1, 3, 6 and 12 rows of each, on the tasks of data/heldout_sni. Started again
# after a kill, it goes on where it was. The 12 rows alone took two Zen 3 cores 20 to 30 minutes in float32.
#
#   study/rows.sh QUIVER [SEED] [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
quiver=$1
seed=${2:-1}
out=${3:-runs/rows-$seed}
mkdir -p "$out"
methods=base
for rows in 1 3 6 12; do
  "$quiver" build --recipe shared --library "$out/rows-$rows" --data data/train --max-examples "$rows" --epochs 3 --seed "$seed"
  methods+=,shared@$out/rows-$rows
done
"$quiver" eval --methods "$methods" --tasks sni --limit 16 --max-new-tokens 32 --seed "$seed" --work "$out/parts" --output "$out/results.json" --force
