#include "quiver/recipes/eval_journal.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/json.h"

namespace quiver::recipes {
namespace {

using nlohmann::json;

std::string line_of(const json& value) {
  const auto text = io::dump_json(value, "a part of an evaluation");
  return io::dump_json({{"sha256", sha256_hex(text)}, {"value", value}}, "a part of an evaluation") + "\n";
}

/// The content of a line, or nothing if it is damaged.
std::optional<json> value_of(std::string_view line, const std::string& origin) {
  try {
    auto document = io::parse_json(line, origin);
    if (!document.contains("value")) return std::nullopt;
    if (io::require_string(document, "sha256", origin) != sha256_hex(io::dump_json(document["value"], origin))) return std::nullopt;
    return std::move(document["value"]);
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// The number of a task, or how many there are if it is not among them.
std::size_t place_of(const EvalPartKeys& keys, const std::string& task) {
  const auto found = std::ranges::find(keys.tasks, task, &std::pair<std::string, std::string>::first);
  return static_cast<std::size_t>(found - keys.tasks.begin());
}

}  // namespace

json EvalJournal::to_json(const EvalPart& chunk) const {
  results::Results document{.samples = chunk.samples};
  for (const auto& sample : chunk.samples) {
    for (const auto& [name, value] : sample.metrics) {  // a document says which members of samples are metrics
      if (std::ranges::find(document.metrics, name, &results::Metric::name) == document.metrics.end())
        document.metrics.push_back({.name = name});
    }
  }
  json keys = json::object();
  const auto add_key = [&](const std::string& task) { keys[task] = keys_.tasks.at(place_of(keys_, task)).second; };
  for (const auto& sample : chunk.samples) add_key(sample.task);
  for (const auto& [task, by_path] : chunk.routing) add_key(task);
  return {{"results", results::to_json(document)}, {"routing", chunk.routing}, {"adapters", chunk.adapters}, {"tasks", keys}};
}

EvalPart EvalJournal::from_json(const json& value, const std::string& origin) const {
  EvalPart chunk{.samples = results::from_json(value.at("results"), origin).samples,
                 .routing = value.at("routing").get<RoutingSums>(),
                 .adapters = value.at("adapters").get<std::vector<std::string>>()};
  const auto& keys = value.at("tasks");
  const auto is_other = [&](const std::string& task) {
    const auto place = place_of(keys_, task);
    return place == keys_.tasks.size() || keys.at(task) != keys_.tasks[place].second;
  };
  std::erase_if(chunk.routing, [&](const auto& of_task) { return is_other(of_task.first); });
  std::erase_if(chunk.samples, [&](const auto& sample) { return is_other(sample.task); });
  return chunk;
}

EvalJournal::EvalJournal(const std::filesystem::path& path, EvalPartKeys keys) : keys_(std::move(keys)) {
  const auto origin = path.string();
  const auto text = std::filesystem::exists(path) ? io::read_text_file(path) : std::string();
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    const auto value = value_of(std::string_view(text).substr(begin, end - begin), origin);
    if (!value || (begin == 0 ? *value != json{{"key", keys_.shared}} : !value->contains("results"))) break;
    if (begin > 0) add(from_json(*value, origin));
    begin = end + 1;
  }
  writer_.emplace(path, static_cast<std::int64_t>(begin));
  if (begin == 0) writer_->write(line_of({{"key", keys_.shared}}));
}

std::size_t EvalJournal::num_done(const std::string& task) const {
  return static_cast<std::size_t>(std::ranges::count(part_.samples, task, &results::Sample::task));
}

EvalPart EvalJournal::take() {
  std::ranges::stable_sort(part_.samples, {}, [&](const auto& sample) { return place_of(keys_, sample.task); });
  return std::move(part_);
}

void EvalJournal::append(EvalPart chunk) {
  if (writer_) writer_->write(line_of(to_json(chunk)));
  add(std::move(chunk));
}

void EvalJournal::add(EvalPart chunk) {
  std::ranges::move(chunk.samples, std::back_inserter(part_.samples));
  if (!chunk.adapters.empty()) part_.adapters = std::move(chunk.adapters);
  for (auto& [task, by_path] : chunk.routing) {
    for (auto& [path, sums] : by_path) {
      auto& total = part_.routing[task][path];
      total.resize(std::max(total.size(), sums.size()), 0.0);
      for (std::size_t i = 0; i < sums.size(); ++i) total[i] += sums[i];
    }
  }
}

}  // namespace quiver::recipes
