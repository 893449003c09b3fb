#include "quiver/tasks/task_keys.h"

#include <algorithm>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"

namespace quiver::tasks {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMaxIncludes = 16;

constexpr std::string_view kRead[] = {
    "task",        "dataset_path",   "dataset_kwargs",    "test_split",    "validation_split", "training_split", "fewshot_split",
    "output_type", "doc_to_text",    "doc_to_target",     "doc_to_choice", "target_delimiter", "description",    "fewshot_delimiter",
    "num_fewshot", "fewshot_config", "generation_kwargs", "metric_list",   "metadata",         "repeats",        "filter_list"};

/// Keys that change no result here.
constexpr std::string_view kWithoutEffect[] = {
    "task_alias", "tag", "group", "dataset_name", "should_decontaminate", "group_alias", "doc_to_decontamination_query"};

/// Keys that change results and that Quiver does not honour, with what to do instead.
constexpr std::pair<std::string_view, std::string_view> kRefused[] = {
    {"process_docs", "prepare the rows beforehand, and give them as JSON lines"},
    {"custom_dataset", "write the rows as JSON lines, and name them in dataset_kwargs.data_files"},
    {"process_results", "use the metrics of 'metric_list'"},
    {"class", "describe the task with the keys of docs/formats.md"},
    {"gen_prefix", "end 'doc_to_text' with it"},
    {"use_prompt", "write the prompt as 'doc_to_text'"},
    {"doc_to_image", "only texts are read"},
    {"doc_to_audio", "only texts are read"},
    {"unsafe_code", "programs are run by the tasks humaneval and mbpp alone"},
    {"aggregate_metric_list", "a group has no rows of its own: name its tasks' files"},
    {"task_list", "name one file for each task"},
};

bool is_in(const auto& names, std::string_view key) { return std::ranges::find(names, key) != std::end(names); }

/// Whether a value says no more than a missing key does.
bool is_absent(const json& value) { return value.is_null() || value == json(false); }

std::string first_key(const std::string& pointer) {
  const auto end = pointer.find('/', 1);
  return pointer.substr(1, end == std::string::npos ? end : end - 1);
}

}  // namespace

TaskKeys::TaskKeys(const fs::path& path) : path_(path) {
  std::vector<fs::path> open;
  include(path, open);
  check_functions();
  check_keys();
}

void TaskKeys::include(const fs::path& path, std::vector<fs::path>& open) {
  const auto place = fs::weakly_canonical(path);
  if (std::ranges::find(open, place) != open.end())
    fail(ErrorKind::kBadFormat, "{}: the file includes itself through 'include'", path.string());
  if (sources_.size() > kMaxIncludes) fail(ErrorKind::kBadFormat, "{}: more than {} files are included", path_.string(), kMaxIncludes);
  open.push_back(place);
  Source source{.path = path};
  if (path.extension() == ".json") {
    source.document.value = io::read_json_file(path);
    source.has_lines = false;
  } else {
    source.document = io::read_yaml_file(path);
  }
  const auto values = source.document.value;
  if (!values.is_object())
    fail(ErrorKind::kBadFormat, "{}: a task file is a mapping of keys such as 'task' and 'doc_to_text'; this holds {}", path.string(),
         values.type_name());
  const auto index = sources_.size();
  sources_.push_back(std::move(source));
  if (values.contains("include") && !values.at("include").is_null()) {
    auto names = values.at("include");
    if (!names.is_array()) names = json::array({names});
    for (const auto& name : names) {
      if (!name.is_string())
        fail(ErrorKind::kBadFormat, "{}: 'include' holds {}; expected the name of a file", path.string(), name.type_name());
      include(io::folder_of(path) / name.get<std::string>(), open);
    }
  }
  for (const auto& [key, value] : values.items()) {
    if (key == "include") continue;
    values_[key] = value;
    source_of_key_[key] = index;
  }
  open.pop_back();
}

const TaskKeys::Source& TaskKeys::source_of(const std::string& pointer) const {
  const auto found = pointer.empty() ? source_of_key_.end() : source_of_key_.find(first_key(pointer));
  return sources_[found == source_of_key_.end() ? 0 : found->second];
}

const json* TaskKeys::find(std::string_view key) const {
  const auto found = values_.find(std::string(key));
  return found == values_.end() || found->is_null() ? nullptr : &*found;
}

std::string TaskKeys::where(const std::string& pointer) const {
  const auto& source = source_of(pointer);
  return source.has_lines ? format("{}:{}", source.path.string(), source.document.line_of(pointer)) : source.path.string();
}

fs::path TaskKeys::folder_of(const std::string& key) const { return io::folder_of(source_of("/" + key).path); }

void TaskKeys::check_functions() const {
  for (const auto& source : sources_) {
    for (const auto& [pointer, tag] : source.document.local_tags) {
      const auto key = first_key(pointer);
      if (&source_of(pointer) != &source || is_in(kWithoutEffect, key) || key == "include") continue;
      const auto text = source.document.value.at(json::json_pointer(pointer)).get<std::string>();
      if (tag != "!function") fail(ErrorKind::kUnsupported, "{}: '{}' has the unknown tag '{}'", where(pointer), key, tag);
      const auto* refused = std::ranges::find(kRefused, key, &std::pair<std::string_view, std::string_view>::first);
      fail(ErrorKind::kUnsupported, "{}: '{}' is a Python function, {}, which Quiver does not run: {}", where(pointer), key, text,
           refused == std::end(kRefused) ? "write a template or the name of a field" : refused->second);
    }
  }
}

void TaskKeys::check_keys() const {
  for (const auto& [key, value] : values_.items()) {
    if (is_in(kRead, key) || is_in(kWithoutEffect, key)) continue;
    for (const auto& [refused, advice] : kRefused) {
      if (key == refused && !is_absent(value))
        fail(ErrorKind::kUnsupported, "{}: the key '{}' changes results, and Quiver does not honour it: {}", where("/" + key), key, advice);
    }
    if (std::ranges::find(kRefused, key, &std::pair<std::string_view, std::string_view>::first) != std::end(kRefused)) continue;
    std::vector<std::string> known(std::begin(kRead), std::end(kRead));
    fail(ErrorKind::kUsage, "{}: a task has no key '{}'{}", where("/" + key), key, did_you_mean(key, known));
  }
}

}  // namespace quiver::tasks
