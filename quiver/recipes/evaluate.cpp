#include "quiver/recipes/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iterator>
#include <ranges>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/module_path.h"
#include "quiver/base/near.h"
#include "quiver/data/prompt_format.h"
#include "quiver/data/tasks.h"
#include "quiver/eval/score.h"
#include "quiver/io/json.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/methods/table.h"
#include "quiver/metrics/choice.h"
#include "quiver/metrics/rouge.h"
#include "quiver/model/generate.h"
#include "quiver/recipes/kept_json.h"
#include "quiver/results/summarize.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kKinds[] = {"private", "cluster", "imported", "poly", "mhr"};

/// Whether a task's own adapter is a mixture of all of the kind.
bool is_mixed(const std::string& kind) { return kind == "poly" || kind == "mhr"; }

/// Whether a name begins with a kind of adapters that can be evaluated.
bool has_kind(const std::string& name) {
  return std::ranges::any_of(kKinds, [&](const std::string& kind) { return name.starts_with(kind + "-") || name.starts_with(kind + "/"); });
}

/// The rows of a section, tokenised once for all methods.
struct TaskRows {
  std::string task;
  std::vector<data::Example> examples;             // train, instruction
  std::vector<data::Question> questions;           // choice
  std::vector<forest::Sequence> sequences;         // train: source and first target; choice: all choices in order
  std::vector<std::vector<std::int32_t>> prompts;  // train, instruction
  std::vector<std::string> names;                  // of the sequences, for messages
};

std::vector<TaskRows> load_rows(const methods::BaseModel& base, const EvalSection& section, bool is_choice, const EvalSetup& setup) {
  std::vector<TaskRows> rows;
  if (section.data.empty()) return rows;
  const auto length = methods::longest_prompt(base, setup.max_length, setup.max_new_tokens);
  const auto format = data::of_last_answer(base.format);
  for (const auto& name : section.tasks) {
    TaskRows task{.task = name};
    if (is_choice) {
      auto questions = data::load_questions(section.data, name);
      if (section.max_rows > 0 && section.max_rows < static_cast<std::int64_t>(questions.size())) {
        RandomStream(setup.seed, "sample/" + name).shuffle(questions);
        questions.resize(static_cast<std::size_t>(section.max_rows));
      }
      for (const auto& question : questions) {
        for (std::size_t i = 0; i < question.choices.size(); ++i) {
          // The space between context and choice is for one running text; in a conversation the template separates them, as lm-eval has it.
          std::string_view continuation = question.continuations[i];
          if (base.format.chat && continuation.starts_with(' ')) continuation.remove_prefix(1);
          task.sequences.push_back(data::encode_request(base.tokenizer, base.format, question.contexts[i], continuation, question.where));
          task.names.push_back(question.where);
        }
      }
      eval::check_context(base.lm, task.sequences);
      task.questions = std::move(questions);
    } else {
      task.examples = data::sample(data::load_task(section.data, name).test, section.max_rows, setup.seed, name);
      if (task.examples.empty()) fail(ErrorKind::kUsage, "task '{}' has no test rows in '{}'", name, section.data.string());
      for (const auto& example : task.examples) {
        task.sequences.push_back(data::encode_example(base.tokenizer, format, example, length));
        task.names.push_back(example.where);
        if (setup.generates) task.prompts.push_back(data::encode_prompt(base.tokenizer, base.format, example, length));
      }
    }
    rows.push_back(std::move(task));
  }
  return rows;
}

/// The adapters that a method means. An oracle's method is "oracle", whatever the task.
methods::AdapterUse use_of(const EvalMethod& method, const methods::AdapterUse& given) {
  if (method.what == EvalMethod::What::kGiven) return given;
  if (method.what == EvalMethod::What::kBase) return {};
  methods::AdapterUse use{.source = given.source, .method = method.use};
  use.source.adapter.clear();
  use.source.names.clear();
  use.source.kind = method.kind;
  return use;
}

