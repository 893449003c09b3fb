// Every method over a library on disk, on a tiny model.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "quiver/adapters/init.h"
#include "quiver/base/random.h"
#include "quiver/eval/score.h"
#include "quiver/io/folder.h"
#include "quiver/methods/parts.h"
#include "quiver/methods/table.h"
#include "quiver/methods/test_support.h"
#include "quiver/model/decoder.h"
#include "quiver/model/generate.h"
#include "quiver/nn/tap.h"
#include "quiver/recipes/test_support.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

using namespace methods;
namespace fs = std::filesystem;
using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::HasSubstr;

const CalibrationText kCalibration{.num_prompts = 8, .max_tokens = 12};

std::vector<Prompt> random_prompts(std::size_t count, std::uint64_t seed) {
  RandomStream random(seed, "prompts");
  std::vector<Prompt> prompts;
  for (std::size_t i = 0; i < count; ++i) {
    Prompt prompt = {5, 6, 7, 8, 9, 10};  // all begin alike
    if (i % 3 == 0) prompt.clear();
    for (auto n = 1 + random.below(9); n > 0; --n) prompt.push_back(static_cast<std::int32_t>(3 + random.below(300)));
    prompts.push_back(prompt);
  }
  return prompts;
}

torch::Tensor hidden_alone(const model::Model& model, const Prompt& prompt) {
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, prompt);
  return model::hidden_of_all(model, model::forest_rows(forest));
}

class ReuseTest : public LibraryOnDisk {
 protected:
  std::vector<std::string> methods() const {
    // Merges by name have their own tests (methods/merges_test.cpp); some of them change even a single adapter.
    std::vector<std::string> names = {"oracle=a0", "mean", "mean-products"};
    for (const auto& method : reuse_methods()) {
      if (method.family != Family::kMerge && method.name != std::string("lag-base"))
        names.emplace_back(method.name);  // it takes less than all
    }
    return names;
  }

  std::vector<eval::SequenceScore> scores(const AnyMethod& choice) {
    const auto model = adapted_model(base_, choice.use(), progress_);
    std::vector<forest::Sequence> sequences;
    for (const auto& prompt : random_prompts(7, 3)) {
      auto tokens = prompt;
      tokens.insert(tokens.end(), {40, 41});
      sequences.push_back({tokens, 2});
    }
    const auto leases = model.assign_groups(sequences, progress_);
    return eval::score_sequences(model.lm, sequences, {}, progress_);
  }

  void expect_all_are_the_first_adapter(const std::vector<std::uint64_t>& seeds) {
    auto choice = library_of(seeds);
    choice.method = "oracle=a0";
    const auto expected = scores(choice);
    for (const auto& method : methods()) {
      choice.method = method;
      const auto found = scores(choice);
      for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i].log_prob, expected[i].log_prob, 2e-4) << method;
    }
  }

  torch::Tensor scores_by_definition(const Prompt& prompt, const Scoring& scoring) const;

  /// Z [P, N] of the prompts, each alone, against the calibration text.
  torch::Tensor evidence_by_definition(const std::vector<adapters::LoraAdapter>& adapters, const std::vector<Prompt>& prompts,
                                       const std::vector<Prompt>& calibration_text) {
    Scoring scoring;
    for (const auto& [path, rows] : routing::prototypes(adapters)) scoring.vectors.emplace(path, rows.unsqueeze(1));
    const auto means_of = [&](const std::vector<Prompt>& texts) {  // [P, L, N]
      std::vector<torch::Tensor> rows;
      for (const auto& text : texts) rows.push_back(observe_scores(base_.lm, std::vector<Prompt>{text}, scoring, progress_).by_prompt[0]);
      return torch::stack(rows);
    };
    const auto of_text = means_of(calibration_text), of_prompts = means_of(prompts);
    return ((of_prompts - of_text.mean(0)) / of_text.var(0, false).sqrt()).mean(1);
  }
};

TEST_F(ReuseTest, EveryMethodOverOneAdapterIsThatAdapter) { expect_all_are_the_first_adapter({11}); }
TEST_F(ReuseTest, EveryMethodOverIdenticalAdaptersIsThatAdapter) { expect_all_are_the_first_adapter({11, 11, 11, 11, 11}); }

