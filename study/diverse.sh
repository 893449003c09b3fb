#!/usr/bin/env bash
# Diversity in place of rows: a library of all 96 training tasks, 12 rows of each, and what it does for tasks that it has not seen. Beside it, one
# adapter of fewer rows of each task. Started again after a kill, it goes on where it was. A seed takes two Zen 3 cores an hour and a half.
#
#   study/diverse.sh QUIVER SEED [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
quiver=$1
seed=$2
out=${3:-runs/diverse-$seed}
mkdir -p "$out"

train() {  # RECIPE LIBRARY ROWS OPTIONS...
  "$quiver" build --recipe "$1" --library "$out/$2" --data data/train --max-examples "$3" --epochs 3 --seed "$seed" "${@:4}"
}

# Rates and batches: docs/study/recipe.md, also "Few rows".
train shared library 12
train private library 12 --batch-size 4 --lr 2e-3 --together 4
"$quiver" cluster --library "$out/library" --num-clusters 10 --seed "$seed"
train clusters library 12
for rows in 1 3; do train shared "rows-$rows" "$rows"; done

methods=base,shared,shared@$out/rows-1,shared@$out/rows-3
for kind in private cluster; do
  for method in mean arrow lag gated-arrow oracle; do methods+=,$kind-$method; done
done
"$quiver" eval --library "$out/library" --methods "$methods" --tasks upstream,sni,mc --limit upstream=2,sni=16,mc=24 --max-new-tokens 32 \
  --seed "$seed" --work "$out/parts" --output "$out/results.json" --force