/// The adapters of a method; for an oracle, of the given task. Nothing if there are none.
std::optional<methods::AdapterUse> use_for(const EvalMethod& method, const EvalSetup& setup, const library::Library* library,
                                           const std::string& task) {
  auto use = use_of(method, setup.given);
  if (method.what != EvalMethod::What::kOverKind) return use;
  if (library == nullptr) fail(ErrorKind::kUsage, "evaluation method '{}' needs `library`", method.name);
  if (!method.is_oracle() || use.method.options.contains("name")) return use;
  if (is_mixed(method.kind)) {
    use.method = {.name = "task", .options = {{"name", task}}};
    return use;
  }
  for (const auto& [name, entry] : library->adapters()) {
    if (method.kind == library::kind_name(entry.info.kind) && std::ranges::find(entry.info.tasks, task) != entry.info.tasks.end()) {
      use.method.options["name"] = name;
      return use;
    }
  }
  return std::nullopt;
}

std::vector<results::Metric> metrics() {
  using enum results::Better;
  return {{.name = "nll", .label = "NLL of the target", .unit = "nats/token", .better = kLower},
          {.name = "rouge_l", .label = "Rouge-L", .unit = "", .better = kHigher},
          {.name = "acc", .label = "Accuracy", .unit = "", .better = kHigher},
          {.name = "acc_norm", .label = "Accuracy, length-normalised", .unit = "", .better = kHigher}};
}

/// Evaluates one method on one section.
class SectionRun {
 public:
  SectionRun(const methods::BaseModel& base, const EvalSetup& setup, const library::Library* library, Progress& progress)
      : base_(base), setup_(setup), library_(library), progress_(progress) {}

  /// The samples and, of section "train", how the method routes.
  results::Results run(const EvalMethod& method, const std::string& section, const std::vector<TaskRows>& rows) {
    std::int64_t total = 0;
    for (const auto& task : rows)
      total += static_cast<std::int64_t>(task.sequences.size() * (section != "choice" && setup_.generates ? 2 : 1));
    progress_.begin(format("eval {} {}", method.name, section), total, "rows");
    part_ = {.metrics = metrics()};
    method_ = method.name;
    section_ = section;
    if (method.is_oracle()) {
      for (const auto& task : rows) {
        if (const auto use = use_for(method, setup_, library_, task.task)) run_tasks(*use, std::span(&task, 1));
      }
    } else {
      run_tasks(*use_for(method, setup_, library_, ""), rows);
    }
    progress_.end();
    if (section == "train") add_routing(method.kind);
    return std::move(part_);
  }

 private:
  void run_tasks(const methods::AdapterUse& use, std::span<const TaskRows> rows) {
    recorder_.clear();
    const auto model = methods::adapted_model(base_, use, progress_, &recorder_);
    if (!use.source.library.empty() && use.method.row().family != methods::Family::kMerge) {
      adapters_ = methods::library_members(library::Library::open(use.source.library), use.source);
    }
    std::vector<std::size_t> first_sample;  // of each task in part_.samples
    for (const auto& task : rows) {
      first_sample.push_back(part_.samples.size());
      recorder_.set_tag(task.task);
      if (section_ == "choice") {
        score_questions(model, task);
      } else {
        score_targets(model, task);
      }
    }
    recorder_.set_tag("");  // what generation chooses is not of one task
    if (section_ != "choice" && setup_.generates) generate_answers(model, rows, first_sample);
  }

  results::Sample& add_sample(const TaskRows& task, const std::string& id) {
    part_.samples.push_back({.section = section_, .method = method_, .task = task.task, .id = id});
    return part_.samples.back();
  }

  void score_questions(const methods::AdaptedModel& model, const TaskRows& task) {
    const auto scores = score(model, task);
    std::size_t next = 0;
    for (const auto& question : task.questions) {
      auto& sample = add_sample(task, question.id);
      for (std::size_t i = 0; i < question.choices.size(); ++i) sample.log_probs.push_back(scores[next++].log_prob);
      sample.label = question.label;
      const auto hit = [&](std::int64_t choice) { return choice == question.label ? 1.0 : 0.0; };
      sample.metrics = {{"acc", hit(metrics::best_choice(sample.log_probs))},
                        {"acc_norm", hit(metrics::best_choice_normalized(sample.log_probs, question.choices))}};
    }
  }

  std::string name_of(const methods::AdaptedModel& model) const { return format("evaluation method '{}', {},", method_, model.name); }