TEST_F(ReuseTest, AnAdapterThatChangesNothingIsServedOrRefusedByName) {
  auto choice = library_of({11, 22, 33});
  auto zero = adapter("a1", 22);
  for (auto& [path, pair] : zero.pairs) pair = adapters::LoraPair(pair.lora_a(), torch::zeros_like(pair.lora_b()), pair.alpha());
  library::Library::open(choice.source.library).add(zero, {.tasks = {"a1"}}, /*force=*/true);
  for (const auto& method : methods()) {
    choice.method = method;
    if (method == "norm") {  // its score is 0 everywhere; by Arrow's prototypes any direction is one of a zero update's
      EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { scores(choice); }), HasSubstr("'a1' do not vary")) << method;
      continue;
    }
    for (const auto& score : scores(choice)) EXPECT_TRUE(std::isfinite(score.log_prob)) << method;
  }
}

TEST_F(ReuseTest, MethodsDifferAndAnswersAreGenerated) {
  auto choice = library_of({11, 22, 33, 44, 55, 66});
  std::map<std::string, double> seen;
  for (const auto& method : methods()) {
    choice.method = method;
    double sum = 0;
    for (const auto& score : scores(choice)) sum += score.log_prob;
    for (const auto& [other, value] : seen) EXPECT_NE(value, sum) << method << " and " << other;
    seen[method] = sum;
    const auto model = adapted_model(base_, choice.use(), progress_);
    const auto prompts = random_prompts(5, 4);
    const model::GenerateOptions options{.groups = model.groups_of(prompts, progress_)};
    const auto together = model::generate(model.lm, prompts, {.max_new_tokens = 5}, options);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      auto one = options;
      if (!one.groups.empty()) one.groups = {options.groups[i]};
      EXPECT_EQ(model::generate(model.lm, std::vector<Prompt>{prompts[i]}, {.max_new_tokens = 5}, one).at(0), together[i]) << method;
    }
  }
}

TEST_F(ReuseTest, PooledArrowTakesTheAdapterOfTheLargestPooledZScore) {
  auto choice = library_of({11, 22, 33, 44});
  choice.method = "pooled-arrow";
  const auto library = library::Library::open(choice.source.library);
  std::vector<adapters::LoraAdapter> adapters;
  for (const auto& name : library_members(library, choice.source)) adapters.push_back(library.load(name));
  const auto prompts = random_prompts(6, 9);
  const auto z = evidence_by_definition(adapters, prompts, calibration_prompts(base_, library, kCalibration, progress_));

  const auto routed = routed_adapters(base_, library, choice.use(), progress_);
  const auto groups = routed.chooser->groups_of(prompts, progress_);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(i);
    const auto decision = routed.routers.begin()->second->route(torch::zeros({1, 1}), std::vector{*groups[i]});
    EXPECT_EQ(decision.index.item<std::int64_t>(), z[static_cast<std::int64_t>(i)].argmax().item<std::int64_t>()) << i;
    EXPECT_EQ(decision.weight.item<float>(), 1);
  }
}

TEST_F(ReuseTest, TheSpectralFamilyHoldsArrowAndItsCalibration) {
  auto choice = library_of({11, 22, 33, 44, 55});
  choice.options["components"] = 1;
  choice.options["combine"] = "outputs";
  for (const bool is_calibrated : {false, true}) {
    choice.method = "spectral";
    choice.options["calibrated"] = is_calibrated;
    const auto found = scores(choice);
    choice.method = is_calibrated ? "calibrated-arrow" : "arrow";
    const auto expected = scores(choice);
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i].log_prob, expected[i].log_prob, 1e-4) << is_calibrated;
  }
}

TEST_F(ReuseTest, CentroidsByTheDotProductDependOnTheLengthOfTheInput) {
  auto choice = library_of({11, 22, 33});
  choice.method = "centroids";
  const auto library = library::Library::open(choice.source.library);
  const auto router = [&](const char* score) {
    choice.options["centroid_score"] = score;
    return routed_adapters(base_, library, choice.use(), progress_).routers.at("layers.1.self_attn.q_proj");
  };
  const auto cosine = router("cosine"), dot = router("dot");
  const auto width = base_.lm.linears().at("layers.1.self_attn.q_proj").in_features();
  auto x = draw({6, width}, 3);
  x = x / x.norm(2, {1}, true) * std::sqrt(static_cast<double>(width));  // of this length both are the same
  EXPECT_TRUE(torch::allclose(cosine->route(x).weight, dot->route(x).weight, 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(cosine->route(4 * x).weight, cosine->route(x).weight, 1e-5, 1e-6));
  EXPECT_GT((dot->route(4 * x).weight - dot->route(x).weight).abs().max().item<double>(), 1e-3);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { router("angle"); }), HasSubstr("`centroid_score` 'angle' is not one of cosine, dot"));
}

