#include "quiver/tasks/task_config.h"

#include <algorithm>
#include <functional>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/regex/python_pattern.h"
#include "quiver/tasks/rows.h"
#include "quiver/tasks/task_keys.h"

namespace quiver::tasks {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// lm-evaluation-harness' number of new tokens where a task names none.
constexpr std::int64_t kMaxGenToks = 256;

[[noreturn]] void refuse_value(const TaskKeys& keys, const std::string& pointer, const std::string& what, const json& value) {
  fail(ErrorKind::kBadFormat, "{}: '{}' is {}; expected {}", keys.where(pointer), pointer.substr(1),
       value.dump(-1, ' ', true).substr(0, 80), what);
}

std::string text_at(const TaskKeys& keys, const std::string& pointer, const json& value) {
  if (!value.is_string()) refuse_value(keys, pointer, "a text", value);
  return value.get<std::string>();
}

std::optional<std::string> find_text(const TaskKeys& keys, const std::string& key) {
  const auto* value = keys.find(key);
  if (value == nullptr) return std::nullopt;
  return text_at(keys, "/" + key, *value);
}

/// A text, or a list of texts.
std::vector<std::string> texts_at(const TaskKeys& keys, const std::string& pointer, const json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array()) refuse_value(keys, pointer, "a text or a list of texts", value);
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < value.size(); ++i) texts.push_back(text_at(keys, format("{}/{}", pointer, i), value[i]));
  return texts;
}

void add_files(TaskConfig& config, const TaskKeys& keys, const std::string& split, const std::string& pointer, const json& value) {
  const auto names = texts_at(keys, pointer, value);
  if (names.empty()) refuse_value(keys, pointer, "the name of a file", value);
  for (const auto& name : names) {
    if (name.find("://") != std::string::npos)
      fail(ErrorKind::kUnsupported, "{}: '{}' is no local file; download it, and name the copy", keys.where(pointer), name);
    const auto beside = keys.folder_of("dataset_kwargs") / name;
    if (!fs::exists(beside) && !fs::exists(name))
      fail(ErrorKind::kNotFound, "{}: there is no file '{}', neither as '{}' nor in the working directory", keys.where(pointer), name,
           beside.string());
    config.data_files[split].push_back(fs::exists(beside) ? beside : fs::path(name));
  }
}

void read_data(TaskConfig& config, const TaskKeys& keys) {
  const auto path = find_text(keys, "dataset_path").value_or("json");
  const auto* kwargs = keys.find("dataset_kwargs");
  if (path != "json" || kwargs == nullptr || !kwargs->is_object() || !kwargs->contains("data_files")) {
    fail(ErrorKind::kUnsupported,
         "{}: the rows of data set '{}' would come from the Hub, which an evaluation does not ask; save them as JSON lines, and give "
         "'dataset_path: json' and their files as 'dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}'",
         keys.where("/dataset_path"), path);
  }
  for (const auto& [key, value] : kwargs->items()) {
    if (key == "data_files" || key == "trust_remote_code") continue;
    fail(ErrorKind::kUnsupported, "{}: 'dataset_kwargs' has '{}'; only 'data_files' is read", keys.where("/dataset_kwargs/" + key), key);
  }
  const auto& files = kwargs->at("data_files");
  const std::string pointer = "/dataset_kwargs/data_files";
  if (!files.is_object()) return add_files(config, keys, "train", pointer, files);
  for (const auto& [split, value] : files.items()) add_files(config, keys, split, format("{}/{}", pointer, split), value);
}

void check_split(const TaskConfig& config, const TaskKeys& keys, const std::string& pointer, const std::string& split) {
  if (config.data_files.contains(split)) return;
  std::vector<std::string> known;
  for (const auto& [name, files] : config.data_files) known.push_back(name);
  std::string list;
  for (const auto& name : known) list += (list.empty() ? "'" : ", '") + name + "'";
  fail(ErrorKind::kNotFound, "{}: the split '{}' has no file in dataset_kwargs.data_files, which has {}{}", keys.where(pointer), split,
       list, did_you_mean(split, known));
}

std::optional<std::string> read_split(const TaskConfig& config, const TaskKeys& keys, const std::string& key) {
  auto split = find_text(keys, key);
  if (split) check_split(config, keys, "/" + key, *split);
  return split;
}

void read_splits(TaskConfig& config, const TaskKeys& keys) {
  config.test_split = read_split(config, keys, "test_split");
  config.validation_split = read_split(config, keys, "validation_split");
  config.training_split = read_split(config, keys, "training_split");
  config.fewshot_split = read_split(config, keys, "fewshot_split");
  if (!config.test_split && !config.validation_split)
    fail(ErrorKind::kBadFormat, "{}: neither 'test_split' nor 'validation_split' says which rows are asked", config.origin);
}