  std::vector<eval::SequenceScore> score(const methods::AdaptedModel& model, const TaskRows& task) {
    auto sequences = task.sequences;
    const auto leases = model.assign_groups(sequences, quiet_);
    return eval::score_sequences(model.lm, sequences, {.names = {name_of(model), task.names}}, progress_);
  }

  void score_targets(const methods::AdaptedModel& model, const TaskRows& task) {
    const auto scores = score(model, task);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      auto& sample = add_sample(task, task.examples[i].id);
      sample.metrics = {{"nll", -scores[i].mean_log_prob()}};
      sample.num_tokens = std::ssize(scores[i].token_log_probs);
    }
  }

  void generate_answers(const methods::AdaptedModel& model, std::span<const TaskRows> rows, const std::vector<std::size_t>& first_sample) {
    std::vector<std::vector<std::int32_t>> prompts;
    std::vector<std::string> names;
    for (const auto& task : rows) {
      prompts.insert(prompts.end(), task.prompts.begin(), task.prompts.end());
      names.insert(names.end(), task.names.begin(), task.names.end());
    }
    const schedule::RequestOptions request{.max_new_tokens = setup_.max_new_tokens,
                                           .stop_ids = data::stop_ids(base_.tokenizer, base_.format)};
    model::GenerateOptions options{.stop = process_stop()};
    std::vector<std::vector<std::int32_t>> answers;
    for (std::size_t first = 0; first < prompts.size(); first += static_cast<std::size_t>(options.max_batch)) {
      const auto count = std::min(prompts.size() - first, static_cast<std::size_t>(options.max_batch));
      const auto some = std::span(prompts).subspan(first, count);
      options.groups = model.groups_of(some, quiet_);
      options.names = {name_of(model),
                       {names.begin() + static_cast<std::ptrdiff_t>(first), names.begin() + static_cast<std::ptrdiff_t>(first + count)}};
      for (auto& answer : model::generate(model.lm, some, request, options)) answers.push_back(std::move(answer));
      progress_.advance(static_cast<std::int64_t>(count), "");
      throw_if_stopped("while evaluating; finished parts are kept");
    }
    std::size_t next = 0;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      for (std::size_t i = 0; i < rows[t].examples.size(); ++i, ++next) {
        auto& sample = part_.samples[first_sample[t] + i];
        auto prediction = base_.tokenizer.decode(answers[next], /*skip_special=*/true);
        prediction.erase(0, prediction.find_first_not_of(" \n"));
        sample.targets = rows[t].examples[i].targets;
        sample.metrics.emplace_back("rouge_l", metrics::best_rouge_l(sample.targets, prediction));
        sample.prediction = std::move(prediction);
      }
    }
  }

  /// Shares per task and layer, averaged over the layer's projections.
  void add_routing(const std::string& kind) {
    results::LibraryRouting routing{.library = kind, .method = method_, .adapters = adapters_};
    for (const auto& [tag, by_path] : recorder_.usage()) {
      if (tag.empty() || adapters_.empty()) continue;
      std::map<std::int64_t, std::pair<std::string, std::vector<double>>> layers;  // by number
      for (const auto& [path, usage] : by_path) {
        const auto block = block_of(path);
        auto& [name, share] = layers[block.number];
        name = block.name;
        share.resize(adapters_.size(), 0.0);
        for (std::size_t i = 0; i < share.size(); ++i) share[i] += usage.weight[i];
      }
      results::TaskRouting task{.task = tag};
      for (auto& [number, layer] : layers) {
        auto& [name, share] = layer;
        double total = 0;
        for (const double s : share) total += s;
        for (double& s : share) s = total > 0 ? s / total : 0;
        task.layers.push_back({name, std::move(share)});
      }
      routing.tasks.push_back(std::move(task));
    }
    if (!routing.tasks.empty()) part_.routing.push_back(std::move(routing));
  }

  const methods::BaseModel& base_;
  const EvalSetup& setup_;
  const library::Library* library_;
  Progress& progress_;
  NoProgress quiet_;  // for passes that only look at prompts
  routing::RoutingRecorder recorder_;
  std::vector<std::string> adapters_;
  std::string method_, section_;
  results::Results part_;
};

