// For everything that is kept and found again: the key under which it is kept changes with each of its inputs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/methods/kept.h"
#include "quiver/methods/table.h"
#include "quiver/methods/test_support.h"
#include "quiver/recipes/adapt.h"
#include "quiver/recipes/build_library.h"
#include "quiver/recipes/evaluate.h"
#include "quiver/recipes/full_tuning.h"
#include "quiver/recipes/train_skills.h"
#include "quiver/tasks/select.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using quiver::testing::draw;
using ::testing::IsEmpty;
using ::testing::Not;

const fs::path kTiny = "tests/golden/model/llama-tied";
constexpr const char* kTemplate =
    "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}";

fs::path root() { return fs::path(::testing::TempDir()) / ("quiver-inputs-" + std::to_string(::getpid())); }

/// A copy of the tiny base with one file changed.
fs::path changed_base(const std::string& name, const char* file, const std::function<std::string(std::string)>& change) {
  const auto folder = root() / name;
  if (fs::exists(folder)) return folder;
  fs::create_directories(root());
  fs::copy(kTiny, folder);
  io::write_file_atomic(folder / file, change(io::read_text_file(kTiny / file)));
  return folder;
}

/// One weight in the middle of a tensor, where the fingerprint takes no sample.
fs::path base_of_another_weight() {
  return changed_base("weight", "model.safetensors", [](std::string bytes) {
    const auto size = static_cast<std::size_t>(*reinterpret_cast<const std::uint64_t*>(bytes.data()));
    const auto header = nlohmann::json::parse(bytes.substr(8, size));
    const auto place = header.at("model.layers.0.mlp.up_proj.weight").at("data_offsets").get<std::vector<std::size_t>>();
    bytes[8 + size + (place[0] + place[1]) / 2] ^= 1;
    return bytes;
  });
}

fs::path base_of_another_configuration() {
  return changed_base("configuration", "config.json", [](std::string text) { return text.replace(text.find("1e-05"), 5, "1e-06"); });
}

text::Tokenizer another_tokenizer() {
  auto description = io::read_json_file(kTiny / "tokenizer.json");
  auto& merges = description["model"]["merges"];
  merges.erase(merges.end() - 30, merges.end());
  return text::Tokenizer::from_tokenizer_json(description, "another").with_special_ids(1, {2}, 2);
}

/// Everything that cached things are made from. Changes are made to a copy.
struct World {
  methods::BaseModel base = methods::load_base(kTiny, {torch::kCPU, torch::kFloat});
  std::vector<adapters::LoraAdapter> adapters;           ///< of the library: "a0", "a1", "a2"
  std::map<std::string, std::vector<std::string>> rows;  ///< sources by task: "a0", ... of the adapters, "t0", "t1" to train on
  methods::AnyMethod choice;                             ///< and options of the methods of adaptation
  TrainingSetup training;
  SkillSetup skills;
  AdaptSetup adapting;
  EvalSetup evaluation;
  int eval_rows = 1;
  std::string question = "which";

  World() {
    for (const char* name : {"a0", "a1", "a2"}) {
      auto adapter = adapters::initial_adapter(name, {}, base.lm.linears(), 1);
      for (auto& [path, pair] : adapter.pairs) {
        const auto seed = derive_seed(7, name + path);
        pair = adapters::LoraPair(pair.lora_a() + draw(pair.lora_a().sizes(), seed, 0.05), draw(pair.lora_b().sizes(), seed + 1, 0.1),
                                  pair.alpha());
      }
      adapters.push_back(std::move(adapter));
    }
    for (const char* task : {"a0", "a1", "a2", "t0", "t1"}) {
      for (int i = 0; i < 8; ++i) rows[task].push_back(format("{} reads the answer {} twice", task, i));
    }
    choice = {.source = {.library = library_path().string()},
              .options = {{"task_data", tasks().string()},
                          {"gate_steps", 2},
                          {"task_samples", 2},
                          {"calibration_prompts", 4},
                          {"calibration_tokens", 6}}};
    training.data = tasks();
    training.tasks = {"t0"};
    training.max_examples = 4;
    training.max_valid = 1;
    training.checkpoint_seconds = 0;
    training.train.epochs = 2;
    training.train.batch_size = 2;
    skills.num_skills = 2;
    evaluation.rows.max_new_tokens = 2;
    evaluation.work = root() / "run/work";
  }
  static fs::path library_path() { return root() / "run/library"; }
  static fs::path pack() { return root() / "run/pack"; }
  static fs::path tasks() { return pack() / "train"; }

