#include "quiver/methods/observe.h"

#include <torch/utils.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "quiver/base/error.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/decoder.h"
#include "quiver/nn/tap.h"

namespace quiver::methods {
namespace {

constexpr std::int64_t kBatchTokens = 1024;  // so that scores of many adapters at all projections stay small

/// Some prompts as one forest, and how their rows make up the prompts.
struct PromptBatch {
  model::ForwardRows rows;
  torch::Tensor mean;       ///< [P, T] float64: 1 / length where a row is a token of the prompt
  torch::Tensor count;      ///< [T] float64: prompts that a row is part of
  torch::Tensor last_rows;  ///< [P]
  torch::Tensor members;    ///< [P]: indices into the prompts
};

PromptBatch make_batch(std::span<const Prompt> prompts, std::span<const std::size_t> members) {
  std::vector<forest::Sequence> sequences;
  for (const auto i : members) sequences.push_back({prompts[i], 0});
  const auto batch = forest::build_batch(sequences, {.keep_last_token = true});
  PromptBatch result{.rows = model::forest_rows(batch.forest),
                     .last_rows = torch::tensor(batch.last_rows),
                     .members = torch::tensor(std::vector<std::int64_t>(members.begin(), members.end()))};
  result.mean = torch::zeros({static_cast<std::int64_t>(members.size()), batch.forest.num_rows()}, torch::kDouble);
  result.count = torch::zeros({batch.forest.num_rows()}, torch::kDouble);
  for (std::size_t p = 0; p < members.size(); ++p) {
    auto path = batch.forest.ancestors(batch.leaves[p]);
    path.push_back(batch.leaves[p]);
    for (const auto s : path) {
      const auto& segment = batch.forest.segments()[static_cast<std::size_t>(s)];
      result.mean[static_cast<std::int64_t>(p)].narrow(0, segment.first_row, segment.length) =
          1.0 / static_cast<double>(prompts[members[p]].size());
      result.count.narrow(0, segment.first_row, segment.length) += 1;
    }
  }
  return result;
}

/// Batches of prompts that begin alike.
std::vector<PromptBatch> batches_of(const model::Model& base, std::span<const Prompt> prompts) {
  if (prompts.empty()) fail(ErrorKind::kUsage, "no prompts to look at: give at least one text");
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty()) fail(ErrorKind::kUsage, "prompt {} has no tokens", i);
    if (static_cast<std::int64_t>(prompts[i].size()) > base.spec().max_positions) {
      fail(ErrorKind::kUsage, "prompt {} has {} tokens; the model's context is {}", i, prompts[i].size(), base.spec().max_positions);
    }
  }
  std::vector<std::size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return prompts[a] < prompts[b]; });
  std::vector<PromptBatch> batches;
  for (std::size_t first = 0, last = 0; first < order.size(); first = last) {
    std::int64_t tokens = 0;
    while (last < order.size() && (last == first || tokens + static_cast<std::int64_t>(prompts[order[last]].size()) <= kBatchTokens)) {
      tokens += static_cast<std::int64_t>(prompts[order[last++]].size());
    }
    batches.push_back(make_batch(prompts, std::span(order).subspan(first, last - first)));
  }
  return batches;
}

/// What is computed of every row at every path, [T, width] float32, for one batch.
using RowValues = std::map<std::string, torch::Tensor>;
using RowFunction = std::function<torch::Tensor(const std::string& path, const torch::Tensor& x)>;

/// Runs the batch through the base; `f` of what enters the projection, for all rows. Rows are written where they belong, so threads do
/// not meet.
RowValues watch(const model::Model& base, const PromptBatch& batch, const std::map<std::string, std::int64_t>& widths,
                const RowFunction& f) {
  RowValues values;
  auto linears = base.linears();
  for (const auto& [path, width] : widths) {
    const auto found = linears.find(path);
    if (found == linears.end()) fail(ErrorKind::kMismatch, "'{}' is not a projection of this model", path);
    auto all = torch::empty({static_cast<std::int64_t>(batch.rows.tokens.size()), width}, torch::kFloat);
    values.emplace(path, all);
    found->second = found->second.with(std::make_shared<nn::Tap>([all, path, &f](const torch::Tensor& x, const nn::Rows& rows) {
      const auto some = f(path, x).to(torch::kCPU, torch::kFloat);
      if (rows.index.defined()) {
        all.index_copy_(0, rows.index.cpu(), some);
      } else {
        all.narrow(0, rows.first_row, x.size(0)).copy_(some);
      }
    }));
  }
  model::hidden_of_all(base.with_linears(std::move(linears)), batch.rows);
  return values;
}

}  // namespace

