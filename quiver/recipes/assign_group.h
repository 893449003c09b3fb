// A new adapter's place among the groups of a library.
#pragma once

#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/cluster/nearest_group.h"
#include "quiver/library/library.h"

namespace quiver::recipes {

/// The groups of the library, the one most like `adapter` first, by cosine with their members: the private and imported adapters whose
/// tasks are all in the group (an adapter without tasks serves one of its own name), except one called as `adapter` is. Vectors are those
/// of the clustering that made the groups: its sparsity and similarity, where the library knows them. Groups without members are left out.
/// `tasks`, the adapter's, must be in no group yet. Changes nothing: Library::extend_group puts the tasks into the group.
/// Throws kUsage for a task that is in a group, and if there are no groups or no members; else as cluster::nearest_groups.
std::vector<cluster::GroupSimilarity> nearest_groups(const library::Library& library, const adapters::LoraAdapter& adapter,
                                                     const std::vector<std::string>& tasks);

/// Adds the adapter to the library, and puts the tasks that it serves into the nearest of the groups, which are returned. Throws as
/// nearest_groups, before anything is changed, and as Library::add.
std::vector<cluster::GroupSimilarity> add_and_assign(library::Library& library, const library::GivenAdapter& given,
                                                     const library::AdapterInfo& info, bool force);

}  // namespace quiver::recipes