TEST_F(ReuseTest, TiedProjectionsDecideAlike) {
  auto choice = library_of({11, 22, 33, 44});
  const auto library = library::Library::open(choice.source.library);
  choice.options["tie"] = {"q_proj", "k_proj", "v_proj"};
  for (const std::string method : {"arrow", "calibrated-arrow"}) {
    choice.method = method;
    const auto routed = routed_adapters(base_, library, choice.use(), progress_);
    const auto x = draw({9, base_.lm.linears().at("layers.0.self_attn.q_proj").in_features()}, 3);
    const auto q = routed.routers.at("layers.0.self_attn.q_proj")->route(x), v = routed.routers.at("layers.0.self_attn.v_proj")->route(x);
    EXPECT_TRUE(q.index.equal(v.index)) << method;
    EXPECT_TRUE(torch::allclose(q.weight, v.weight, 1e-5, 1e-6)) << method;
  }
}

TEST_F(ReuseTest, LagGivesWayToTheBaseByThePromptsEvidence) {
  auto choice = library_of({11, 22, 33, 44});
  const auto library = library::Library::open(choice.source.library);
  const auto adapters = load_members(base_, library, choice.source);
  const auto text = calibration_prompts(base_, library, kCalibration, progress_);
  auto prompts = random_prompts(6, 9);
  prompts.insert(prompts.end(), text.begin(), text.begin() + 2);
  for (std::int32_t token = 20; token < 60; ++token) prompts.push_back({token, token});  // some are like nothing in the text
  double largest_share = 0;
  const auto largest = [&](const std::vector<Prompt>& some) { return std::get<0>(evidence_by_definition(adapters, some, text).max(1)); };
  const auto of_text = largest(text), of_prompts = largest(prompts);
  const double mean = of_text.mean().item<double>(), deviation = of_text.var(false).sqrt().item<double>();

  choice.method = "lag";
  const auto lag = routed_adapters(base_, library, choice.use(), progress_);
  choice.method = "lag-base";
  const auto routed = routed_adapters(base_, library, choice.use(), progress_);
  const auto groups = routed.chooser->groups_of(prompts, progress_);
  for (const auto& [path, router] : routed.routers) {
    SCOPED_TRACE(path);
    const auto x = draw({1, base_.lm.linears().at(path).in_features()}, 5);
    const auto expected = lag.routers.at(path)->route(x);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      SCOPED_TRACE(i);
      const double z = of_prompts[static_cast<std::int64_t>(i)].item<double>();
      const double share = 1 / (1 + std::exp(-(z - (mean + 4 * deviation)) / (deviation / 2)));
      const auto decision = router->route(x, std::vector{*groups[i]});
      largest_share = std::max(largest_share, share);
      EXPECT_TRUE(decision.index.equal(expected.index));
      EXPECT_NEAR(decision.weight.item<double>(), std::round(8 * share) / 8 * expected.weight.item<double>(), 1e-6)
          << path << " prompt " << i;
    }
  }
  EXPECT_GT(largest_share, 0.5);
  // A library that no prompt looks like is the base.
  auto model = adapted_model(base_, choice.use(), progress_);
  for (const auto& prompt : text) {
    SCOPED_TRACE(::testing::PrintToString(prompt));
    if (largest({prompt}).item<double>() > mean + 2 * deviation) continue;
    std::vector<forest::Sequence> sequences = {{prompt, 1}};
    sequences[0].tokens.push_back(40);
    const auto base_score = eval::score_sequences(base_.lm, sequences, {}, progress_).at(0).log_prob;
    const auto leases = model.assign_groups(sequences, progress_);
    EXPECT_NEAR(eval::score_sequences(model.lm, sequences, {}, progress_).at(0).log_prob, base_score, 1e-5);
  }
}

