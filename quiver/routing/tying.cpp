#include "quiver/routing/tying.h"

#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/routing/checks.h"

namespace quiver::routing {
namespace {

/// "q_proj, k_proj, v_proj read one input, and gate_proj, up_proj"
std::string described(const InputSets& inputs) {
  std::string text;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    text += i == 0 ? "only " : ", and ";
    for (std::size_t j = 0; j < inputs[i].size(); ++j) text += (j == 0 ? "" : ", ") + inputs[i][j].substr(inputs[i][j].rfind('.') + 1);
    if (i == 0) text += " read one input";
  }
  return text.empty() ? "each projection of this model reads an input of its own" : text;
}

bool is_tail(const std::string& path, const std::string& tail) { return path == tail || path.ends_with("." + tail); }

/// What stands before the name of a map of the set in a path; nothing where the path is none of them.
std::optional<std::string> block_of(const std::string& path, const std::vector<std::string>& set) {
  for (const auto& name : set) {
    if (is_tail(path, name)) return path.substr(0, path.size() - name.size());
  }
  return std::nullopt;
}

/// Which of the sets a name is in.
std::size_t input_of(const std::string& name, const InputSets& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (std::ranges::any_of(inputs[i], [&](const auto& map) { return is_tail(map, name); })) return i;
  }
  fail(ErrorKind::kUsage, "'{}' cannot be tied: {}", name, described(inputs));
}

/// The update of tied projections as one LoRA: the lora_a one above another; beside each other what their lora_b do.
adapters::LoraPair tied_pair(const adapters::LoraAdapter& adapter, const std::vector<std::string>& paths, TieBy by) {
  std::vector<torch::Tensor> a, b;
  for (const auto& path : paths) {
    const auto& pair = adapter.pairs.at(path);
    a.push_back(pair.lora_a().detach().to(torch::kCPU, torch::kDouble));
    b.push_back(pair.lora_b().detach().to(torch::kCPU, torch::kDouble) * pair.scaling());
    if (by == TieBy::kSum && b.back().size(0) != b.front().size(0)) {
      fail(ErrorKind::kMismatch, "the updates of '{}' and '{}' have {} and {} outputs and cannot be summed: tie them by concat",
           paths.front(), path, b.front().size(0), b.back().size(0));
    }
  }
  const auto lora_a = torch::cat(a);
  return adapters::LoraPair(lora_a, by == TieBy::kSum ? torch::cat(b, 1) : torch::block_diag(b), static_cast<double>(lora_a.size(0)));
}

/// The tied paths of each block and input, at least two of each.
std::vector<std::vector<std::string>> tied_paths(const adapters::LoraAdapter& adapter, const InputSets& inputs,
                                                 const std::vector<std::string>& names) {
  std::map<std::pair<std::string, std::size_t>, std::vector<std::string>> groups;
  for (const auto& name : std::set<std::string>(names.begin(), names.end())) {
    const auto input = input_of(name, inputs);
    bool is_adapted = false;
    for (const auto& [path, pair] : adapter.pairs) {
      const auto block = is_tail(path, name) ? block_of(path, inputs[input]) : std::nullopt;
      if (!block) continue;
      groups[{*block, input}].push_back(path);
      is_adapted = true;
    }
    if (!is_adapted) fail(ErrorKind::kUsage, "'{}' cannot be tied: adapter '{}' does not adapt it", name, adapter.name);
  }
  std::vector<std::vector<std::string>> tied;
  for (auto& [block, paths] : groups) {
    if (paths.size() < 2) fail(ErrorKind::kUsage, "'{}' is tied to nothing: name another projection that reads its input", paths.front());
    tied.push_back(std::move(paths));
  }
  return tied;
}

}  // namespace

PrototypeMap tie_prototypes(std::span<const adapters::LoraAdapter> adapters, PrototypeMap stored, const InputSets& inputs,
                            const std::vector<std::string>& names, TieBy by) {
  check_alike(adapters);
  for (const auto& paths : tied_paths(adapters.front(), inputs, names)) {
    std::vector<torch::Tensor> rows;
    for (const auto& adapter : adapters) rows.push_back(arrow_prototype(tied_pair(adapter, paths, by)));
    const auto one = torch::stack(rows);
    for (const auto& path : paths) stored.insert_or_assign(path, one);
  }
  return stored;
}

}  // namespace quiver::routing
