#include "quiver/routing/tying.h"

#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <set>

#include "quiver/base/error.h"
#include "quiver/routing/checks.h"

namespace quiver::routing {
namespace {

/// The names of each set read the same rows, in every family that has them.
const std::set<std::string> kOfOneInput[] = {{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}};

/// Which of the sets a name is in.
std::size_t input_of(const std::string& name) {
  for (std::size_t i = 0; i < std::size(kOfOneInput); ++i) {
    if (kOfOneInput[i].contains(name)) return i;
  }
  fail(ErrorKind::kUsage, "'{}' cannot be tied: only q_proj, k_proj, v_proj read one input, and gate_proj, up_proj", name);
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
std::vector<std::vector<std::string>> tied_paths(const adapters::LoraAdapter& adapter, const std::vector<std::string>& names) {
  std::map<std::string, std::vector<std::string>> groups;
  for (const auto& name : std::set<std::string>(names.begin(), names.end())) {
    const auto input = input_of(name);
    bool is_adapted = false;
    for (const auto& [path, pair] : adapter.pairs) {
      const auto dot = path.rfind('.');
      if (path.substr(dot + 1) != name) continue;
      groups[format("{}/{}", path.substr(0, dot), input)].push_back(path);
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

PrototypeMap tie_prototypes(std::span<const adapters::LoraAdapter> adapters, PrototypeMap stored, const std::vector<std::string>& names,
                            TieBy by) {
  check_alike(adapters);
  for (const auto& paths : tied_paths(adapters.front(), names)) {
    std::vector<torch::Tensor> rows;
    for (const auto& adapter : adapters) rows.push_back(arrow_prototype(tied_pair(adapter, paths, by)));
    const auto one = torch::stack(rows);
    for (const auto& path : paths) stored.insert_or_assign(path, one);
  }
  return stored;
}

}  // namespace quiver::routing