/// The file of a finished part: the method's name where that names a file, else with a hash of it.
std::string part_name(const std::string& method, const std::string& section) {
  auto plain = method.substr(0, method.find('('));
  std::ranges::replace(plain, '/', '-');
  std::ranges::replace(plain, '=', '-');
  if (plain != method) plain += "-" + sha256_hex(method).substr(0, 8);
  return format("{}-{}.json", plain, section);
}

/// What a finished part depends on.
struct PartInputs {
  const methods::BaseModel& base;
  const EvalSetup& setup;
  const EvalMethod& method;
  std::string section;
  const std::vector<TaskRows>& rows;

  void add_to(methods::ArtifactKey& key) const {
    const auto& [model, options, of_method, of_section, tasks] = *this;
    // Sections, longest prompt and seed decide which rows there are; the other methods and the folder have no part in this one.
    const auto& [train, instruction, choice, eval_methods, given, for_the_record, generates, max_new_tokens, max_length, seed, work] =
        options;
    key.add(model).add(of_section).add_values(generates, max_new_tokens);
    methods::add_to_key(key.add(of_method.name), use_of(of_method, given));
    key.add_value(tasks.size());
    for (const auto& [task, examples, questions, sequences, prompts, names] : tasks) {  // names are for messages of errors
      key.add(task).add(examples).add(sequences).add(prompts).add_value(questions.size());
      for (const auto& [id, choices, contexts, continuations, label, where] : questions) {
        key.add(id).add_values(choices, contexts, continuations, label);
      }
    }
  }
};

std::string iso_time() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void add_tasks(results::Results& results, const std::string& section, const std::vector<TaskRows>& rows, const library::Library* library) {
  for (const auto& task : rows) {
    const auto size = section == "choice" ? task.questions.size() : task.examples.size();
    results::Task entry{.name = task.task, .kind = section, .num_samples = static_cast<std::int64_t>(size)};
    if (library != nullptr && section == "train") {
      for (const auto& [group, tasks] : library->groups()) {
        if (std::ranges::find(tasks, task.task) != tasks.end()) entry.group = group;
      }
    }
    results.tasks.push_back(std::move(entry));
  }
}

/// Training curves and clusters, as the library has them.
void add_library(results::Results& results, const library::Library& library) {
  for (const auto& [name, entry] : library.adapters()) {
    const auto& training = entry.info.training;
    if (!training.contains("losses")) continue;
    const auto where = format("adapter '{}' of library '{}'", name, library.path().string());
    io::require_array(training, "losses", where);
    const auto number = [&](const char* key) { return io::find_double(training, key, where).value_or(NAN); };
    results::Curve curve{.adapter = name,
                         .kind = library::kind_name(entry.info.kind),
                         .loss = results::numbers_of(training, "losses", where),
                         .tokens = number("tokens"),
                         .rows = number("rows"),
                         .seconds = number("seconds"),
                         .tokens_per_second = number("tokens_per_second")};
    for (std::size_t i = 0; i < curve.loss.size(); ++i) curve.steps.push_back(static_cast<double>(i + 1));
    results.training.push_back(std::move(curve));
    if (training.contains("settings")) {
      results.settings[std::string("training ") + library::kind_name(entry.info.kind)] = training.at("settings");
    }
  }
  const auto& provenance = library.groups_provenance();
  if (provenance.is_object() && provenance.contains("similarity")) {
    const auto origin = format("the groups of library '{}'", library.path().string());
    for (const char* key : {"adapters", "labels", "similarity"}) io::require_array(provenance, key, origin);
    results.clusters = results::clusters_of({{"clusters", provenance}}, origin);
    for (const char* key : {"sparsity", "seed", "by", "silhouette"}) results.settings["clustering"][key] = provenance.value(key, json());
  }
}

/// All that is known before anything is computed.
results::Results describe(const methods::BaseModel& base, const EvalSetup& setup, const library::Library* library) {
  const auto& config = base.lm.spec();
  results::Results results{.created = iso_time(),
                           .base = {.name = config.name,
                                    .fingerprint = base.lm.fingerprint(),
                                    .content = base.lm.content_hash(),
                                    .parameters = base.lm.num_parameters(),
                                    .dtype = results::dtype_name(c10::toString(base.lm.placement().dtype))},
                           .metrics = metrics()};
  results.settings["evaluation"] = {
      {"max_new_tokens", setup.max_new_tokens}, {"prompt format", data::describe(base.format)}, {"seed", setup.seed}};
  results.settings["evaluation"].update(setup.options);
  for (const auto& method : setup.methods) {
    results.methods.push_back(
        {.name = method.name, .label = method.label, .description = method.description, .is_oracle = method.is_oracle()});
  }
  if (library != nullptr) add_library(results, *library);
  return results;
}

}  // namespace

