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

json to_json(const EvalPart& chunk) {
  results::Results document{.samples = chunk.samples};
  for (const auto& sample : chunk.samples) {
    for (const auto& [name, value] : sample.metrics) {  // a document says which members of samples are metrics
      if (std::ranges::find(document.metrics, name, &results::Metric::name) == document.metrics.end())
        document.metrics.push_back({.name = name});
    }
  }
  return {{"results", results::to_json(document)}, {"routing", chunk.routing}, {"adapters", chunk.adapters}};
}

/// A line's hash was right, so that what it holds is what to_json wrote.
EvalPart from_json(const json& value, const std::string& origin) {
  return {.samples = results::from_json(value.at("results"), origin).samples,
          .routing = value.at("routing").get<RoutingSums>(),
          .adapters = value.at("adapters").get<std::vector<std::string>>()};
}

}  // namespace

EvalJournal::EvalJournal(const std::filesystem::path& path, const std::string& key) {
  const auto origin = path.string();
  const auto text = std::filesystem::exists(path) ? io::read_text_file(path) : std::string();
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    const auto value = value_of(std::string_view(text).substr(begin, end - begin), origin);
    if (!value || (begin == 0 ? *value != json{{"key", key}} : !value->contains("results"))) break;
    if (begin > 0) add(from_json(*value, origin));
    begin = end + 1;
  }
  writer_.emplace(path, static_cast<std::int64_t>(begin));
  if (begin == 0) writer_->write(line_of({{"key", key}}));
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