  /// Writes the adapters and rows to an empty folder.
  library::Library write() const {
    io::remove_tree(root() / "run");
    fs::create_directories(tasks());
    for (const auto& [task, sources] : rows) {
      std::ofstream lines(tasks() / (task + ".jsonl"));
      for (std::size_t i = 0; i < sources.size(); ++i) {
        const char* split = i < 4 ? "train" : i < 6 ? "valid" : "test";
        lines << nlohmann::json{{"split", split}, {"id", std::to_string(i)}, {"source", sources[i]}, {"target", "positive"}} << "\n";
      }
    }
    fs::create_directories(pack() / "heldout_mc");
    std::ofstream quiz(pack() / "heldout_mc/quiz.jsonl");
    for (int i = 0; i < 2; ++i) {
      quiz << nlohmann::json{{"split", "test"},     {"id", std::to_string(i)},       {"mode", "choice"},
                             {"context", question}, {"choices", {"answer", "text"}}, {"label", i}}
           << "\n";
    }
    auto library = library::Library::create(library_path(), {base.lm.spec().name, base.lm.fingerprint()});
    for (auto adapter : adapters) {
      adapter.base_fingerprint = base.lm.fingerprint();
      library.add(adapter, {.tasks = {adapter.name}});
    }
    return library;
  }
};

using Keys = std::set<std::string>;
using Change = std::pair<std::string, std::function<void(World&)>>;

/// A thing that is kept: the keys under which a world's are, and what changes them.
struct Cached {
  std::string name;
  std::function<Keys(const World&)> keys;
  std::vector<Change> changes;
};

void PrintTo(const Cached& cached, std::ostream* out) { *out << cached.name; }

std::vector<Change> operator+(std::vector<Change> some, const std::vector<Change>& more) {
  some.insert(some.end(), more.begin(), more.end());
  return some;
}

// ---- Where keys are found

/// Keys of the library's artifacts of a kind.
Keys artifacts(const library::Library& library, const std::string& what) {
  Keys keys;
  for (const auto& entry : fs::directory_iterator(library.path() / "artifacts")) {
    const auto key = entry.path().stem().string();
    if (entry.path().extension() == ".json" && library.find_artifact_meta(key)->at("what") == what) keys.insert(key);
  }
  return keys;
}

auto of_method(const char* method, const std::string& what) {
  return [=](const World& world) {
    const auto library = world.write();
    auto choice = world.choice;
    choice.method = method;
    NoProgress quiet;
    methods::adapted_model(world.base, choice.use(), quiet);
    return artifacts(library, what);
  };
}

std::string checkpoint_key(const fs::path& path) {
  const io::MappedFile file(path);
  return std::string(io::SafetensorsView::parse(file.bytes(), path.string()).metadata().at("quiver.key"));
}

Keys training_keys(const library::Library& library, const std::vector<TrainedAdapter>& trained) {
  Keys keys;
  for (const auto& adapter : trained) keys.insert(library.at(adapter.name).info.training.at("key").get<std::string>());
  return keys;
}

Keys private_keys(const World& world) {
  auto library = world.write();
  NoProgress quiet;
  return training_keys(library, train_private(world.base, library, world.training, quiet));
}

Keys cluster_keys(const World& world) {
  auto library = world.write();
  NoProgress quiet;
  library.set_groups({{"c0", {"t0", "t1"}}}, {});
  return training_keys(library, train_clusters(world.base, library, world.training, quiet));
}

