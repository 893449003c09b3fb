#include "quiver/engine/serving_engine.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "quiver/adapters/peft.h"
#include "quiver/engine/catalogue.h"
#include "quiver/model/decoder.h"
#include "quiver/recipes/test_support.h"
#include "quiver/recipes/trace.h"
#include "quiver/schedule/scheduler.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/testing/message_of.h"

namespace quiver::engine {
namespace {

using schedule::Request;
using schedule::RequestId;
using schedule::Scheduler;
using Tokens = std::vector<std::int32_t>;

class ServingEngineTest : public recipes::LibraryOnDisk {
 protected:
  std::shared_ptr<RouteTracer> tracer_ = std::make_shared<RouteTracer>(std::ssize(base_.lm.blocks()));

  ContextPtr context(methods::AnyMethod choice, const std::string& method) {
    choice.method = method;
    return load_context(base_, choice.use(), progress_, tracer_.get());
  }
  /// Log-probabilities [T, V] of a text by a context's own model, without cache and company.
  torch::Tensor log_probs_alone(const Context& context, const Tokens& tokens, std::size_t num_prompt) {
    const torch::InferenceMode inference;
    std::int32_t group = 0;
    routing::GroupLease lease;
    if (context.model.chooser != nullptr) {
      const std::vector<methods::Prompt> prompts = {{tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(num_prompt)}};
      lease = context.model.groups_of(prompts, progress_).at(0);
      group = *lease;
    }
    forest::TokenForest forest;
    forest.add_segment(forest::kNoParent, tokens, group);
    return context.model.lm.head()
        .logits(model::hidden_of_all(context.model.lm, model::forest_rows(forest)))
        .to(torch::kDouble)
        .log_softmax(1);
  }

  /// An adapter whose head, too, has an update: it cannot share passes.
  ContextPtr head_context() {
    auto made = adapter("with a head", 77);
    const auto d = base_.lm.spec().hidden_size, v = base_.lm.spec().vocab_size;
    made.pairs.emplace("lm_head", adapters::LoraPair(testing::draw({2, d}, 5, 0.2), testing::draw({v, 2}, 6, 0.2), 4));
    auto context = std::make_shared<Context>(methods::AdaptedModel{methods::with_adapter(base_.lm, made), nullptr, "an adapter"});
    context->key = "with a head";
    context->shares_passes = can_share_passes(context->model.lm, base_.lm);
    return context;
  }

