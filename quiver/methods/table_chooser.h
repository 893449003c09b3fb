// Decisions once per prompt that are kept as rows of a table.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/observe.h"
#include "quiver/routing/group_table.h"

namespace quiver::methods {

/// Decides once per prompt, before what follows it is computed, by a row of a table per distinct prompt. Prompts with equal rows share a
/// group (forest::Sequence::group), so that they may share prefixes. Remembers the `most_prompts` prompts that were asked for last; the
/// rows of others go with their leases. Thread-safe.
class TableChooser {
 public:
  /// Rows [P, width] for prompts. Called by several threads at once if groups_of is.
  using Rows = std::function<torch::Tensor(std::span<const Prompt>, Progress&)>;
  static constexpr std::size_t kMostPrompts = 4096;
  /// `adapters` are the names of the table's columns, where these are adapters.
  TableChooser(std::shared_ptr<routing::GroupTable> table, std::vector<std::string> adapters, Rows rows,
               std::size_t most_prompts = kMostPrompts);

  /// The group of each prompt, which is its own for as long as the lease lives. Runs the base model. A call that throws changes nothing.
  /// Throws kInternal for rows that are not [P, width], and kMismatch, naming the adapter, for a row that is not finite.
  std::vector<routing::GroupLease> groups_of(std::span<const Prompt> prompts, Progress& progress);
  /// The numbers of a group that is held: what its prompt's rows depend on. The group's index names other numbers once nobody holds it.
  std::vector<float> row_of(const routing::GroupLease& group) const;
  /// Forgets all prompts, so that what follows does not depend on them. Leases go on.
  void forget();

 private:
  using Groups = std::map<Prompt, routing::GroupLease>;
  std::vector<Prompt> look_up(Groups& groups);
  void hold_rows(std::span<const Prompt> fresh, Groups& groups, Progress& progress) const;
  void remember(const Groups& groups);
  void check(const torch::Tensor& rows) const;

  struct Known {
    routing::GroupLease group;
    std::list<const Prompt*>::iterator use;
  };
  std::shared_ptr<routing::GroupTable> table_;
  std::vector<std::string> adapters_;
  Rows rows_;
  std::size_t most_prompts_;
  std::mutex mutex_;  // of what follows
  std::map<Prompt, Known> known_;
  std::list<const Prompt*> by_use_;  // keys of known_, what was asked for last at the end
};

}  // namespace quiver::methods