Keys skill_keys(const World& world) {
  auto library = world.write();
  NoProgress quiet;
  auto training = world.training;
  training.tasks.emplace_back("t1");
  return training_keys(library, train_skills(world.base, library, training, world.skills, quiet));
}

/// Of the checkpoints or of the search that adapting by a method leaves in its folder.
auto of_adapting(const char* method, const std::string& file) {
  return [=](const World& world) {
    world.write();
    auto setup = world.adapting;
    setup.training = world.training;
    setup.method = method;
    setup.members = world.choice.source;
    setup.work = root() / "run/work";
    auto given = world.choice.options;
    given.update({{"evaluations", 2}, {"search", "one-plus-one"}});
    for (const auto& [name, value] : given.items()) {
      const auto* option = methods::find_option(methods::learning_method(method).options, name);
      if (option != nullptr && option->about.needs != "retrieve_by=fisher") setup.options[name] = value;
    }
    NoProgress quiet;
    adapt(world.base, setup, quiet);
    const auto path = setup.work / file;
    return Keys{file.ends_with(".json") ? io::read_json_file(path).at("key").get<std::string>() : checkpoint_key(path)};
  };
}

Keys fisher_keys(const World& world) {
  const auto library = world.write();
  AdaptSetup setup{.training = world.training, .members = world.choice.source, .method = "mean"};
  setup.options = {{"retrieve", 1},
                   {"retrieve_by", "fisher"},
                   {"task_data", world.choice.options.at("task_data")},
                   {"task_samples", world.choice.options.at("task_samples")}};
  setup.work = root() / "run/work";
  NoProgress quiet;
  adapt(world.base, setup, quiet);
  return artifacts(library, "fisher-3");
}

/// Ends work after its first step.
struct Interrupting : NoProgress {
  int steps = 0;
  void advance(std::int64_t, std::string_view) override {
    if (++steps == 2) fail(ErrorKind::kInterrupted, "stopped by the test");
  }
};

Keys full_keys(const World& world) {
  world.write();
  Interrupting progress;
  EXPECT_ERROR(full_fine_tuning(world.base, world.training, root() / "run/full", progress), ErrorKind::kInterrupted, "stopped by the test");
  return {checkpoint_key(root() / "run/full.parts/full.safetensors")};
}

auto of_part(const char* method, const char* section) {
  return [=](const World& world) {
    world.write();
    auto setup = world.evaluation;
    setup.given.source = world.choice.source;
    auto chosen = parse_eval_method(method);
    if (chosen.what == EvalMethod::What::kOverKind) {
      auto with_options = world.choice;
      with_options.method = chosen.use.name;
      chosen.use = with_options.use().method;
    }
    setup.methods = {chosen};
    const bool is_choice = section == std::string("choice");
    setup.tasks = tasks::select_tasks({.data = World::pack(),
                                       .names = is_choice ? "mc/quiz" : "upstream/t0",
                                       .limits = {std::to_string(is_choice ? 0 : world.eval_rows)}});
    NoProgress quiet;
    evaluate(world.base, setup, quiet);
    io::JsonLinesReader lines(setup.work / format("{}-{}.jsonl", method, section));
    Keys keys = {lines.next()->at("value").at("key").get<std::string>()};
    while (const auto chunk = lines.next()) {
      for (const auto& [task, key] : chunk->at("value").at("tasks").items()) keys.insert(key.get<std::string>());
    }
    return keys;
  };
}

// ---- What changes

const std::vector<Change> kOtherBase = {
    {"a weight", [](World& w) { w.base.lm = model::load_model(base_of_another_weight(), w.base.lm.placement()); }},
    {"the configuration", [](World& w) { w.base.lm = model::load_model(base_of_another_configuration(), w.base.lm.placement()); }},
    {"the dtype", [](World& w) {
       w.base = methods::load_base(kTiny, {torch::kCPU, torch::kDouble});
     }}};