  ContextPtr dora_context() {
    auto made = adapter("a dora", 78);
    for (auto& [path, pair] : made.pairs) {
      const auto magnitude = base_.lm.linears().at(path).weight().dense().norm(2, 1) * 1.1;
      pair = adapters::LoraPair(pair.lora_a(), pair.lora_b(), pair.alpha(), false, magnitude);
    }
    auto context = std::make_shared<Context>(methods::AdaptedModel{methods::with_adapter(base_.lm, made), nullptr, "a DoRA"});
    context->key = "a dora";
    context->shares_passes = can_share_passes(context->model.lm, base_.lm);
    return context;
  }
};

/// A prompt that begins like many others.
Tokens prompt_of(RandomStream& random) {
  const auto family = random.below(2);
  const auto length = 4 + random.below(40), common = random.below(length);
  Tokens tokens;
  for (std::uint64_t i = 0; i < length; ++i)
    tokens.push_back(static_cast<std::int32_t>(i < common ? (family * 31 + i * 7) % 256 : random.below(256)));
  return tokens;
}

TEST_F(ServingEngineTest, EveryRequestOfAMixtureIsComputedByItsOwnContext) {
  const auto library = library_of({11, 22, 33, 44});
  std::vector<ContextPtr> contexts = {base_context(base_)};
  for (const auto* method : {"arrow", "lag", "ties", "pooled-arrow", "oracle=a1", "oracle=a2", "gated-arrow", "lag-base"}) {
    contexts.push_back(context(library, method));
  }
  contexts.push_back(head_context());
  contexts.push_back(dora_context());
  EXPECT_FALSE(contexts[contexts.size() - 2]->shares_passes);
  EXPECT_FALSE(contexts.back()->shares_passes);  // a DoRA rescales what stands below it
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, "mixture");
    ServingEngine engine(base_, 300 + static_cast<std::int64_t>(random.below(400)), tracer_);
    Scheduler scheduler(engine, {.max_sequences = static_cast<std::int64_t>(2 + random.below(9)),
                                 .page_rows = static_cast<std::int64_t>(1 + random.below(8)),
                                 .max_step_rows = static_cast<std::int64_t>(5 + random.below(90))});
    struct Asked {
      ContextPtr context;
      Tokens tokens;
      std::size_t num_prompt;
      bool is_scored;
      std::vector<schedule::TokenScore> scores;
    };
    std::map<RequestId, Asked> asked;
    std::set<RequestId> removed;
    for (int added = 0; added < 24 || !scheduler.is_empty();) {
      while (added < 24 && random.below(3) != 0) {
        const auto& chosen = contexts[random.below(contexts.size())];
        Request request{.tokens = prompt_of(random),
                        .options = {.max_new_tokens = 1 + static_cast<std::int64_t>(random.below(6)), .top_log_probs = 2}};
        request.assignment = chosen;
        request.is_scored = chosen->model.chooser == nullptr && random.below(3) == 0;
        request.name = "the prompt";
        const Asked one{chosen, request.tokens, request.tokens.size(), request.is_scored, {}};
        asked.emplace(scheduler.add(std::move(request)), one);
        ++added;
      }
      if (random.below(10) == 0 && scheduler.remove(random.below(24))) removed.insert(0);
      for (const auto& event : scheduler.step()) {
        auto& one = asked.at(event.id);
        one.scores.insert(one.scores.end(), event.prompt.begin(), event.prompt.end());
        one.tokens.push_back(event.token);
        one.scores.push_back(event.score);
      }
    }
    for (const auto& [id, one] : asked) {
      if (one.scores.empty()) continue;
      const auto expected = log_probs_alone(*one.context, one.tokens, one.num_prompt);
      const auto first = one.is_scored ? 0 : static_cast<std::int64_t>(one.num_prompt) - 1;
      for (std::size_t i = 0; i < one.scores.size(); ++i) {
        const auto row = expected[first + static_cast<std::int64_t>(i)];
        EXPECT_EQ(one.scores[i].token, one.tokens[static_cast<std::size_t>(first) + i + 1]);
        EXPECT_NEAR(one.scores[i].log_prob, row[one.scores[i].token].item<double>(), 2e-4) << one.context->model.name << ", row " << i;
        EXPECT_NEAR(one.scores[i].top.at(0).second, row.max().item<double>(), 2e-4) << one.context->model.name << ", row " << i;
      }
    }
  }
}

/// What a method decides per prompt is kept as the index of a group, which is given to another prompt once nobody holds it. The cache must
/// not take the one for the other.
TEST_F(ServingEngineTest, RowsOfAPromptsDecisionAreKeptByTheDecisionNotByItsGroup) {
  const auto pooled = context(library_of({11, 22, 33, 44}), "pooled-arrow");
  ServingEngine engine(base_, 600, tracer_);
  Scheduler scheduler(engine, {.page_rows = 4});
  RandomStream random(3, "groups");
  Tokens common;
  for (int i = 0; i < 8; ++i) common.push_back(static_cast<std::int32_t>(random.below(256)));
  std::set<std::string> keys;
  for (int i = 0; i < 20; ++i) {
    auto tokens = common;
    for (int j = 0; j < 20; ++j) tokens.push_back(static_cast<std::int32_t>(random.below(256)));
    pooled->model.forget_prompts();
    keys.insert(engine.decide(pooled, tokens)->key);
    Request request{.tokens = tokens, .options = {.max_new_tokens = 1, .top_log_probs = 0}, .assignment = pooled, .name = "p"};
    scheduler.add(request);
    const auto event = scheduler.step().at(0);
    const auto expected = log_probs_alone(*pooled, tokens, tokens.size())[-1];
    EXPECT_NEAR(event.score.log_prob, expected[event.token].item<double>(), 2e-4) << i;
    pooled->model.forget_prompts();
  }
  EXPECT_GT(keys.size(), 1u);
}

