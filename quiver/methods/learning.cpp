// Methods of adaptation: how a task is learnt from some rows of it, starting from a library.
#include "quiver/methods/learning.h"

namespace quiver::methods {
namespace {

using merge::MixRule;
using merge::MixUnit;
using train::SearchMethod;

struct Retrieval {
  std::int64_t retrieve = 0;
  RetrieveBy retrieve_by = RetrieveBy::kWeights;
  TaskFolder task_data;
  std::int64_t task_samples = 16;

  template <typename Options>
  static void describe_fisher(Schema<Options>& schema, const std::string& needs) {
    schema.add(&Options::task_data, "task_data", {.help = "folder of the adapters' tasks, for fisher", .needs = needs});
    schema.add(&Options::task_samples, "task_samples",
               {.help = "training rows of a task, for fisher", .range = at_least(1), .needs = needs});
  }
  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add(&Options::retrieve, "retrieve", {.help = "use so many adapters, the nearest to the task; 0: all", .range = at_least(0)});
    schema.add_words(&Options::retrieve_by, "retrieve_by",
                     std::vector<std::pair<std::string, RetrieveBy>>{
                         {"random", RetrieveBy::kRandom}, {"weights", RetrieveBy::kWeights}, {"fisher", RetrieveBy::kFisher}},
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

struct LogitRate {
  double logit_lr = 0.1;
  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add(&Options::logit_lr, "logit_lr", {.help = "peak learning rate of the weights' logits", .range = kPositive});
  }
};

struct Granularity {
  MixUnit granularity = MixUnit::kProjection;
  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add_words(
        &Options::granularity, "granularity",
        std::vector<std::pair<std::string, MixUnit>>{
            {"projection", MixUnit::kProjection}, {"block", MixUnit::kBlock}, {"layer", MixUnit::kLayer}, {"model", MixUnit::kModel}},
        {.help = "what shares one set of weights"});
  }
};

struct Heads {
  std::int64_t heads = 32;
  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add(&Options::heads, "heads", {.help = "blocks of a projection with weights of their own", .range = at_least(1)});
  }
};

struct SearchChoice {
  SearchMethod search = SearchMethod::kCobyla;
  std::int64_t evaluations = 30;
  SearchObjective objective = SearchObjective::kRouge;
  double penalty = 0.0025;  // 0.05 x 0.05; LoraHub's own, for the loss, is 0.05
  std::int64_t search_rows = 0;
  std::int64_t max_new_tokens = 64;

  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add_words(&Options::search, "search",
                     std::vector<std::pair<std::string, SearchMethod>>{
                         {"cobyla", SearchMethod::kCobyla}, {"one-plus-one", SearchMethod::kOnePlusOne}, {"cma-es", SearchMethod::kCmaEs}},
                     {.help = "cobyla (which LoraHub's nevergrad uses), one-plus-one or cma-es"});
    schema.add(&Options::evaluations, "evaluations", {.help = "evaluations of the objective", .range = at_least(1)});
    schema.add_words(
        &Options::objective, "objective",
        std::vector<std::pair<std::string, SearchObjective>>{{"rouge", SearchObjective::kRouge}, {"loss", SearchObjective::kLoss}},
        {.help = "rouge of answers, or loss"});
    schema.add(&Options::penalty, "penalty", {.help = "of the weights' magnitude", .range = at_least(0)});
    schema.add(&Options::search_rows, "search_rows", {.help = "training rows of the objective; 0: half of them", .range = at_least(0)});
    schema.add(&Options::max_new_tokens, "max_new_tokens", {.help = "longest answer", .range = at_least(1), .needs = "objective=rouge"});
  }
};

struct NoOptions {};
template <typename... Groups>
struct LearningOptions : Groups... {};

template <typename Options>
Method row(const MethodText& text, const Schema<Options>& schema, LearningPlan (*plan)(const Options&)) {
  return {.name = text.name,
          .label = text.label,
          .family = Family::kLearnt,
          .what = text.what,
          .source = text.source,
          .options = schema.options(),
          .make = MakePlan([schema, plan](const OptionValues& values) { return plan(schema.read(values)); })};
}

LearningPlan plan_of(LearningStart start, const Retrieval& options) {
  LearningPlan plan{.start = start};
  options.apply(plan);
  return plan;
}

template <LearningStart kStart>
LearningPlan started(const LearningOptions<Retrieval>& options) {
  return plan_of(kStart, options);
}

template <bool kTrainsSkills>
LearningPlan poly(const LearningOptions<Retrieval, Granularity, LogitRate>& options) {
  auto plan = plan_of(LearningStart::kMixture, options);
  plan.shape = {.rule = MixRule::kSigmoid, .unit = options.granularity};
  plan.trains_skills = kTrainsSkills;
  plan.logit_rate = options.logit_lr;
  return plan;
}