/// Reads a key of a row's format from the file's top level, or from "/fewshot_config" over what the top level says.
void read_format(DocFormat& format_read, const TaskKeys& keys, const json& values, const std::string& prefix) {
  const auto read = [&](const std::string& key, const std::function<void(const json&, const std::string&)>& use) {
    const auto found = values.find(key);
    if (found != values.end() && !found->is_null()) use(*found, prefix + "/" + key);
  };
  const auto field = [&](const json& value, const std::string& pointer) {
    return DocField(value, format("{}: '{}'", keys.where(pointer), pointer.substr(1)));
  };
  read("doc_to_text",
       [&](const json& value, const std::string& pointer) { format_read.text = field(text_at(keys, pointer, value), pointer); });
  read("doc_to_target", [&](const json& value, const std::string& pointer) {
    if (!value.is_number_integer() && !value.is_array() && !value.is_string())
      refuse_value(keys, pointer, "a field, a template, an index or a list", value);
    format_read.target = field(value, pointer);
  });
  read("doc_to_choice", [&](const json& value, const std::string& pointer) {
    if (!value.is_array() && !value.is_string()) refuse_value(keys, pointer, "a field, a template or a list of texts", value);
    format_read.choice = field(value, pointer);
  });
  read("target_delimiter",
       [&](const json& value, const std::string& pointer) { format_read.target_delimiter = text_at(keys, pointer, value); });
  read("fewshot_delimiter",
       [&](const json& value, const std::string& pointer) { format_read.fewshot_delimiter = text_at(keys, pointer, value); });
}

void read_shots(TaskConfig& config, const TaskKeys& keys) {
  config.shots = config.format;
  if (const auto* wanted = keys.find("num_fewshot")) {
    if (!wanted->is_number_integer() || *wanted < 0) refuse_value(keys, "/num_fewshot", "a number of examples, 0 or more", *wanted);
    config.num_fewshot = wanted->get<std::int64_t>();
  }
  const auto* shots = keys.find("fewshot_config");
  if (shots == nullptr) return;
  if (!shots->is_object()) refuse_value(keys, "/fewshot_config", "a mapping", *shots);
  static const std::vector<std::string> kKnown = {"sampler",       "split",         "samples",          "doc_to_text",
                                                  "doc_to_target", "doc_to_choice", "target_delimiter", "fewshot_delimiter"};
  for (const auto& [key, value] : shots->items()) {
    const auto pointer = "/fewshot_config/" + key;
    if (value.is_null()) continue;
    if (std::ranges::find(kKnown, key) == kKnown.end()) {
      fail(ErrorKind::kUnsupported, "{}: 'fewshot_config' has '{}', which Quiver does not honour{}", keys.where(pointer), key,
           did_you_mean(key, kKnown));
    }
    if (key == "sampler") {
      const auto sampler = text_at(keys, pointer, value);
      if (sampler != "default" && sampler != "first_n") refuse_value(keys, pointer, "'default' or 'first_n'", value);
      config.takes_first = sampler == "first_n";
    } else if (key == "split") {
      config.fewshot_split = text_at(keys, pointer, value);
      check_split(config, keys, pointer, *config.fewshot_split);
    } else if (key == "samples") {
      const bool are_rows =
          value.is_array() && !value.empty() && std::ranges::all_of(value, [](const json& row) { return row.is_object(); });
      if (!are_rows) refuse_value(keys, pointer, "a list of rows", value);
      config.samples = value.get<std::vector<json>>();
    }
  }
  read_format(config.shots, keys, *shots, "/fewshot_config");
}

/// "/generation_kwargs/KEY" as a number; a boolean is none.
double number_at(const TaskKeys& keys, const std::string& pointer, const json& value) {
  if (!value.is_number()) refuse_value(keys, pointer, "a number", value);
  return value.get<double>();
}

