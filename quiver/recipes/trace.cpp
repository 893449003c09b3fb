#include "quiver/recipes/trace.h"

#include <torch/utils.h>

#include <cmath>
#include <map>
#include <mutex>

#include "quiver/base/error.h"
#include "quiver/data/prompt_format.h"
#include "quiver/methods/table.h"
#include "quiver/model/decoder.h"
#include "quiver/nn/tap.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::recipes {
namespace {

using nlohmann::json;

/// Decisions of all tokens at one projection.
struct Choices {
  torch::Tensor index, weight;  // [T, k]
};

/// The text through the model with the bank attached; every decision kept where its token is.
std::map<std::string, Choices> collect(const methods::BaseModel& base, const methods::RoutedAdapters& routed, const methods::Prompt& prompt,
                                       const model::PassNames& names, Progress& progress) {
  routing::GroupLease group;
  if (routed.chooser != nullptr) group = routed.chooser->groups_of(std::vector<methods::Prompt>{prompt}, progress).at(0);
  const auto num_tokens = static_cast<std::int64_t>(prompt.size());
  auto linears = base.lm.linears();
  routing::attach_routers(linears, routed.adapters, routed.routers, routed.combine);
  std::map<std::string, Choices> choices;
  std::mutex mutex;
  for (const auto& [path, router] : routed.routers) {
    auto& mine = choices[path];
    auto& linear = linears.at(path);
    linear = linear.with(std::make_shared<nn::Tap>([&mine, &mutex, router, num_tokens](const torch::Tensor& x, const nn::Rows& rows) {
      const auto decision = router->route(x, nn::row_groups(rows, x.size(0)));
      const std::lock_guard lock(mutex);
      if (!mine.index.defined()) {
        mine.index = torch::zeros({num_tokens, decision.index.size(1)}, torch::kLong);
        mine.weight = torch::zeros({num_tokens, decision.index.size(1)}, torch::kFloat);
      }
      mine.index.narrow(0, rows.first_row, x.size(0)).copy_(decision.index);
      mine.weight.narrow(0, rows.first_row, x.size(0)).copy_(decision.weight);
    }));
  }
  const std::vector<forest::Sequence> sequences = {{prompt, 0, group == nullptr ? 0 : *group}};
  const auto batch = forest::build_batch(sequences, {.keep_last_token = true});
  const auto hidden = model::hidden_of_all(base.lm.with_linears(std::move(linears)), model::forest_rows(batch.forest));
  model::check_finite(hidden.abs().amax(1), std::vector<std::int64_t>(static_cast<std::size_t>(num_tokens), 0), names);
  return choices;
}

/// The figures of trace_routes.
json statistics_of(const std::map<std::string, Choices>& choices, std::int64_t num_tokens, std::int64_t num_adapters) {
  const auto num_paths = static_cast<double>(choices.size());
  double entropy = 0, margin = 0, most = 0;
  auto shares = torch::zeros({num_adapters}, torch::kDouble);
  auto favourites = torch::zeros({num_tokens, num_adapters}, torch::kDouble);  // projections that favour an adapter
  for (const auto& [path, c] : choices) {
    const auto weight = c.weight.to(torch::kDouble);
    const auto sorted = std::get<0>(weight.sort(1, /*descending=*/true));
    entropy -= torch::xlogy(weight, weight).sum(1).mean().item<double>() / num_paths;
    most += std::log(static_cast<double>(weight.size(1))) / num_paths;
    const auto second = weight.size(1) > 1 ? sorted.select(1, 1) : torch::zeros({num_tokens}, torch::kDouble);
    margin += (sorted.select(1, 0) - second).mean().item<double>() / num_paths;
    for (std::int64_t j = 0; j < weight.size(1); ++j) shares.index_add_(0, c.index.select(1, j), weight.select(1, j));
    const auto favourite = c.index.gather(1, c.weight.argmax(1, /*keepdim=*/true));  // [T, 1]
    favourites.scatter_add_(1, favourite, torch::ones({num_tokens, 1}, torch::kDouble));
  }
  json agreement = nullptr;
  if (choices.size() > 1) agreement = ((favourites * (favourites - 1)).sum(1) / (num_paths * (num_paths - 1))).mean().item<double>();
  shares /= num_paths * static_cast<double>(num_tokens);
  const auto each = tensor::elements<double>(shares, "shares");
  return {{"entropy", entropy},
          {"largest_entropy", most},
          {"margin", margin},
          {"agreement", agreement},
          {"shares", std::vector<double>(each.begin(), each.end())}};
}

}  // namespace

json route_statistics(const methods::BaseModel& base, const methods::RoutedAdapters& routed, const methods::Prompt& prompt,
                      const model::PassNames& names, Progress& progress) {
  return statistics_of(collect(base, routed, prompt, names, progress), std::ssize(prompt), std::ssize(routed.adapters));
}

json trace_routes(const methods::BaseModel& base, const methods::AdapterUse& use, const std::string& text, Progress& progress) {
  return trace_routes(base, use, data::encode_user_text(base.tokenizer, base.format, text, ""), progress);
}

json trace_routes(const methods::BaseModel& base, const methods::AdapterUse& use, const methods::Prompt& prompt, Progress& progress) {
  if (use.source.library.empty()) fail(ErrorKind::kUsage, "routes are traced in a library: give `library`");
  methods::expect_routing(use.method.row());
  const auto library = library::Library::open(use.source.library);
  const auto routed = methods::routed_adapters(base, library, use, progress);
  const auto choices = collect(base, routed, prompt, {methods::model_name(use), {"the prompt"}}, progress);

  json tokens = json::array(), projections = json::array();
  text::StreamDecoder decoder(base.tokenizer);
  for (std::size_t t = 0; t < prompt.size(); ++t) {
    auto piece = decoder.push(prompt[t]);
    if (t + 1 == prompt.size()) piece += decoder.finish();
    tokens.push_back({{"id", prompt[t]}, {"text", piece}});
  }
  for (const auto& [path, c] : choices) {
    json of_tokens = json::array();
    for (std::int64_t t = 0; t < c.index.size(0); ++t) {
      json of_token = json::array();
      for (std::int64_t j = 0; j < c.index.size(1); ++j)
        of_token.push_back({c.index[t][j].item<std::int64_t>(), c.weight[t][j].item<float>()});
      of_tokens.push_back(std::move(of_token));
    }
    projections.push_back({{"path", path}, {"choices", std::move(of_tokens)}});
  }
  return {{"quiver_trace", 1},
          {"base", base.lm.spec().name},
          {"method", use.method.name},
          {"options", use.method.options},
          {"what", use.method.row().what},
          {"combine", routed.combine == routing::Combine::kParams ? "params" : "outputs"},
          {"adapters", routing::names_of(routed.adapters)},
          {"tokens", tokens},
          {"projections", projections},
          {"statistics", statistics_of(choices, std::ssize(prompt), std::ssize(routed.adapters))}};
}

}  // namespace quiver::recipes
