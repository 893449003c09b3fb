#!/usr/bin/env bash
# The main job: from tasks to a routed library, on a real model and real data. Started again after a kill, it goes on
# where it was.
#
#   scripts/demo.sh QUIVER [BASE]
set -euo pipefail
cd "$(dirname "$0")/.."
quiver=$1
base=${2:-}
out=${OUT:-runs/demo}
mkdir -p "$out"

# Sixteen tasks with natural neighbours: sentiment, SciQ, odd-man-out, NumerSense, Yelp rewriting, WinoMT, compression.
tasks=task195_sentiment140_classification,task363_sst2_polarity_classification,task843_financial_phrasebank_classification
tasks+=,task591_sciq_answer_generation,task592_sciq_incorrect_answer_generation,task593_sciq_explanation_generation
tasks+=,task141_odd-man-out_classification_category,task142_odd-man-out_classification_no_category
tasks+=,task1359_numer_sense_answer_generation,task1360_numer_sense_multiple_choice_qa_generation
tasks+=,task927_yelp_negative_to_positive_style_transfer,task928_yelp_positive_to_negative_style_transfer
tasks+=,task340_winomt_classification_gender_pro,task350_winomt_classification_gender_identifiability_pro
tasks+=,task1354_sent_comp_classification,task1355_sent_comp_summarization

model=()
[ -z "$base" ] || model=(--base "$base")
# A small budget wants a higher rate than the paper's 1e-4, which is for thousands of steps per adapter.
train=("${model[@]}" --library "$out/library" --data data/train --tasks "$tasks" --max-examples "${EXAMPLES:-128}"
       --epochs "${EPOCHS:-3}" --rank 4 --alpha 16 --lr 1e-3 --batch-size 16)

"$quiver" build --recipe mbc --num-clusters 6 "${train[@]}"
"$quiver" build --recipe shared "${train[@]}"
# Parts that are done are taken from results.json.parts; a finished results.json is replaced.
"$quiver" eval "${model[@]}" --library "$out/library" --methods all --train-tasks "$tasks" --max-train-rows "${ROWS:-12}" \
  --instruction-tasks all --max-instruction-rows "${HELDOUT_ROWS:-8}" --choice-sets all --max-choice-rows "${CHOICE_ROWS:-40}" \
  --max-new-tokens 32 --output "$out/results.json" --force
"$quiver" report "$out/results.json" --output "$out/report.html" --force --title "Quiver demo"
echo "report: $out/report.html"