void read_generation(TaskConfig& config, const TaskKeys& keys) {
  auto& answers = config.task.answers;
  answers = {.max_new_tokens = kMaxGenToks, .until = {config.format.fewshot_delimiter}, .temperature = 0};
  const auto* given = keys.find("generation_kwargs");
  if (given == nullptr) return;
  if (!given->is_object()) refuse_value(keys, "/generation_kwargs", "a mapping", *given);
  static const std::vector<std::string> kLengths = {"max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"};
  static const std::vector<std::string> kKnown = {"until",     "do_sample", "temperature", "top_p",
                                                  kLengths[0], kLengths[1], kLengths[2],   kLengths[3]};
  for (const auto& [key, value] : given->items()) {
    const auto pointer = "/generation_kwargs/" + key;
    if (std::ranges::find(kKnown, key) == kKnown.end())
      fail(ErrorKind::kUnsupported, "{}: 'generation_kwargs' has '{}', which Quiver does not honour{}", keys.where(pointer), key,
           did_you_mean(key, kKnown));
    if (value.is_null()) refuse_value(keys, pointer, "a value, or no key", value);
    if (key == "until") answers.until = texts_at(keys, pointer, value);
    if (key == "temperature") answers.temperature = number_at(keys, pointer, value);
    if (key == "top_p") answers.top_p = number_at(keys, pointer, value);
  }
  if (*answers.temperature < 0) refuse_value(keys, "/generation_kwargs/temperature", "0 or more", given->at("temperature"));
  if (answers.top_p && !(*answers.top_p > 0 && *answers.top_p <= 1))
    refuse_value(keys, "/generation_kwargs/top_p", "more than 0, at most 1", given->at("top_p"));
  for (const auto& key : kLengths) {  // the first of them counts
    if (!given->contains(key)) continue;
    const auto& value = given->at(key);
    if (!value.is_number_integer() || value < 1) refuse_value(keys, "/generation_kwargs/" + key, "a number of tokens, 1 or more", value);
    answers.max_new_tokens = value.get<std::int64_t>();
    break;
  }
  if (!given->contains("do_sample")) return;
  const auto& samples = given->at("do_sample");
  if (!samples.is_boolean()) refuse_value(keys, "/generation_kwargs/do_sample", "true or false", samples);
  if (!samples.get<bool>()) answers.temperature = 0;
  if (samples.get<bool>() && *answers.temperature <= 0)
    fail(ErrorKind::kBadFormat, "{}: 'do_sample' is true without a temperature above 0; give 'temperature', or leave 'do_sample' out",
         keys.where("/generation_kwargs/do_sample"));
}

void read_metric_option(TaskConfig& config, const TaskKeys& keys, const std::string& metric, const std::string& key,
                        const std::string& pointer, const json& value) {
  auto& exact = config.task.exact_match;
  const std::pair<const char*, bool*> flags[] = {
      {"ignore_case", &exact.ignore_case}, {"ignore_punctuation", &exact.ignore_punctuation}, {"ignore_numbers", &exact.ignore_numbers}};
  if (key == "metric") return;
  if (key == "aggregation") {
    const auto* usual = config.task.kind != Kind::kText ? "mean" : metric == "bits_per_byte" ? "bits_per_byte" : "weighted_perplexity";
    if (value != usual) refuse_value(keys, pointer, format("'{}'", usual), value);
    return;
  }
  if (key == "higher_is_better") {
    const bool is_higher = metric != "nll" && config.task.kind != Kind::kText;
    if (value != json(is_higher)) refuse_value(keys, pointer, is_higher ? "true" : "false", value);
    return;
  }
  if (metric == "exact_match" && key == "regexes_to_ignore") {
    exact.regexes_to_ignore = texts_at(keys, pointer, value);
    for (const auto& pattern : exact.regexes_to_ignore) static_cast<void>(regex::translate_python(pattern, keys.where(pointer)));
    return;
  }
  for (const auto& [name, flag] : flags) {
    if (metric != "exact_match" || key != name) continue;
    if (!value.is_boolean()) refuse_value(keys, pointer, "true or false", value);
    *flag = value.get<bool>();
    return;
  }
  fail(ErrorKind::kUnsupported, "{}: the metric '{}' has the option '{}', which Quiver does not honour{}", keys.where(pointer), metric, key,
       did_you_mean(key, {"ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore", "aggregation", "higher_is_better"}));
}

void read_metrics(TaskConfig& config, const TaskKeys& keys) {
  auto& task = config.task;
  std::vector<std::string> known = {"exact_match", "rouge_l", "nll"};
  task.metrics = {"exact_match"};
  if (task.kind == Kind::kChoice) {
    known = {"acc", "acc_norm", "acc_bytes"};
    task.metrics = {"acc", "acc_norm"};
  } else if (task.kind == Kind::kText) {
    task.metrics = known = {std::begin(kTextMetrics), std::end(kTextMetrics)};
  }
  if (const auto* list = keys.find("metric_list")) {
    if (!list->is_array() || list->empty()) refuse_value(keys, "/metric_list", "a list of metrics", *list);
    task.metrics.clear();
    for (std::size_t i = 0; i < list->size(); ++i) {
      const auto pointer = format("/metric_list/{}", i);
      const auto& entry = list->at(i);
      if (!entry.is_object() || !entry.contains("metric")) refuse_value(keys, pointer, "a mapping with 'metric'", entry);
      const auto metric = text_at(keys, pointer + "/metric", entry.at("metric"));
      if (std::ranges::find(known, metric) == known.end()) {
        fail(ErrorKind::kUnsupported, "{}: Quiver has no metric '{}' for this output_type; it has {}, {} and {}{}", keys.where(pointer),
             metric, known[0], known[1], known[2], did_you_mean(metric, known));
      }
      if (std::ranges::find(task.metrics, metric) != task.metrics.end()) refuse_value(keys, pointer, "each metric once", entry);
      task.metrics.push_back(metric);
      for (const auto& [key, value] : entry.items()) read_metric_option(config, keys, metric, key, format("{}/{}", pointer, key), value);
    }
  }
  task.scores_target = task.kind == Kind::kText || std::ranges::find(task.metrics, "nll") != task.metrics.end();
}

