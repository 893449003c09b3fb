#!/usr/bin/env bash
# The main job: from tasks to a routed library, on a real model and real data. Started again after a kill, it goes on
# where it was.
#
#   scripts/demo.sh QUIVER [BASE]
set -euo pipefail
cd "$(dirname "$0")/.."
quiver=$1
base=${2:-}
out=${OUT:-runs/demo${base:+-$(basename "$base" .gguf)}}  # a library is of one base
mkdir -p "$out"

seed=${SEED:-1}

# Twenty-four tasks with natural neighbours and short texts. Twelve answer in a word or a label (gender of pronouns and names, odd one out,
# questions and answers, sentiment), twelve in a sentence (reviews turned round and summed up, stories, explanations, questions, simplification):
# a library of labels alone teaches to answer in a word (docs/study/recipe.md).
tasks=task340_winomt_classification_gender_pro,task350_winomt_classification_gender_identifiability_pro
tasks+=,task1336_peixian_equity_evaluation_corpus_gender_classifier,task141_odd-man-out_classification_category
tasks+=,task142_odd-man-out_classification_no_category,task515_senteval_odd_word_out,task591_sciq_answer_generation
tasks+=,task592_sciq_incorrect_answer_generation,task582_naturalquestion_answer_generation,task195_sentiment140_classification
tasks+=,task363_sst2_polarity_classification,task512_twitter_emotion_classification
tasks+=,task927_yelp_negative_to_positive_style_transfer,task928_yelp_positive_to_negative_style_transfer
tasks+=,task105_story_cloze-rocstories_sentence_generation,task071_abductivenli_answer_generation
tasks+=,task223_quartz_explanation_generation,task593_sciq_explanation_generation,task581_socialiqa_question_generation
tasks+=,task1339_peixian_equity_evaluation_corpus_text_completion,task589_amazonfood_summary_text_generation
tasks+=,task618_amazonreview_summary_text_generation,task111_asset_sentence_simplification,task934_turk_simplification

# Tasks that nothing is trained on, beside the twelve of data/heldout_sni: all of data/train whose category (data/manifest.json) none of the above has,
# whose data none of them uses, and whose rows have 80 words or fewer on average.
unseen=task085_unnatural_addsub_arithmetic,task087_new_operator_addsub_arithmetic,task092_check_prime_classification
unseen+=,task094_conala_calculate_mean,task097_conala_remove_duplicates,task113_count_frequency_of_letter
unseen+=,task1186_nne_hrngo_classification,task132_dais_text_modification,task1354_sent_comp_classification
unseen+=,task1502_hatexplain_classification,task1505_root09_semantic_relation_classification,task161_count_words_containing_letter
unseen+=,task177_para-nmt_paraphrasing,task205_remove_even_elements,task227_clariq_classification
unseen+=,task292_storycommonsense_character_text_generation,task316_crows-pairs_classification_stereotype
unseen+=,task327_jigsaw_classification_toxic,task333_hateeval_classification_hate_en,task376_reverse_order_of_words
unseen+=,task379_agnews_topic_classification,task495_semeval_headline_classification
unseen+=,task609_sbic_potentially_offense_binary_classification,task616_cola_classification
unseen+=,task674_google_wellformed_query_sentence_generation

model=()
[ -z "$base" ] || model=(--base "$base")
# Rates, epochs and batches are the program's defaults, chosen on validation rows: docs/study/recipe.md.
train=("${model[@]}" --library "$out/library" --data data/train --tasks "$tasks" --max-examples "${EXAMPLES:-20}" --epochs "${EPOCHS:-3}" --seed "$seed")

"$quiver" build --recipe mbc --num-clusters 6 "${train[@]}"
"$quiver" build --recipe shared "${train[@]}"
# Parts that are done, of this run or of one before with the same settings and adapters, are taken as they are.
"$quiver" eval "${model[@]}" --library "$out/library" --methods all --tasks "$tasks,$unseen,sni,mc" \
  --limit "upstream=${ROWS:-4},sni=${HELDOUT_ROWS:-4},mc=${CHOICE_ROWS:-24}" \
  --max-new-tokens 32 --seed "$seed" --work "$out/parts" --output "$out/results.json" --force
"$quiver" report "$out/results.json" --output "$out/report.html" --force --title "Quiver demo"
echo "report: $out/report.html"
