#include "quiver/eval/score.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "quiver/base/error.h"
#include "quiver/model/decoder.h"
#include "quiver/nn/head_loss.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::eval {
namespace {

std::int64_t common_prefix(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  const auto [end, other] = std::ranges::mismatch(a, b);
  return end - a.begin();
}

std::vector<std::size_t> in_order(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

/// Cuts the sequences, in this order, into runs of at most max_rows rows. A prefix shared with the sequence before counts once.
std::vector<std::size_t> batch_ends(std::span<const forest::Sequence> sequences, const std::vector<std::size_t>& order,
                                    std::int64_t max_rows) {
  std::vector<std::size_t> ends;
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto& tokens = sequences[order[i]].tokens;
    const auto size = static_cast<std::int64_t>(tokens.size());
    const bool is_first = rows == 0 || sequences[order[i - 1]].group != sequences[order[i]].group;
    const auto added = is_first ? size : size - common_prefix(sequences[order[i - 1]].tokens, tokens);
    if (rows > 0 && rows + added > max_rows) {
      ends.push_back(i);
      rows = size;
    } else {
      rows += added;
    }
  }
  if (!order.empty()) ends.push_back(order.size());
  return ends;
}

/// Scores one batch of sequences into results[order[...]].
void score_batch(const model::Model& model, const std::vector<forest::Sequence>& sequences, std::span<const std::size_t> order,
                 const model::PassNames& names, std::vector<SequenceScore>& results) {
  const auto batch = forest::build_batch(sequences);
  const auto count = static_cast<std::int64_t>(batch.targets.size());
  std::vector<std::int64_t> rows, sequence_of;
  auto tokens = torch::empty({count}, torch::kLong);
  const auto ids = tensor::mutable_elements<std::int64_t>(tokens, "targets");
  for (std::int64_t i = 0; i < count; ++i) {
    rows.push_back(batch.targets[static_cast<std::size_t>(i)].row);
    sequence_of.push_back(static_cast<std::int64_t>(order[static_cast<std::size_t>(batch.targets[static_cast<std::size_t>(i)].sequence)]));
    ids[static_cast<std::size_t>(i)] = batch.targets[static_cast<std::size_t>(i)].token;
  }
  const auto hidden = model::hidden_of(model, model::forest_rows(batch.forest), rows);
  const auto scores = nn::score_targets(hidden, model.head(), tokens);
  const auto wide = scores.log_prob.to(torch::kDouble);
  model::check_finite(wide, sequence_of, names);
  const auto* log_probs = tensor::raw_data<double>(wide, "log-likelihoods", {count});
  const auto* is_greedy = tensor::raw_data<bool>(scores.is_greedy, "greedy targets", {count});
  for (std::int64_t i = 0; i < count; ++i) {
    auto& result = results[static_cast<std::size_t>(sequence_of[static_cast<std::size_t>(i)])];
    const double log_prob = log_probs[i];
    result.log_prob += log_prob;
    result.token_log_probs.push_back(log_prob);
    result.is_greedy = result.is_greedy && is_greedy[i];
  }
}

}  // namespace

void check_context(const model::Model& model, std::span<const forest::Sequence> sequences) {
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto size = static_cast<std::int64_t>(sequences[i].tokens.size());
    if (size - 1 <= model.spec().max_positions) continue;
    fail(ErrorKind::kUsage, "{} has {} tokens; the model's context is {}", forest::name_of(sequences[i], i), size,
         model.spec().max_positions);
  }
}

std::vector<SequenceScore> score_sequences(const model::Model& model, std::span<const forest::Sequence> sequences,
                                           const ScoreOptions& options, Progress& progress) {
  const torch::InferenceMode inference;
  check_context(model, sequences);
  auto order = in_order(sequences.size());
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return std::tie(sequences[i].group, sequences[i].tokens); });
  std::vector<SequenceScore> results(sequences.size());
  std::size_t first = 0;
  for (const auto end : batch_ends(sequences, order, options.max_batch_rows)) {
    const auto members = std::span(order).subspan(first, end - first);
    std::vector<forest::Sequence> batch;
    for (const auto i : members) batch.push_back(sequences[i]);
    score_batch(model, batch, members, options.names, results);
    progress.advance(static_cast<std::int64_t>(members.size()), "");
    throw_if_stopped("while scoring");
    first = end;
  }
  return results;
}

double mean_log_likelihood(const model::Model& model, const std::string& name, const text::Tokenizer& tokenizer,
                           const data::PromptFormat& format, std::span<const data::Example> rows, std::int64_t max_length) {
  std::vector<forest::Sequence> sequences;
  ScoreOptions options{.names = {.model = name, .inputs = {}}};
  for (const auto& row : rows) {
    sequences.push_back(
        data::encode_example(tokenizer, data::of_last_answer(format), row, std::min(max_length, model.spec().max_positions)));
    options.names.inputs.push_back(row.where);
  }
  NoProgress quiet;
  double sum = 0;
  for (const auto& score : score_sequences(model, sequences, options, quiet)) sum += score.mean_log_prob();
  return sum / static_cast<double>(sequences.size());
}

std::vector<std::size_t> score_runs(std::span<const forest::Sequence> sequences, std::int64_t max_rows) {
  return batch_ends(sequences, in_order(sequences.size()), max_rows);
}

}  // namespace quiver::eval
