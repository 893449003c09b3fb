#include "quiver/recipes/analyse.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/base/random.h"
#include "quiver/cluster/nearest_group.h"
#include "quiver/data/prompt_format.h"
#include "quiver/eval/score.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/observe.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/build_library.h"
#include "quiver/recipes/trace.h"
#include "quiver/routing/directions.h"

namespace quiver::recipes {
namespace {

using adapters::LoraAdapter;
using nlohmann::json;

/// Which of the adapters were trained on a task.
std::vector<std::size_t> adapters_of(const library::Library& library, std::span<const LoraAdapter> adapters, const std::string& task) {
  std::vector<std::size_t> found;
  for (std::size_t n = 0; n < adapters.size(); ++n) {
    const auto* entry = library.find(adapters[n].name);
    if (entry != nullptr && std::ranges::find(entry->info.tasks, task) != entry->info.tasks.end()) found.push_back(n);
  }
  return found;
}

std::vector<std::string> tasks_of(const library::Library& library, std::span<const LoraAdapter> adapters, const AnalysisSetup& setup) {
  if (!setup.tasks.empty()) return setup.tasks;
  std::set<std::string> tasks;
  for (const auto& adapter : adapters) {
    const auto& of_adapter = library.at(adapter.name).info.tasks;
    tasks.insert(of_adapter.begin(), of_adapter.end());
  }
  if (tasks.empty())
    fail(ErrorKind::kUsage, "no adapter of library '{}' names a task; `tasks` says which to look at", library.path().string());
  return {tasks.begin(), tasks.end()};
}

std::vector<data::Example> test_rows(const AnalysisSetup& setup, const std::string& task) {
  auto rows = data::sample(data::load_task(setup.data, task).test, setup.rows, setup.seed, task);
  if (rows.empty()) fail(ErrorKind::kUsage, "task '{}' has no test rows in '{}'", task, setup.data.string());
  return rows;
}

methods::Prompt prompt_of(const methods::BaseModel& base, const data::Example& row) {
  return data::encode_prompt(base.tokenizer, base.format, row, base.lm.spec().max_positions);
}

double mean(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void check_library(const AnalysisSetup& setup) {
  if (setup.use.source.library.empty()) fail(ErrorKind::kUsage, "adapters of a library are looked at: give `library`");
  if (setup.rows < 1) fail(ErrorKind::kUsage, "`rows` {}; expected 1 or more", setup.rows);
}

/// The mean of each figure over some of route_statistics' documents.
json mean_figures(const std::vector<json>& list) {
  json figures = json::object();
  for (const char* name : {"entropy", "largest_entropy", "relative_entropy", "margin", "agreement", "true_share"}) {
    std::vector<double> values;
    for (const auto& one : list) {
      if (one.contains(name) && one.at(name).is_number()) values.push_back(one.at(name));
    }
    figures[name] = values.empty() ? json(nullptr) : json(mean(values));
  }
  return figures;
}

/// Norms of updates are divided by each other: none may be 0 for want of a LoRA (adapters::complete).
void refuse_unlike_targets(std::span<const LoraAdapter> adapters) {
  const auto adapts = [](const LoraAdapter& adapter, const std::string& path) {
    return adapter.pairs.at(path).lora_a().any().item<bool>();
  };
  for (const auto& [path, pair] : adapters.front().pairs) {
    for (const auto& adapter : adapters) {
      for (const auto& other : adapters) {
        if (!adapts(adapter, path) || adapts(other, path)) continue;
        fail(ErrorKind::kMismatch,
             "adapter '{}' adapts '{}' and adapter '{}' does not: norms are compared of adapters of the same projections", adapter.name,
             path, other.name);
      }
    }
  }
}

}  // namespace

json analyse_routing(const methods::BaseModel& base, const AnalysisSetup& setup, Progress& progress) {
  check_library(setup);
  methods::expect_routing(setup.use.method.row());
  const auto library = library::Library::open(setup.use.source.library);
  const auto routed = methods::routed_adapters(base, library, setup.use, progress);
  const auto tasks = tasks_of(library, routed.adapters, setup);
  json of_tasks = json::array();
  const double most = std::log(static_cast<double>(std::max<std::size_t>(routed.adapters.size(), 2)));
  std::vector<json> all;
  NoProgress quiet;
  progress.begin("look at routes", static_cast<std::int64_t>(tasks.size()), "tasks");
  for (const auto& task : tasks) {
    const auto own = adapters_of(library, routed.adapters, task);
    std::vector<json> of_rows;
    for (const auto& row : test_rows(setup, task)) {
      throw_if_stopped("while looking at routes");
      auto figures = route_statistics(base, routed, prompt_of(base, row), {methods::model_name(setup.use), {row.where}}, quiet);
      figures["relative_entropy"] = figures.at("entropy").get<double>() / most;
      if (!own.empty()) {
        double share = 0;
        for (const auto n : own) share += figures.at("shares").at(n).get<double>();
        figures["true_share"] = share;
      }
      of_rows.push_back(std::move(figures));
    }
    auto figures = mean_figures(of_rows);
    figures["name"] = task;
    figures["num_samples"] = of_rows.size();
    of_tasks.push_back(std::move(figures));
    all.insert(all.end(), of_rows.begin(), of_rows.end());
    progress.advance(1, task);
  }
  progress.end();
  return {{"method", setup.use.method.name},
          {"options", setup.use.method.options},
          {"adapters", routing::names_of(routed.adapters)},
          {"tasks", of_tasks},
          {"mean", mean_figures(all)},
          {"num_samples", all.size()}};
}

json analyse_norms(const methods::BaseModel& base, const AnalysisSetup& setup, Progress& progress) {
  check_library(setup);
  const auto library = library::Library::open(setup.use.source.library);
  const auto adapters = methods::load_members(base, library, setup.use.source);
  refuse_unlike_targets(adapters);
  if (adapters.size() < 2)
    fail(ErrorKind::kUsage, "norms are compared between two adapters or more; library '{}' has {}", library.path().string(),
         adapters.size());
  const methods::Scoring norms{.vectors = routing::stacked_directions(adapters, /*components=*/0, /*gamma=*/1), .rule = {}};
  const auto tasks = tasks_of(library, adapters, setup);
  json of_tasks = json::array();
  std::vector<double> all;
  NoProgress quiet;
  progress.begin("compare norms", static_cast<std::int64_t>(tasks.size()), "tasks");
  for (const auto& task : tasks) {
    const auto own = adapters_of(library, adapters, task);
    progress.advance(1, task);
    if (own.empty()) {
      fail(ErrorKind::kUsage, "no adapter of library '{}' was trained on task '{}': norms compare a task's own adapter with others",
           library.path().string(), task);
    }
    const auto i = static_cast<std::int64_t>(own.front());
    auto use = setup.use;
    use.method = {.name = "oracle", .options = {{"name", adapters[own.front()].name}}};
    const auto model = methods::adapted_model(base, use, quiet);
    std::vector<methods::Prompt> prompts;
    for (const auto& row : test_rows(setup, task)) prompts.push_back(prompt_of(base, row));
    const auto summary = methods::observe_scores(model.lm, prompts, norms, quiet).by_prompt;  // [P, L, N]
    model::check_finite(summary.sum().unsqueeze(0), std::vector<std::int64_t>{0},
                        {model.name, {format("the test rows of task '{}'", task)}});
    RandomStream random(setup.seed, "norms/" + task);
    std::vector<double> ratios;
    for (std::int64_t p = 0; p < summary.size(0); ++p) {
      double sum = 0;
      for (std::int64_t l = 0; l < summary.size(1); ++l) {
        auto j = static_cast<std::int64_t>(random.below(adapters.size() - 1));
        if (j >= i) ++j;
        sum += summary[p][l][i].item<double>() / std::max(summary[p][l][j].item<double>(), 1e-30);
      }
      ratios.push_back(sum / static_cast<double>(summary.size(1)));
    }
    all.insert(all.end(), ratios.begin(), ratios.end());
    of_tasks.push_back({{"name", task}, {"adapter", adapters[own.front()].name}, {"ratios", ratios}});
  }
  progress.end();
  const auto above = std::ranges::count_if(all, [](double r) { return r > 1; });
  return {{"tasks", of_tasks},
          {"mean", mean(all)},
          {"above_one", static_cast<double>(above) / static_cast<double>(std::max<std::size_t>(all.size(), 1))},
          {"num_samples", all.size()}};
}

namespace {

/// The mean over a task's test rows of the log-likelihood per label under one adapter.
double mean_log_likelihood(const methods::BaseModel& base, const library::Library& library, const std::string& adapter,
                           const AnalysisSetup& setup, const std::string& task) {
  const methods::AdapterUse use{.source = {.library = library.path().string()},
                                .method = {.name = "oracle", .options = {{"name", adapter}}}};
  NoProgress quiet;
  const auto model = methods::adapted_model(base, use, quiet);
  return eval::mean_log_likelihood(model.lm, model.name, base.tokenizer, base.format, test_rows(setup, task), base.lm.spec().max_positions);
}

struct Pair {
  std::size_t i = 0, j = 0;
  double cosine = 0;
};

/// `wanted` of all pairs of adapters, their cosines spread as evenly as they can be from the least to the greatest; each pair once.
std::vector<Pair> spread_pairs(const std::vector<LoraAdapter>& adapters, std::int64_t wanted) {
  std::vector<Pair> all, chosen;
  for (std::size_t i = 0; i + 1 < adapters.size(); ++i) {
    const auto cosines = cluster::cosines_with(adapters[i], std::span(adapters).subspan(i + 1), {.sparsity = 0});
    for (std::size_t j = i + 1; j < adapters.size(); ++j) all.push_back({i, j, cosines[j - i - 1]});
  }
  std::ranges::stable_sort(all, {}, &Pair::cosine);
  const double least = all.front().cosine, greatest = all.back().cosine;
  const auto count = std::min(static_cast<std::int64_t>(all.size()), wanted);
  for (std::int64_t k = 0; k < count; ++k) {
    const double target = count == 1 ? greatest : least + (greatest - least) * static_cast<double>(k) / static_cast<double>(count - 1);
    const auto nearest = std::ranges::min_element(all, {}, [target](const Pair& pair) { return std::abs(pair.cosine - target); });
    chosen.push_back(*nearest);
    all.erase(nearest);
  }
  return chosen;
}

/// Pearson's r of x and y; 0 where one does not vary.
double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double mx = mean(x), my = mean(y);
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

}  // namespace

json analyse_transfer(const methods::BaseModel& base, const TransferSetup& setup, Progress& progress) {
  check_library(setup.analysis);
  const auto library = library::Library::open(setup.analysis.use.source.library);
  std::vector<std::string> names;  // private adapters of one task each
  for (const auto& [name, entry] : library.adapters()) {
    if (entry.info.kind == library::AdapterKind::kPrivate && entry.info.tasks.size() == 1) names.push_back(name);
  }
  if (names.size() < 2)
    fail(ErrorKind::kUsage, "library '{}' has {} private adapters; two or more are compared", library.path().string(), names.size());
  auto pairs_library = library::Library::open_or_create(setup.work, library.base());
  const auto adapters = library.load_alike(names);
  std::map<std::string, double> own;  // log-likelihood of a task's rows under its own adapter
  json list = json::array();
  std::vector<double> cosines, gains;
  for (const auto& [i, j, cosine] : spread_pairs(adapters, setup.num_pairs)) {
    const std::string tasks[] = {library.at(names[i]).info.tasks[0], library.at(names[j]).info.tasks[0]};
    // By the adapters' names, so that another adapter in the library does not turn one pair into another; both together may be too long for
    // a name.
    const auto name = "pair-" + sha256_hex(names[i] + "\n" + names[j]).substr(0, 16);
    auto training = setup.training;
    training.data = setup.analysis.data;
    train_adapter(base, pairs_library, name, {.kind = library::AdapterKind::kShared, .tasks = {tasks[0], tasks[1]}}, training, progress);
    double gain = 0;
    for (std::size_t t = 0; t < 2; ++t) {
      const auto& private_name = t == 0 ? names[i] : names[j];
      if (!own.contains(tasks[t])) own[tasks[t]] = mean_log_likelihood(base, library, private_name, setup.analysis, tasks[t]);
      gain += (mean_log_likelihood(base, pairs_library, name, setup.analysis, tasks[t]) - own[tasks[t]]) / 2;
    }
    cosines.push_back(cosine);
    gains.push_back(gain);
    list.push_back({{"tasks", {tasks[0], tasks[1]}}, {"cosine", cosines.back()}, {"gain", gain}});
  }
  const double r = correlation(cosines, gains);
  json interval = nullptr;
  if (list.size() >= 4 && std::abs(r) < 1) {
    const double z = std::atanh(r), half = 1.959963984540054 / std::sqrt(static_cast<double>(list.size()) - 3);
    interval = {std::tanh(z - half), std::tanh(z + half)};
  }
  return {{"pairs", list}, {"correlation", r}, {"interval", interval}};
}

}  // namespace quiver::recipes
