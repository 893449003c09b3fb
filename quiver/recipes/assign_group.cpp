#include "quiver/recipes/assign_group.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "quiver/adapters/rows.h"
#include "quiver/base/error.h"

namespace quiver::recipes {
namespace {

std::map<std::string, std::string> group_by_task(const library::Library& library) {
  std::map<std::string, std::string> groups;
  for (const auto& [group, tasks] : library.groups()) {
    for (const auto& task : tasks) groups[task] = group;
  }
  return groups;
}

/// The group that all tasks of the adapter are in; empty if there is none.
std::string group_of(const library::AdapterEntry& entry, const std::map<std::string, std::string>& groups) {
  std::string group;
  for (const auto& task : library::tasks_served(entry.name, entry.info.tasks)) {
    const auto found = groups.find(task);
    if (found == groups.end() || (!group.empty() && group != found->second)) return "";
    group = found->second;
  }
  return group;
}

/// How the groups were made, as far as the library knows.
cluster::MbcOptions clustering_options(const library::Library& library) {
  cluster::MbcOptions options;
  const auto& provenance = library.groups_provenance();
  if (!provenance.is_object()) return options;
  const auto sparsity = provenance.find("sparsity");
  if (sparsity != provenance.end() && sparsity->is_number()) options.sparsity = sparsity->get<double>();
  const auto by = provenance.find("by");
  if (by != provenance.end() && *by == "products") options.similarity = cluster::Similarity::kProducts;
  return options;
}

}  // namespace

std::vector<cluster::GroupSimilarity> nearest_groups(const library::Library& library, const adapters::LoraAdapter& adapter,
                                                     const std::vector<std::string>& tasks) {
  if (library.groups().empty()) {
    fail(ErrorKind::kUsage, "library '{}' has no groups to join; run 'quiver cluster' first", library.path().string());
  }
  const auto groups = group_by_task(library);
  for (const auto& task : tasks) {
    const auto found = groups.find(task);
    if (found == groups.end()) continue;
    fail(ErrorKind::kUsage, "task '{}' is in group '{}' of library '{}' already: add the adapter without assigning it, or cluster again",
         task, found->second, library.path().string());
  }
  std::vector<std::string> member_groups;
  std::vector<adapters::LoraAdapter> all;
  for (const auto& [name, entry] : library.adapters()) {
    const bool is_clustered = entry.info.kind == library::AdapterKind::kPrivate || entry.info.kind == library::AdapterKind::kImported;
    const auto group = is_clustered && name != adapter.name ? group_of(entry, groups) : "";
    if (group.empty()) continue;
    member_groups.push_back(group);
    all.push_back(library.load(name));
  }
  if (all.empty()) {
    fail(ErrorKind::kUsage,
         "no group of library '{}' has a private or imported adapter of its own to compare with; run 'quiver cluster' first",
         library.path().string());
  }
  all.push_back(adapter);
  adapters::complete(all);
  std::map<std::string, std::vector<adapters::LoraAdapter>> members;
  for (std::size_t i = 0; i < member_groups.size(); ++i) members[member_groups[i]].push_back(std::move(all[i]));
  return cluster::nearest_groups(all.back(), members, clustering_options(library));
}

std::vector<cluster::GroupSimilarity> add_and_assign(library::Library& library, const library::GivenAdapter& given,
                                                     const library::AdapterInfo& info, bool force) {
  const auto tasks = library::tasks_served(given.adapter.name, info.tasks);
  auto groups = nearest_groups(library, given.adapter, tasks);
  library.add(given, info, force);
  library.extend_group(groups.front().group, tasks);
  return groups;
}

}  // namespace quiver::recipes