EvalMethod parse_eval_method(const std::string& name) {
  using What = EvalMethod::What;
  if (name == "base") return {.what = What::kBase, .name = name, .label = "Base", .description = "the model without adapters"};
  if (name == "given")
    return {.what = What::kGiven, .name = name, .label = "Given", .description = "the adapters named on the command line"};
  if (name == "shared") {
    return {.name = name,
            .kind = "shared",
            .use = {.name = "mean"},
            .label = "Shared",
            .description = "one adapter trained on the joint data of all tasks"};
  }
  const auto parsed = has_kind(name) ? methods::parse_name(name) : methods::ComposedName{};
  if (parsed.kind.empty()) fail(ErrorKind::kUsage, "no evaluation method '{}'{}", name, did_you_mean(name, eval_methods()));
  const auto& kind = parsed.kind;
  const auto& row = parsed.use.row();
  auto label = kind + ", " + row.label + methods::given_text(row.options, parsed.use.options);
  label[0] = static_cast<char>(std::toupper(label[0]));
  auto description = format("over the {} adapters: {}", kind, row.what);
  if (row.name == "oracle") {
    description = is_mixed(kind)      ? "the skills as the sample's own task mixes them"
                  : kind == "cluster" ? "the adapter of the cluster that the sample's task is in"
                                      : "the " + kind + " adapter of the sample's own task";
  }
  return {.name = name, .kind = kind, .use = parsed.use, .label = label, .description = description};
}

std::vector<std::string> eval_methods() {
  return {"base",         "shared",        "private-mean", "private-arrow",       "private-lag",    "private-gated-arrow",
          "cluster-mean", "cluster-arrow", "cluster-lag",  "cluster-gated-arrow", "private-oracle", "cluster-oracle"};
}

results::Results evaluate(const methods::BaseModel& base, const EvalSetup& setup, Progress& progress) {
  if (setup.methods.empty()) fail(ErrorKind::kUsage, "no evaluation method is named");
  std::optional<library::Library> library;
  if (!setup.given.source.library.empty()) library = library::Library::open(setup.given.source.library);
  io::WorkFolder work(setup.work);
  const auto* opened = library ? &*library : nullptr;
  const std::pair<const char*, const EvalSection*> sections[] = {
      {"train", &setup.train}, {"instruction", &setup.instruction}, {"choice", &setup.choice}};

  auto results = describe(base, setup, opened);
  for (const auto& [section, rows_of] : sections) {
    const auto rows = load_rows(base, *rows_of, std::string(section) == "choice", setup);
    if (rows.empty()) continue;
    add_tasks(results, section, rows, opened);
    results.settings[std::string("rows per task, ") + section] = rows_of->max_rows;
    for (const auto& method : setup.methods) {
      if (method.is_oracle() && std::string(section) != "train") continue;  // held-out tasks have no adapter of their own
      const auto key = methods::ArtifactKey("part-6").add(PartInputs{base, setup, method, section, rows}).hex();
      const auto path = work.is_set() ? work.file(part_name(method.name, section)) : fs::path();
      results::Results part;
      if (const auto kept = path.empty() ? std::nullopt : kept_json(path, key)) {
        part = results::from_json(*kept, path.string());
      } else {
        part = SectionRun(base, setup, opened, progress).run(method, section, rows);
        if (!path.empty()) keep_json(path, key, results::to_json(part));
      }
      std::ranges::move(part.samples, std::back_inserter(results.samples));
      std::ranges::move(part.routing, std::back_inserter(results.routing));
    }
  }
  if (results.tasks.empty()) fail(ErrorKind::kUsage, "nothing to evaluate: no section has tasks");
  results::summarize(results);
  return results;
}

}  // namespace quiver::recipes