template <bool kTrainsSkills>
LearningPlan mhr(const LearningOptions<Retrieval, Granularity, Heads, LogitRate>& options) {
  auto plan = plan_of(LearningStart::kMixture, options);
  plan.shape = {.rule = MixRule::kSigmoid, .unit = options.granularity, .num_heads = options.heads};
  plan.trains_skills = kTrainsSkills;
  plan.logit_rate = options.logit_lr;
  return plan;
}

LearningPlan weights(const LearningOptions<Retrieval, LogitRate>& options) {
  auto plan = plan_of(LearningStart::kMixture, options);
  plan.shape = {.rule = MixRule::kLinear, .unit = MixUnit::kModel};
  plan.trains_skills = false;
  plan.starts_equal = true;
  plan.logit_rate = options.logit_lr;
  return plan;
}

LearningPlan lorahub(const LearningOptions<Retrieval, SearchChoice>& options) {
  auto plan = plan_of(LearningStart::kSearch, options);
  plan.search = {.method = options.search, .max_evaluations = options.evaluations, .bound = 1.5};
  plan.objective = options.objective;
  plan.penalty = options.penalty;
  plan.search_rows = options.search_rows;
  plan.max_new_tokens = options.max_new_tokens;
  return plan;
}

LearningPlan pi_tuning(const LearningOptions<Retrieval, Granularity, LogitRate>& options) {
  auto plan = plan_of(LearningStart::kMixture, options);
  plan.usual_retrieve = 4;  // the paper leaves their number to the user
  plan.retrieve_by = RetrieveBy::kFisher;
  plan.shape = {.rule = MixRule::kSoftmax, .unit = options.granularity};
  plan.adds_new_skill = true;
  plan.logit_rate = options.logit_lr;
  return plan;
}

/// A row of these groups of options; Retrieval's come first.
template <typename... Groups>
Method with(const MethodText& text, LearningPlan (*plan)(const LearningOptions<Retrieval, Groups...>&)) {
  return row(std::move(text), schema_of<LearningOptions<Retrieval, Groups...>, Retrieval, Groups...>(), plan);
}

}  // namespace

std::vector<Method> learning() {
  std::vector<Method> rows;
  rows.push_back(row(
      {"fresh", "fresh", "a new LoRA, without the library", "Ostapenko et al. 2024, No Library"}, Schema<NoOptions>(),
      +[](const NoOptions&) { return LearningPlan{.start = LearningStart::kFresh}; }));
  rows.back().needs_library = false;
  rows.push_back(with<>({"shared", "shared", "from the adapter that was trained on all tasks", "Ostapenko et al. 2024, Shared"},
                        started<LearningStart::kOne>));
  rows.push_back(
      with<>({"mean", "mean", "from the mean of the adapters' factors", "Ostapenko et al. 2024, mu"}, started<LearningStart::kMean>));
  rows.push_back(with<Granularity, LogitRate>({"poly", "Poly", "adapters as skills: they and the weights of each projection are trained",
                                               "Ponti et al. 2023; Ostapenko et al. 2024, Poly"},
                                              poly<true>));
  rows.push_back(
      with<Granularity, LogitRate>({"polyz", "PolyZ", "the same, the weights alone", "Ostapenko et al. 2024, PolyZ"}, poly<false>));
  rows.push_back(with<Granularity, Heads, LogitRate>(
      {"mhr", "MHR", "as poly, with weights for each block of a projection", "Caccia et al. 2023, MHR"}, mhr<true>));
  rows.push_back(
      with<Granularity, Heads, LogitRate>({"mhrz", "MHR-z", "the same, the weights alone", "Caccia et al. 2023, MHR-z"}, mhr<false>));
  rows.push_back(with<LogitRate>({"weights", "weights", "one weight for each adapter, any number, by gradient", "Quiver"}, weights));
  rows.push_back(with<SearchChoice>(
      {"lorahub", "LoraHub", "one weight for each adapter, by a search without gradients", "Huang et al. 2023, LoraHub"}, lorahub));
  using Pi = LearningOptions<Retrieval, Granularity, LogitRate>;
  Schema<Pi> pi;  // near is what fisher says
  pi.add(&Pi::retrieve, "retrieve",
         {.help = "use so many adapters, the nearest to the task", .range = at_least(0), .unset = "4, or all of a smaller library"});
  Retrieval::describe_fisher(pi, "");
  Granularity::describe(pi);
  LogitRate::describe(pi);
  rows.push_back(
      row({"pi-tuning", "pi-tuning", "a new LoRA and the adapters of the nearest tasks, mixed by a softmax, all trained", "Wu et al. 2023"},
          pi, pi_tuning));
  return rows;
}

}  // namespace quiver::methods
