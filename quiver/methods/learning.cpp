// Methods of adaptation: how a task is learnt from some rows of it, starting from a library.
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

using merge::MixRule;
using merge::MixUnit;
using train::SearchMethod;

// Groups of options. Each writes its values into the plan.

struct Retrieval {
  std::int64_t retrieve = 0;
  RetrieveBy retrieve_by = RetrieveBy::kWeights;
  TaskFolder task_data;
  std::int64_t task_samples = 16;

  static void describe_fisher(auto& schema, const std::string& needs) {
    schema.add(&Retrieval::task_data, "task_data", {.help = "folder of the adapters' tasks, for fisher", .needs = needs});
    schema.add(&Retrieval::task_samples, "task_samples",
               {.help = "training rows of a task, for fisher", .range = at_least(1), .needs = needs});
  }
  static void describe(auto& schema) {
    schema.add(&Retrieval::retrieve, "retrieve", {.help = "use so many adapters, the nearest to the task; 0: all", .range = at_least(0)});
    schema.add_words(&Retrieval::retrieve_by, "retrieve_by",
                     {{"random", RetrieveBy::kRandom}, {"weights", RetrieveBy::kWeights}, {"fisher", RetrieveBy::kFisher}},
                     {.help = "what is near: random, the weights of a new LoRA of the task, or fisher, what tasks ask of parameters",
                      .needs = "retrieve"});
    describe_fisher(schema, "retrieve_by=fisher");
  }
  void apply(LearningPlan& plan) const {
    plan.retrieve = retrieve;
    plan.retrieve_by = retrieve_by;
    plan.task_data = task_data.path;
    plan.task_samples = task_samples;
  }
};

/// Near is what fisher says.
struct RetrievalByFisher : Retrieval {
  static void describe(auto& schema) {
    schema.add(&Retrieval::retrieve, "retrieve",
               {.help = "use so many adapters, the nearest to the task", .range = at_least(0), .unset = "4, or all of a smaller library"});
    describe_fisher(schema, "");
  }
  RetrievalByFisher() { retrieve_by = RetrieveBy::kFisher; }
};

struct LogitRate {
  double logit_lr = 0.1;
  static void describe(auto& schema) {
    schema.add(&LogitRate::logit_lr, "logit_lr", {.help = "peak learning rate of the weights' logits", .range = kPositive});
  }
  void apply(LearningPlan& plan) const { plan.logit_rate = logit_lr; }
};

struct Granularity {
  MixUnit granularity = MixUnit::kProjection;
  static void describe(auto& schema) {
    schema.add_words(
        &Granularity::granularity, "granularity",
        {{"projection", MixUnit::kProjection}, {"block", MixUnit::kBlock}, {"layer", MixUnit::kLayer}, {"model", MixUnit::kModel}},
        {.help = "what shares one set of weights"});
  }
  void apply(LearningPlan& plan) const { plan.shape.unit = granularity; }
};

struct Heads {
  std::int64_t heads = 32;
  static void describe(auto& schema) {
    schema.add(&Heads::heads, "heads", {.help = "blocks of a projection with weights of their own", .range = at_least(1)});
  }
  void apply(LearningPlan& plan) const { plan.shape.num_heads = heads; }
};

struct SearchChoice {
  SearchMethod search = SearchMethod::kCobyla;
  std::int64_t evaluations = 30;
  SearchObjective objective = SearchObjective::kRouge;
  double penalty = 0.0025;  // 0.05 x 0.05; LoraHub's own, for the loss, is 0.05
  std::int64_t search_rows = 0;
  std::int64_t max_new_tokens = 64;