/// [L, N]: what enters each projection, kept, then scored and averaged.
torch::Tensor ReuseTest::scores_by_definition(const Prompt& prompt, const Scoring& scoring) const {
  auto linears = base_.lm.linears();
  std::vector<torch::Tensor> entered(scoring.vectors.size());
  std::size_t l = 0;
  for (const auto& [path, vectors] : scoring.vectors) {
    auto& linear = linears.at(path);
    linear = linear.with(std::make_shared<nn::Tap>([&slot = entered[l++]](const torch::Tensor& x, const nn::Rows&) { slot = x; }));
  }
  hidden_alone(base_.lm.with_linears(linears), prompt);  // so few rows are one part
  std::vector<torch::Tensor> means;
  l = 0;
  for (const auto& [path, vectors] : scoring.vectors) {
    const auto x = entered[l++].to(torch::kDouble);
    std::vector<torch::Tensor> of_adapters;
    for (std::int64_t n = 0; n < vectors.size(0); ++n)
      of_adapters.push_back(x.matmul(vectors[n].to(torch::kDouble).t()).norm(2, {1}).mean());
    means.push_back(torch::stack(of_adapters));
  }
  return torch::stack(means);
}

TEST_F(ReuseTest, ScoresOfPromptsAreThoseOfEachAloneWhateverTheThreads) {
  library_of({11, 22, 33});
  const auto prompts = random_prompts(20, 5);
  Scoring scoring;
  for (const auto& path : {"layers.0.self_attn.q_proj", "layers.1.self_attn.o_proj"}) {
    scoring.vectors.emplace(path, draw({3, 2, base_.lm.linears().at(path).in_features()}, 8));
  }
  const auto together = observe_scores(base_.lm, prompts, scoring, progress_);
  double tokens = 0;
  auto sum = torch::zeros({2, 3}, torch::kDouble);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(i);
    const std::vector<Prompt> alone = {prompts[i]};
    const auto one = observe_scores(base_.lm, alone, scoring, progress_);
    EXPECT_TRUE(torch::allclose(together.by_prompt[static_cast<std::int64_t>(i)], one.by_prompt[0], 1e-4, 1e-5)) << i;
    EXPECT_TRUE(torch::allclose(together.last[static_cast<std::int64_t>(i)], one.last[0], 1e-4, 1e-5)) << i;
    EXPECT_TRUE(torch::allclose(one.by_prompt[0], scores_by_definition(prompts[i], scoring), 1e-4, 1e-5)) << i;
    sum += one.by_prompt[0] * static_cast<double>(prompts[i].size());
    tokens += static_cast<double>(prompts[i].size());
    EXPECT_TRUE(torch::allclose(observe_hidden(base_.lm, alone, progress_)[0], hidden_alone(base_.lm, prompts[i]).mean(0), 1e-4, 1e-5));
  }
  EXPECT_TRUE(torch::allclose(together.mean, sum / tokens, 1e-4, 1e-5));
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto single = observe_scores(base_.lm, prompts, scoring, progress_);
  at::set_num_threads(threads);
  EXPECT_TRUE(torch::allclose(single.deviation, together.deviation, 1e-5, 1e-6));
}

TEST_F(ReuseTest, CalibrationIsKeptByAdapter) {
  auto choice = library_of({11, 22});
  choice.method = "calibrated-arrow";
  const auto before = scores(choice);
  const auto count = [&] { return std::distance(fs::directory_iterator(folder_ / "library" / "artifacts"), fs::directory_iterator()); };
  const auto files = count();
  EXPECT_EQ(scores(choice).at(0).log_prob, before.at(0).log_prob);
  EXPECT_EQ(count(), files);
  auto library = library::Library::open(choice.source.library);
  library.add(adapter("a2", 33), {.tasks = {"a2"}});
  scores(choice);
  EXPECT_EQ(count(), files + 4);  // prototypes and calibration of the new adapter, each with its description
}