TEST_F(ServingEngineTest, TellsWhichAdaptersComputedARow) {
  const auto library = library_of({11, 22, 33});
  const auto arrow = context(library, "arrow");
  EXPECT_EQ(arrow->model.routed, (std::vector<std::string>{"a0", "a1", "a2"}));
  ServingEngine engine(base_, 300, tracer_);
  Scheduler scheduler(engine);
  RandomStream random(9, "trace");
  const auto tokens = prompt_of(random);
  Request request{.tokens = tokens, .options = {.max_new_tokens = 2}, .assignment = arrow, .wants_routes = true, .name = "p"};
  scheduler.add(request);
  request.assignment = context(library, "oracle=a1");  // beside a request that routes nothing
  scheduler.add(request);
  const auto events = scheduler.step();
  EXPECT_TRUE(events.at(1).route.empty());
  const auto& route = events.at(0).route;
  ASSERT_EQ(std::ssize(route), std::ssize(base_.lm.blocks()));
  auto choice = library;
  choice.method = "arrow";
  const auto trace = recipes::trace_routes(base_, choice.use(), tokens, progress_);
  std::map<std::int64_t, std::map<std::int64_t, double>> shares;
  std::map<std::int64_t, int> maps;
  for (const auto& projection : trace.at("projections")) {
    const auto layer = layer_of_path(projection.at("path"));
    ++maps[layer];
    for (const auto& [adapter, weight] : projection.at("choices").back().get<std::vector<std::pair<std::int64_t, double>>>()) {
      shares[layer][adapter] += weight;
    }
  }
  for (const auto& [layer, of] : shares) {
    const auto best = std::ranges::max_element(of, {}, [](const auto& entry) { return entry.second; });
    EXPECT_EQ(route[static_cast<std::size_t>(layer)].adapter, best->first) << layer;
    EXPECT_NEAR(route[static_cast<std::size_t>(layer)].share, best->second / maps[layer], 1e-5) << layer;
  }
  EXPECT_EQ(std::ssize(scheduler.step().at(0).route), std::ssize(route));
}

TEST(RouteTracer, ReadsTheLayerOfAPath) {
  EXPECT_EQ(layer_of_path("layers.12.self_attn.q_proj"), 12);
  EXPECT_EQ(layer_of_path("h.0.attn.c_attn"), 0);
  EXPECT_EQ(layer_of_path("lm_head"), -1);
  EXPECT_EQ(layer_of_path("layers.1x.q"), -1);
}

class CatalogueTest : public ServingEngineTest {
 protected:
  CatalogueOptions options_of(const methods::AnyMethod& library) { return {.library = library.source.library}; }
  /// The greedy token after a prompt, as the engine gives it.
  static std::string refusal(const std::function<void()>& action) {
    try {
      action();
    } catch (const api::ApiError& error) {
      return format("{} {}", error.status(), error.what());
    }
    return "none";
  }
  bool serves(const Catalogue& catalogue, const std::string& name) {
    const auto all = catalogue.list();
    return std::ranges::find(all, name, &api::ModelObject::id) != all.end();
  }
};

TEST_F(CatalogueTest, ServesBaseMethodsAndAdaptersByName) {
  auto options = options_of(library_of({11, 22, 33}));
  options.aliases = {{"default", "lag"}, {"sharp", "arrow(top_k=1)"}};
  Catalogue catalogue(base_, options, tracer_);
  for (const auto* name : {"base", "arrow", "lag", "a0", "a1", "default", "sharp"}) EXPECT_TRUE(serves(catalogue, name)) << name;
  EXPECT_FALSE(serves(catalogue, "oracle"));
  EXPECT_FALSE(catalogue.find("arrow", {}).has_value());  // it is loaded when it is asked for
  const auto arrow = catalogue.load("arrow", {});
  EXPECT_EQ(catalogue.find("arrow", {})->assignment, arrow.assignment);
  EXPECT_EQ(catalogue.load("method:arrow", {}).assignment, arrow.assignment);
  EXPECT_FALSE(arrow.decides_by_prompt);
  EXPECT_TRUE(catalogue.load("pooled-arrow", {}).decides_by_prompt);
  const auto sharp = catalogue.load("arrow", {.top_k = 1});
  EXPECT_NE(sharp.assignment->key, arrow.assignment->key);
  EXPECT_EQ(catalogue.load("sharp", {}).assignment->key, sharp.assignment->key);
  EXPECT_EQ(refusal([&] { catalogue.find("arow", {}); }).substr(0, 39), "404 the model 'arow' does not exist (di");
  EXPECT_EQ(refusal([&] { catalogue.find("a0", {.top_k = 2}); }), "400 'a0' has no option top_k");
  const auto some = catalogue.load("arrow", {.adapters = std::vector<std::string>{"a0", "a2"}});
  EXPECT_EQ(some.routed, (std::vector<std::string>{"a0", "a2"}));
}