/// 'repeats' and 'filter_list' at the values that change nothing.
void check_plain_answers(const TaskKeys& keys) {
  if (const auto* repeats = keys.find("repeats"); repeats != nullptr && *repeats != 1) refuse_value(keys, "/repeats", "1", *repeats);
  const auto* filters = keys.find("filter_list");
  if (filters == nullptr) return;
  if (!filters->is_array()) refuse_value(keys, "/filter_list", "a list", *filters);
  for (std::size_t i = 0; i < filters->size(); ++i) {
    const auto pointer = format("/filter_list/{}/filter", i);
    const auto& entry = filters->at(i);
    if (!entry.is_object() || !entry.contains("filter") || !entry.at("filter").is_array())
      refuse_value(keys, "/filter_list", "entries with a list 'filter'", entry);
    for (const auto& step : entry.at("filter")) {
      const auto name = step.is_object() && step.contains("function") ? step.at("function") : json(nullptr);
      if (name == "take_first") continue;
      fail(ErrorKind::kUnsupported,
           "{}: the filter {} changes answers, and Quiver does not honour it; leave it out, or use 'regexes_to_ignore' of exact_match",
           keys.where(pointer), name.dump(-1, ' ', true).substr(0, 80));
    }
  }
}

std::string version_of(const TaskKeys& keys) {
  const auto* metadata = keys.find("metadata");
  if (metadata == nullptr || !metadata->is_object() || !metadata->contains("version")) return "1";
  const auto& version = metadata->at("version");
  return version.is_string() ? version.get<std::string>() : version.dump();
}

void read_kind(EvalTask& task, const TaskKeys& keys) {
  const auto type = find_text(keys, "output_type").value_or("generate_until");
  if (type == "loglikelihood_rolling") return make_text_task(task);
  if (type != "multiple_choice" && type != "generate_until") {
    fail(ErrorKind::kUnsupported,
         "{}: Quiver does not ask tasks of output_type '{}'; it asks multiple_choice, loglikelihood_rolling, and generate_until, which has "
         "the metric nll",
         keys.where("/output_type"), type);
  }
  task.kind = type == "multiple_choice" ? Kind::kChoice : Kind::kAnswer;
  task.section = task.kind == Kind::kChoice ? "choice" : "answer";
}

}  // namespace

TaskConfig read_task_config(const fs::path& path) {
  const TaskKeys keys(path);
  TaskConfig config{.origin = path.string()};
  auto& task = config.task;
  if (const auto* name = keys.find("task"); name != nullptr && name->is_array())
    fail(ErrorKind::kUnsupported, "{}: 'task' is a list, so that the file names a group; name the files of its tasks", keys.where("/task"));
  task.name = find_text(keys, "task").value_or(path.stem().string());
  if (task.name.empty()) fail(ErrorKind::kBadFormat, "{}: 'task' is empty", keys.where("/task"));
  task.version = version_of(keys);
  task.group = kOwnGroup;
  read_kind(task, keys);
  read_data(config, keys);
  read_splits(config, keys);
  for (const char* key : {"doc_to_text", "doc_to_target"}) {
    const bool is_needed = task.kind != Kind::kText || std::string_view(key) == "doc_to_target";  // a text has no question
    if (is_needed && keys.find(key) == nullptr) fail(ErrorKind::kBadFormat, "{}: the task has no '{}'", config.origin, key);
  }
  if (task.kind == Kind::kChoice && keys.find("doc_to_choice") == nullptr)
    fail(ErrorKind::kBadFormat, "{}: the task is of output_type multiple_choice and has no 'doc_to_choice'", config.origin);
  read_format(config.format, keys, keys.values(), "");
  if (const auto description = find_text(keys, "description"); description && !description->empty())
    config.description = DocField(*description, format("{}: 'description'", keys.where("/description")));
  read_shots(config, keys);
  if (task.kind == Kind::kAnswer) read_generation(config, keys);
  read_metrics(config, keys);
  check_plain_answers(keys);
  task.config = keys.values();
  return config;
}

}  // namespace quiver::tasks