ScoreSummary observe_scores(const model::Model& base, std::span<const Prompt> prompts, const Scoring& scoring, Progress& progress) {
  const torch::NoGradGuard no_grad;
  const auto batches = batches_of(base, prompts);
  if (scoring.vectors.empty()) fail(ErrorKind::kUsage, "no projections to score at");
  const auto num_adapters = scoring.vectors.begin()->second.size(0);
  const auto num_prompts = static_cast<std::int64_t>(prompts.size()), num_paths = static_cast<std::int64_t>(scoring.vectors.size());
  ScoreSummary summary;
  std::map<std::string, std::int64_t> widths;
  for (const auto& [path, vectors] : scoring.vectors) {
    summary.paths.push_back(path);
    widths.emplace(path, num_adapters);
  }
  summary.by_prompt = torch::empty({num_prompts, num_paths, num_adapters}, torch::kDouble);
  summary.last = torch::empty_like(summary.by_prompt);
  auto sum = torch::zeros({num_paths, num_adapters}, torch::kDouble), squares = torch::zeros_like(sum);
  double num_tokens = 0;
  for (const auto& batch : batches) {
    const auto values = watch(base, batch, widths, [&](const std::string& path, const torch::Tensor& x) {
      return routing::adapter_scores(x, scoring.vectors.at(path), scoring.rule);
    });
    std::int64_t l = 0;
    for (const auto& [path, of_rows] : values) {
      const auto scores = of_rows.to(torch::kDouble);  // [T, N]
      summary.by_prompt.select(1, l).index_copy_(0, batch.members, batch.mean.matmul(scores));
      summary.last.select(1, l).index_copy_(0, batch.members, scores.index_select(0, batch.last_rows));
      sum[l] += batch.count.matmul(scores);
      squares[l] += batch.count.matmul(scores.square());
      ++l;
    }
    num_tokens += batch.count.sum().item<double>();
    progress.advance(batch.members.size(0), "");
    throw_if_stopped("while looking at prompts");
  }
  summary.mean = sum / num_tokens;
  summary.deviation = (squares / num_tokens - summary.mean.square()).clamp_min(0).sqrt();
  return summary;
}

void check_finite(const torch::Tensor& scores, std::span<const std::string> paths, std::span<const std::string> adapters) {
  const auto is_finite = scores.isfinite();
  if (is_finite.all().item<bool>()) return;
  const auto first = is_finite.logical_not().nonzero()[0];  // [3]
  const auto prompt = first[0].item<std::int64_t>(), path = first[1].item<std::int64_t>(), adapter = first[2].item<std::int64_t>();
  if (!is_finite[prompt][path].any().item<bool>()) {
    fail(ErrorKind::kMismatch, "the score of all adapters at '{}' is not finite on a prompt: the base overflows, or every adapter",
         paths[static_cast<std::size_t>(path)]);
  }
  fail(ErrorKind::kMismatch, "the score of adapter '{}' at '{}' is not finite: leave the adapter out, or train it again",
       adapters[static_cast<std::size_t>(adapter)], paths[static_cast<std::size_t>(path)]);
}

std::map<std::string, torch::Tensor> observe_inputs(const model::Model& base, std::span<const Prompt> prompts,
                                                    std::span<const std::string> paths, Progress& progress) {
  const torch::NoGradGuard no_grad;
  std::map<std::string, std::int64_t> widths;
  std::map<std::string, torch::Tensor> means;
  for (const auto& path : paths) {
    const auto found = base.linears().find(path);
    if (found == base.linears().end()) fail(ErrorKind::kMismatch, "'{}' is not a projection of this model", path);
    widths.emplace(path, found->second.in_features());
    means.emplace(path, torch::empty({static_cast<std::int64_t>(prompts.size()), found->second.in_features()}, torch::kFloat));
  }
  for (const auto& batch : batches_of(base, prompts)) {
    const auto values = watch(base, batch, widths, [](const std::string&, const torch::Tensor& x) { return x; });
    for (const auto& [path, rows] : values)
      means.at(path).index_copy_(0, batch.members, batch.mean.matmul(rows.to(torch::kDouble)).to(torch::kFloat));
    progress.advance(batch.members.size(0), "");
    throw_if_stopped("while looking at prompts");
  }
  return means;
}

torch::Tensor observe_hidden(const model::Model& base, std::span<const Prompt> prompts, Progress& progress) {
  const torch::NoGradGuard no_grad;
  auto hidden = torch::empty({static_cast<std::int64_t>(prompts.size()), base.spec().hidden_size}, torch::kFloat);
  for (const auto& batch : batches_of(base, prompts)) {
    const auto rows = model::hidden_of_all(base, batch.rows).to(torch::kCPU, torch::kDouble);
    hidden.index_copy_(0, batch.members, batch.mean.matmul(rows).to(torch::kFloat));
    progress.advance(batch.members.size(0), "");
    throw_if_stopped("while looking at prompts");
  }
  return hidden;
}

}  // namespace quiver::methods