const Change kChat = {"the chat template", [](World& w) { w.base.format.chat = text::ChatTemplate(kTemplate, "test", w.base.tokenizer); }};

/// Of text that becomes tokens: rows of the task.
std::vector<Change> text_of(const std::string& task) {
  return {{"the tokenizer", [](World& w) { w.base.tokenizer = another_tokenizer(); }}, kChat, {"a row", [task](World& w) {
                                                                                                 w.rows[task][0] += " more";
                                                                                               }}};
}

const Change kFactor = {"a factor", [](World& w) {
                          auto& pair = w.adapters[0].pairs.begin()->second;
                          pair = adapters::LoraPair(pair.lora_a() + draw(pair.lora_a().sizes(), 3, 0.05), pair.lora_b(), pair.alpha());
                        }};
const Change kScaling = {"the scalings", [](World& w) {  // of all, since those of adapters that are mixed must agree
                           for (auto& adapter : w.adapters) {
                             for (auto& [path, pair] : adapter.pairs)
                               pair = adapters::LoraPair(pair.lora_a(), pair.lora_b(), pair.alpha() * 2);
                           }
                         }};
const Change kSamples = {"the number of texts", [](World& w) { w.choice.options["task_samples"] = 3; }};
const Change kSeed = {"the seed of samples", [](World& w) { w.choice.options["sample_seed"] = 4; }};
const Change kMembers = {"the members", [](World& w) { w.choice.source.names = {"a0", "a1"}; }};

const std::vector<Change> kTraining = {{"the number of rows", [](World& w) { w.training.max_examples = 3; }},
                                       {"the share of rows", [](World& w) { w.training.data_share = 0.5; }},
                                       {"the longest row", [](World& w) { w.training.max_length = 6; }},
                                       {"validation rows", [](World& w) { w.training.max_valid = 2; }},
                                       {"epochs", [](World& w) { w.training.train.epochs = 3; }},
                                       {"the batch", [](World& w) { w.training.train.batch_size = 1; }},
                                       {"the seed", [](World& w) { w.training.train.seed = 1; }},
                                       {"the loss", [](World& w) { w.training.train.loss_mean = train::LossMean::kTokens; }},
                                       {"shared prefixes", [](World& w) { w.training.train.share_prefixes = false; }},
                                       {"pieces of a batch", [](World& w) { w.training.train.micro_batch_tokens = 100; }},
                                       {"steps between validations", [](World& w) { w.training.train.validate_every = 1; }},
                                       {"patience", [](World& w) { w.training.train.patience = 9; }},
                                       {"the rate", [](World& w) { w.training.train.optimizer.learning_rate = 2e-4; }},
                                       {"the schedule", [](World& w) { w.training.train.optimizer.schedule = train::Schedule::kCosine; }},
                                       {"warm-up", [](World& w) { w.training.train.optimizer.warmup_fraction = 0.5; }},
                                       {"LoRA+", [](World& w) { w.training.train.optimizer.lora_plus_ratio = 2; }},
                                       {"beta1", [](World& w) { w.training.train.optimizer.beta1 = 0.8; }},
                                       {"beta2", [](World& w) { w.training.train.optimizer.beta2 = 0.99; }},
                                       {"epsilon", [](World& w) { w.training.train.optimizer.epsilon = 1e-6; }},
                                       {"decay", [](World& w) { w.training.train.optimizer.weight_decay = 0.1; }},
                                       {"clipping", [](World& w) { w.training.train.optimizer.max_grad_norm = 2; }}};

const std::vector<Change> kLora = {{"the rank", [](World& w) { w.training.lora.rank = 2; }},
                                   {"alpha", [](World& w) { w.training.lora.alpha = 8; }},
                                   {"dropout", [](World& w) { w.training.lora.dropout = 0.1; }},
                                   {"rsLoRA", [](World& w) { w.training.lora.use_rslora = true; }},
                                   {"target modules", [](World& w) { w.training.lora.target_modules = {"v_proj"}; }},
                                   {"the first lora_a", [](World& w) { w.training.init = adapters::LoraInit::kPeft; }}};