  static void describe(auto& schema) {
    schema.add_words(&SearchChoice::search, "search",
                     {{"cobyla", SearchMethod::kCobyla}, {"one-plus-one", SearchMethod::kOnePlusOne}, {"cma-es", SearchMethod::kCmaEs}},
                     {.help = "cobyla (which LoraHub's nevergrad uses), one-plus-one or cma-es"});
    schema.add(&SearchChoice::evaluations, "evaluations", {.help = "evaluations of the objective", .range = at_least(1)});
    schema.add_words(&SearchChoice::objective, "objective", {{"rouge", SearchObjective::kRouge}, {"loss", SearchObjective::kLoss}},
                     {.help = "rouge of answers, or loss"});
    schema.add(&SearchChoice::penalty, "penalty", {.help = "of the weights' magnitude", .range = at_least(0)});
    schema.add(&SearchChoice::search_rows, "search_rows",
               {.help = "training rows of the objective; 0: half of them", .range = at_least(0)});
    schema.add(&SearchChoice::max_new_tokens, "max_new_tokens",
               {.help = "longest answer", .range = at_least(1), .needs = "objective=rouge"});
  }
  void apply(LearningPlan& plan) const {
    plan.search = {.method = search, .max_evaluations = evaluations, .bound = 1.5};
    plan.objective = objective;
    plan.penalty = penalty;
    plan.search_rows = search_rows;
    plan.max_new_tokens = max_new_tokens;
  }
};

/// A row that does as `plan` says, with the values of these groups of options.
template <typename... Groups>
Method row(const MethodText& text, const LearningPlan& plan) {
  const auto schema = schema_of<OptionsOf<Groups...>>();
  const auto make = [schema, plan](const OptionValues& values) {
    auto result = plan;
    [[maybe_unused]] const auto options = schema.read(values);
    (static_cast<const Groups&>(options).apply(result), ...);
    return result;
  };
  return {text, Family::kLearnt, schema.options(), MakePlan(make)};
}

constexpr auto kMixture = LearningStart::kMixture;

}  // namespace

std::vector<Method> learning() {
  auto fresh = row<>({"fresh", "fresh", "a new LoRA, without the library", "Ostapenko et al. 2024, No Library"}, {});
  fresh.needs_library = false;
  return {
      fresh,
      row<Retrieval>({"shared", "shared", "from the adapter that was trained on all tasks", "Ostapenko et al. 2024, Shared"},
                     {.start = LearningStart::kOne}),
      row<Retrieval>({"mean", "mean", "from the mean of the adapters' factors", "Ostapenko et al. 2024, mu"},
                     {.start = LearningStart::kMean}),
      row<Retrieval, Granularity, LogitRate>({"poly", "Poly", "adapters as skills: they and the weights of each projection are trained",
                                              "Ponti et al. 2023; Ostapenko et al. 2024, Poly"},
                                             {.start = kMixture}),
      row<Retrieval, Granularity, LogitRate>({"polyz", "PolyZ", "the same, the weights alone", "Ostapenko et al. 2024, PolyZ"},
                                             {.start = kMixture, .trains_skills = false}),
      row<Retrieval, Granularity, Heads, LogitRate>(
          {"mhr", "MHR", "as poly, with weights for each block of a projection", "Caccia et al. 2023, MHR"}, {.start = kMixture}),
      row<Retrieval, Granularity, Heads, LogitRate>({"mhrz", "MHR-z", "the same, the weights alone", "Caccia et al. 2023, MHR-z"},
                                                    {.start = kMixture, .trains_skills = false}),
      row<Retrieval, LogitRate>(
          {"weights", "weights", "one weight for each adapter, any number, by gradient", "Quiver"},
          {.start = kMixture, .shape = {.rule = MixRule::kLinear, .unit = MixUnit::kModel}, .trains_skills = false, .starts_equal = true}),
      row<Retrieval, SearchChoice>(
          {"lorahub", "LoraHub", "one weight for each adapter, by a search without gradients", "Huang et al. 2023, LoraHub"},
          {.start = LearningStart::kSearch}),
      row<RetrievalByFisher, Granularity, LogitRate>(
          {"pi-tuning", "pi-tuning", "a new LoRA and the adapters of the nearest tasks, mixed by a softmax, all trained", "Wu et al. 2023"},
          {.start = kMixture,
           .usual_retrieve = 4,  // the paper leaves their number to the user
           .shape = {.rule = MixRule::kSoftmax},
           .adds_new_skill = true}),
  };
}

}  // namespace quiver::methods