TEST_F(ReuseTest, SaysWhatAMethodLacks) {
  auto choice = library_of({11, 22});
  choice.method = "arow";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { scores(choice); }), HasSubstr("did you mean 'arrow'?"));
  choice.method = "retrieval";
  choice.options["task_data"] = (folder_ / "library").string();
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { scores(choice); }), HasSubstr("holds no .jsonl"));
  choice.method = "arrow-mean";
  choice.options["fallback"] = "never";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { scores(choice); }), HasSubstr("constant, entropy, margin"));
  choice.method = "spectral";
  choice.options["top_k"] = 3;
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { scores(choice); }), HasSubstr("`top_k` 3 does not fit a library of 2"));
}

TEST_F(ReuseTest, WeightsAreOfNamesOrInTheOrderOfNames) {
  auto choice = library_of({11, 22});
  const auto library = library::Library::open(choice.source.library);
  const auto merged_by = [&](const char* method, std::vector<std::string> names) {
    choice.source.names = std::move(names);
    choice.method = method;
    return merged_adapter(base_, library, choice.use());
  };
  const auto expect_is = [&](const adapters::LoraAdapter& merged, const char* name) {
    for (const auto& [path, pair] : library.load(name).pairs) {
      EXPECT_TRUE(torch::allclose(merged.pairs.at(path).delta(), pair.delta(), 1e-5, 1e-6)) << path;
    }
  };
  expect_is(merged_by("weighted(weights=[1,0])", {"a0", "a1"}), "a0");
  expect_is(merged_by("weighted(weights=[a1=1,a0=0])", {"a0", "a1"}), "a1");
  expect_is(merged_by("weighted(weights=[a1=1,a0=0])", {"a1", "a0"}), "a1");
  EXPECT_ERROR(merged_by("weighted(weights=[1,0])", {"a1", "a0"}), ErrorKind::kUsage, "write them by name, as in a1=1,a0=0");
  EXPECT_ERROR(merged_by("weighted(weights=[a1=1])", {}), ErrorKind::kUsage, "`weights` has no number for adapter 'a0'");
  EXPECT_ERROR(merged_by("weighted(weights=[a1=1,a0=0,b=1])", {}), ErrorKind::kUsage, "`weights` names 'b', which is none of the adapters");
}

TEST_F(ReuseTest, RefusesAMixingThatDoesNotFitItsSkills) {
  auto choice = library_of({11});
  auto library = library::Library::open(choice.source.library);
  library.add(adapter("poly-0", 5), {.kind = library::AdapterKind::kPoly, .tasks = {"a"}});
  const library::MixingMeta meta{
      .tasks = {"a", "b"}, .skills = {{"poly-0", library.at("poly-0").sha256}}, .rule = "sigmoid", .granularity = "model"};
  choice.method = "task=a";
  choice.source.kind = "poly";
  const auto store = [&](const torch::Tensor& logits) { library.store_mixing("poly", {.logits = logits, .meta = meta}); };
  const auto refusal = [&] { return message_of(ErrorKind::kBadFormat, [&] { merged_adapter(base_, library, choice.use()); }); };
  store(torch::zeros({2, 1, 1, 1}));
  EXPECT_EQ(merged_adapter(base_, library, choice.use()).name, "a");
  store(torch::zeros({1, 1, 1, 1}));
  EXPECT_THAT(refusal(), HasSubstr("'logits' is F32 [1, 1, 1, 1]; expected F32 or F64 [2, units, 1, 1]"));
  store(torch::zeros({2, 1, 1, 1}, torch::kLong));
  EXPECT_THAT(refusal(), HasSubstr("'logits' is I64 [2, 1, 1, 1]; expected F32 or F64"));
  store(torch::zeros({2, 7, 1, 1}));
  EXPECT_THAT(refusal(), HasSubstr("tensor 'logits' is Float [2, 7, 1, 1]; expected Float [2, 1, 1, 1]; train the poly skills again"));
}

TEST_F(ReuseTest, RefusesToCalibrateAnAdapterThatChangesNothing) {
  auto choice = library_of({11});
  auto library = library::Library::open(choice.source.library);
  library.add(
      [&] {
        auto zero = adapters::initial_adapter("zero", {}, base_.lm.linears(), 1);
        zero.base_model = base_.lm.spec().name;
        zero.base_fingerprint = base_.lm.fingerprint();
        return zero;
      }(),
      {.tasks = {"zero"}});
  choice.method = "norm";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { scores(choice); }), HasSubstr("'zero' do not vary"));
}

}  // namespace
}  // namespace quiver::recipes