/// Of trainings that take the same TrainingInputs and FreshAdapter as private adapters do: enough to see that they do.
const std::vector<Change> kSomeTraining = {kTraining[0], kTraining[3], kTraining[4], kTraining[6]};
const std::vector<Change> kSomeLora = {kLora[0], kLora[5]};

const std::vector<Change> kSkills = {{"skills", [](World& w) { w.skills.num_skills = 3; }},
                                     {"the kind", [](World& w) { w.skills.kind = library::AdapterKind::kMhr; }},
                                     {"heads", [](World& w) { w.skills.shape.num_heads = 2; }},
                                     {"granularity", [](World& w) { w.skills.shape.unit = merge::MixUnit::kModel; }},
                                     {"the rule", [](World& w) { w.skills.shape.rule = merge::MixRule::kSoftmax; }},
                                     {"the rate of logits", [](World& w) { w.skills.logit_rate = 0.2; }},
                                     {"the spread of logits", [](World& w) { w.skills.initial_spread = 0.1; }},
                                     {"sampled weights", [](World& w) { w.skills.sample_weights = true; }}};

const std::vector<Change> kParts = {{"an id that ends answers",
                                     [](World& w) {
                                       w.base.tokenizer = w.base.tokenizer.with_special_ids(1, {2, 7}, 2);
                                     }},
                                    {"the tasks of an adapter", [](World& w) { w.adapters[2].name = "t1"; }},
                                    {"the longest answer", [](World& w) { w.evaluation.rows.max_new_tokens = 3; }},
                                    {"answers at all", [](World& w) { w.evaluation.rows.generates = false; }},
                                    {"the longest prompt", [](World& w) { w.evaluation.rows.max_length = 6; }},
                                    {"the number of rows", [](World& w) { w.eval_rows = 2; }},
                                    {"an option of the method", [](World& w) { w.choice.options["top_k"] = 2; }}};

