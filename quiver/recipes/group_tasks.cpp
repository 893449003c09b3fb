#include "quiver/recipes/group_tasks.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/cluster/baselines.h"
#include "quiver/data/prompt_format.h"
#include "quiver/methods/observe.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/text/tf_idf.h"

namespace quiver::recipes {
namespace {

std::vector<data::Example> some_rows(const TrainingSetup& setup, const std::string& task, std::int64_t samples) {
  auto rows = training_rows(data::load_task(setup.data, task), setup);
  if (rows.empty()) fail(ErrorKind::kUsage, "task '{}' has no training rows in '{}'", task, setup.data.string());
  if (static_cast<std::int64_t>(rows.size()) > samples) rows.resize(static_cast<std::size_t>(samples));
  return rows;
}

/// [T, d]: the base's final hidden states, averaged over tokens and prompts.
torch::Tensor hidden_vectors(const methods::BaseModel& base, const TrainingSetup& setup, std::int64_t samples, Progress& progress) {
  std::vector<torch::Tensor> vectors;
  progress.begin("look at the tasks", static_cast<std::int64_t>(setup.tasks.size()) * samples, "prompts");
  for (const auto& task : setup.tasks) {
    std::vector<methods::Prompt> prompts;
    for (const auto& row : some_rows(setup, task, samples)) {
      prompts.push_back(data::encode_prompt(base.tokenizer, base.format, row, std::min(setup.max_length, base.lm.spec().max_positions)));
    }
    vectors.push_back(methods::observe_hidden(base.lm, prompts, progress).to(torch::kDouble).mean(0));
  }
  progress.end();
  return torch::stack(vectors);
}

/// [T, V]: mean TF-IDF vectors of the prompts, scaled to unit length.
torch::Tensor tf_idf_vectors(const TrainingSetup& setup, std::int64_t samples) {
  std::vector<std::vector<std::string>> texts;
  std::vector<std::string> all;
  for (const auto& task : setup.tasks) {
    auto& mine = texts.emplace_back();
    for (const auto& row : some_rows(setup, task, samples)) mine.push_back(row.source);
    all.insert(all.end(), mine.begin(), mine.end());
  }
  const auto model = text::fit_tf_idf(all);
  auto vectors = torch::zeros({static_cast<std::int64_t>(texts.size()), static_cast<std::int64_t>(model.terms.size())}, torch::kDouble);
  const auto values = tensor::mutable_elements<double>(vectors, "TF-IDF vectors");
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const auto row = values.subspan(t * model.terms.size(), model.terms.size());
    for (const auto& text : texts[t]) {
      const auto sparse = text::tf_idf_vector(model, text);
      for (std::size_t i = 0; i < sparse.indices.size(); ++i) row[sparse.indices[i]] += sparse.values[i];
    }
  }
  return vectors / vectors.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-30);
}

}  // namespace

const char* grouping_name(Grouping grouping) {
  constexpr const char* kNames[] = {"random-tasks", "hidden", "tf-idf"};
  return kNames[static_cast<std::size_t>(grouping)];
}

void group_tasks(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup, Grouping grouping,
                 const cluster::KMeansOptions& options, std::int64_t samples, Progress& progress) {
  if (samples < 1) fail(ErrorKind::kUsage, "{} rows of a task; expected 1 or more", samples);
  if (options.num_clusters > static_cast<std::int64_t>(setup.tasks.size())) {
    fail(ErrorKind::kUsage, "{} tasks cannot form {} groups", setup.tasks.size(), options.num_clusters);
  }
  std::vector<std::vector<std::string>> clusters;
  nlohmann::json provenance;
  if (grouping == Grouping::kRandomTasks) {
    RandomStream random(options.seed, "random_tasks");
    const auto drawn = cluster::random_tasks(setup.tasks, options.num_clusters, random);
    clusters = drawn.clusters();
    provenance = {{"num_empty", drawn.num_empty}};
  } else {
    const auto vectors = grouping == Grouping::kHidden ? hidden_vectors(base, setup, samples, progress) : tf_idf_vectors(setup, samples);
    const auto result = cluster::cluster_vectors(setup.tasks, vectors, options);
    clusters = result.clusters();
    provenance = to_json(result);
  }
  provenance["by"] = grouping_name(grouping);
  provenance["seed"] = options.seed;
  std::map<std::string, std::vector<std::string>> groups;
  for (std::size_t k = 0; k < clusters.size(); ++k) groups.emplace(format("c{}", k), clusters[k]);
  library.set_groups(groups, provenance);
}

std::vector<TrainedAdapter> train_parts(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                        std::int64_t num_parts, Progress& progress) {
  const auto joint = load_training_data(base, setup.tasks, setup);
  RandomStream random(setup.train.seed, "random_examples");
  const auto part_of = cluster::random_examples(static_cast<std::int64_t>(joint.examples.size()), num_parts, random);
  std::vector<TrainedAdapter> trained;
  for (std::int64_t part = 0; part < num_parts; ++part) {
    TrainingData mine{.examples = {}, .validation = joint.validation};
    for (std::size_t i = 0; i < part_of.size(); ++i) {
      if (part_of[i] == part) mine.examples.push_back(joint.examples[i]);
    }
    trained.push_back(train_on(base, library, format("part-{}", part), {.kind = library::AdapterKind::kCluster, .tasks = setup.tasks}, mine,
                               setup, progress));
  }
  return trained;
}

}  // namespace quiver::recipes