TEST_F(CatalogueTest, FollowsTheLibraryAndForgetsWhatWasReplaced) {
  const auto choice = library_of({11, 22, 33});
  Catalogue catalogue(base_, options_of(choice), tracer_);
  const auto before = catalogue.load("a1", {}).assignment, arrow_before = catalogue.load("arrow", {}).assignment;
  auto library = library::Library::open(choice.source.library);
  library.add(adapter("a1", 99), {.tasks = {"a1"}}, /*force=*/true);
  library.add(adapter("a9", 98), {.tasks = {"a9"}});
  library.remove("a0");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  EXPECT_TRUE(serves(catalogue, "a9"));
  EXPECT_FALSE(serves(catalogue, "a0"));
  const auto after = catalogue.load("a1", {}).assignment;
  EXPECT_NE(after->key, before->key);
  EXPECT_EQ(catalogue.load("arrow", {}).routed, (std::vector<std::string>{"a1", "a2", "a9"}));
  EXPECT_NE(catalogue.load("arrow", {}).assignment->key, arrow_before->key);
  library.add(adapter("a1", 22), {.tasks = {"a1"}}, /*force=*/true);  // the bytes of the beginning
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  EXPECT_EQ(catalogue.load("a1", {}).assignment->key, before->key);
}

TEST_F(CatalogueTest, LoadsAndUnloadsAdaptersInNamedFoldersAlone) {
  const auto choice = library_of({11, 22, 33});
  auto options = options_of(choice);
  std::filesystem::create_directories(folder_ / "more");
  adapters::save_peft(folder_ / "more/one", adapter("one", 55));
  adapters::save_peft(folder_ / "more/two", adapter("two", 56));
  adapters::save_peft(folder_ / "elsewhere", adapter("hidden", 57));
  options.adapter_folders = {folder_ / "more"};
  Catalogue catalogue(base_, options, tracer_);
  const auto load = [&](const std::string& name, const std::filesystem::path& path, bool replaces = false) {
    return refusal([&] { catalogue.load_adapter({name, path.string(), replaces}); });
  };
  EXPECT_EQ(load("mine", folder_ / "more/one"), "none");
  const auto first = catalogue.find("mine", {})->assignment;
  EXPECT_EQ(load("mine", folder_ / "more/two"), "409 an adapter 'mine' is served already; load_inplace replaces it");
  EXPECT_EQ(load("mine", folder_ / "more/two", true), "none");
  EXPECT_NE(catalogue.load("mine", {}).assignment->key, first->key);
  EXPECT_EQ(load("arrow", folder_ / "more/two").substr(0, 3), "409");
  EXPECT_EQ(load("x", folder_ / "elsewhere").substr(0, 3), "403");
  EXPECT_EQ(load("x", folder_ / "more/../elsewhere").substr(0, 3), "403");
  EXPECT_EQ(load("x", "/etc").substr(0, 3), "403");

  catalogue.load("arrow", {});
  catalogue.unload_adapter("a1");
  EXPECT_FALSE(serves(catalogue, "a1"));
  EXPECT_EQ(catalogue.load("arrow", {}).routed, (std::vector<std::string>{"a0", "a2"}));
  EXPECT_TRUE(catalogue.unload_adapter("mine").empty());
  EXPECT_EQ(refusal([&] { catalogue.load("mine", {}); }).substr(0, 3), "404");
  EXPECT_EQ(refusal([&] { catalogue.unload_adapter("mine"); }).substr(0, 3), "404");
}

TEST_F(CatalogueTest, UnloadingReachesAllThatHoldsTheAdapter) {
  const auto choice = library_of({11, 22, 33});
  Catalogue catalogue(base_, options_of(choice), tracer_);
  auto alone = catalogue.load("a1", {}).assignment, others = catalogue.load("a0", {}).assignment;
  library::Library::open(choice.source.library).add(adapter("a9", 98), {.tasks = {"a9"}});
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  auto routed = catalogue.load("arrow", {}).assignment;  // the library has changed since `alone`
  auto without = catalogue.load("arrow", {.adapters = std::vector<std::string>{"a0", "a2"}}).assignment;

  const auto in_use = catalogue.unload_adapter("a1");
  ASSERT_EQ(in_use.size(), 2U);
  const auto num_used = [&] { return std::ranges::count_if(in_use, [](const auto& context) { return !context.expired(); }); };
  EXPECT_EQ(num_used(), 2);
  alone.reset();
  EXPECT_EQ(num_used(), 1);
  routed.reset();  // the catalogue keeps it no longer
  EXPECT_EQ(num_used(), 0);
  EXPECT_EQ(catalogue.find("arrow", {.adapters = std::vector<std::string>{"a0", "a2"}})->assignment, without);

  const auto* told = "400 'arrow' cannot use the adapter 'a1': it was unloaded";
  EXPECT_EQ(refusal([&] { catalogue.find("arrow", {.adapters = std::vector<std::string>{"a0", "a1"}}); }), told);
  EXPECT_EQ(refusal([&] { catalogue.find("arrow", {.weights = {{"a1", 1.0}}}); }), told);
}

}  // namespace
}  // namespace quiver::engine