std::vector<Cached> cached_things() {
  const Change general = {"the general adapter", [](World& w) { w.choice.source.general = {"a2"}; }};
  const std::vector<Change> adapter = {kFactor, kScaling};
  const std::vector<Change> of_texts = kOtherBase + text_of("a0") + std::vector{kSamples, kSeed};
  return {{"Prototypes", of_method("calibrated-arrow", "arrow-prototypes-3"), adapter},
          {"Samples", of_method("gated-arrow", "base-samples-3"),
           kOtherBase +
               std::vector<Change>{kChat,
                                   kSeed,
                                   {"the first token", [](World& w) { w.base.tokenizer = w.base.tokenizer.with_special_ids(5, {2}, 2); }},
                                   {"their number", [](World& w) { w.choice.options["calibration_prompts"] = 5; }},
                                   {"their length", [](World& w) { w.choice.options["calibration_tokens"] = 5; }}}},
          {"Calibration", of_method("gated-arrow", "score-calibration-4"), kOtherBase + std::vector{kFactor, kSeed, general}},
          {"Gates", of_method("phatgoose", "phatgoose-3"),
           kOtherBase + text_of("a0") + adapter +
               std::vector<Change>{kSeed, general, {"steps", [](World& w) { w.choice.options["gate_steps"] = 4; }}}},
          {"MeanInputs", of_method("centroids", "mean-inputs-3"),
           of_texts + std::vector<Change>{{"adapted projections",
                                           [](World& w) {
                                             for (auto& each : w.adapters) each.pairs.erase(each.pairs.begin());
                                           }}}},
          {"MeanHiddenStates", of_method("retrieval", "mean-hidden-3"), of_texts},
          {"TaskPredictor", of_method("task-predictor", "task-predictor-3"), of_texts + std::vector{kMembers}},
          {"Fisher", fisher_keys, kOtherBase + text_of("a0") + adapter + std::vector{kSamples}},
          {"PrivateAdapters", private_keys,
           kOtherBase + text_of("t0") + kTraining + kLora +
               std::vector<Change>{{"DoRA", [](World& w) { w.training.lora.use_dora = true; }},
                                   {"adapters in a batch", [](World& w) { w.training.together = 2; }}}},
          {"ClusterAdapters", cluster_keys, kOtherBase + text_of("t1") + kSomeTraining + kSomeLora},
          {"Skills", skill_keys, kOtherBase + text_of("t1") + kSomeTraining + kSomeLora + kSkills},
          {"AdaptingAnAdapter", of_adapting("mean", "mean.safetensors"),
           kOtherBase + text_of("t0") + kSomeTraining + adapter + std::vector{general, kMembers}},
          {"AdaptingAMixture", of_adapting("poly", "poly-projection-1.safetensors"),
           kOtherBase + text_of("t0") + kSomeTraining + adapter +
               std::vector<Change>{general, kMembers, {"the rate of logits", [](World& w) { w.choice.options["logit_lr"] = 0.2; }}}},
          {"SearchingWeights", of_adapting("lorahub", "search.json"),
           kOtherBase + text_of("t0") + adapter +
               std::vector<Change>{general,
                                   kMembers,
                                   {"rows", [](World& w) { w.choice.options["search_rows"] = 1; }},
                                   {"the objective", [](World& w) { w.choice.options["objective"] = "loss"; }},
                                   {"the penalty", [](World& w) { w.choice.options["penalty"] = 0.1; }},
                                   {"the longest answer", [](World& w) { w.choice.options["max_new_tokens"] = 3; }},
                                   {"the longest row", [](World& w) { w.training.max_length = 6; }}}},
          {"TheModelItself", full_keys, kOtherBase + text_of("t0") + kSomeTraining},
          {"EvaluatedRows", of_part("private-retrieval", "train"),
           kOtherBase + text_of("a0") + adapter + kParts +
               std::vector<Change>{kSamples,
                                   {"a row",
                                    [](World& w) {
                                      for (auto& row : w.rows["t0"]) row += " more";
                                    }}}},
          {"EvaluatedBase", of_part("base", "train"), kOtherBase},
          {"EvaluatedQuestions", of_part("private-arrow", "choice"),
           kOtherBase + adapter + std::vector<Change>{{"a question", [](World& w) { w.question = "what"; }}}}};
}

class CachedThing : public ::testing::TestWithParam<Cached> {
 protected:
  void TearDown() override { io::remove_tree(root()); }
};

TEST_P(CachedThing, IsFoundAgainUnlessAnInputChanged) {
  const World world;
  const auto first = GetParam().keys(world);
  ASSERT_THAT(first, Not(IsEmpty()));
  EXPECT_EQ(GetParam().keys(world), first);
  for (const auto& [name, change] : GetParam().changes) {
    World changed = world;
    change(changed);
    EXPECT_NE(GetParam().keys(changed), first) << "not in the key: " << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, CachedThing, ::testing::ValuesIn(cached_things()), [](const auto& cached) { return cached.param.name; });

// ---- What is kept is not computed again

struct Doubled {
  std::int64_t number = 0;
  void add_to(methods::ArtifactKey& key) const {
    const auto& [value] = *this;
    key.add_value(value);
  }
};

int num_computed = 0;

tensor::TensorMap twice(const Doubled& inputs, Progress&) {
  ++num_computed;
  return {{"twice", torch::tensor({inputs.number * 2})}};
}

TEST(KeptIn, ComputesOnceForEachInput) {
  const auto library = World().write();
  NoProgress quiet;
  num_computed = 0;
  for (const std::int64_t number : {3, 3, 4}) {
    EXPECT_EQ(methods::kept_in(library, "twice-1", {}, Doubled{number}, twice, quiet).at("twice").item<std::int64_t>(), 2 * number);
  }
  EXPECT_EQ(num_computed, 2);
  io::remove_tree(root());
}

}  // namespace
}  // namespace quiver::recipes
