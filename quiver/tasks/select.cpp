#include "quiver/tasks/select.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <ranges>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/tasks/pack.h"

namespace quiver::tasks {
namespace {

/// The ten tasks of the paper's table 1, HumanEval and MBPP included.
constexpr const char* kPaper = "piqa,boolq,winogrande,hellaswag,arc_easy,arc_challenge,openbookqa,bbh,humaneval,mbpp";

/// A task before its rows are read.
struct Chosen {
  const Group* group;
  std::string name;
  std::string full_name() const { return group->name == name ? name : group->name + "/" + name; }
};

/// The names of all groups' tasks, each read once.
class Names {
 public:
  explicit Names(const std::filesystem::path& data) : data_(data) {}
  const std::vector<std::string>& of(const Group& group) {
    const auto found = known_.find(group.name);
    return found != known_.end() ? found->second : known_.emplace(group.name, task_names(group, data_)).first->second;
  }
  const std::filesystem::path& data() const { return data_; }

 private:
  std::filesystem::path data_;
  std::map<std::string, std::vector<std::string>> known_;
};

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  for (const auto part : std::views::split(list, ',')) {
    if (!part.empty()) parts.emplace_back(part.begin(), part.end());
  }
  return parts;
}

std::vector<Chosen> find_tasks(Names& names, const std::string& name) {
  std::vector<Chosen> found;
  std::vector<std::string> known = {"paper"};
  for (const auto& group : groups()) {
    known.push_back(group.name);
    const auto& tasks = names.of(group);
    if (name == group.name) {
      if (tasks.empty()) fail(ErrorKind::kNotFound, "'{}' has no tasks of group '{}'", names.data().string(), name);
      for (const auto& task : tasks) found.push_back({&group, task});
      return found;
    }
    for (const auto& task : tasks) {
      known.push_back(group.file.empty() || task == group.name ? task : group.name + "/" + task);
      if (name == task || name == group.name + "/" + task) found.push_back({&group, task});
    }
  }
  if (found.empty()) fail(ErrorKind::kNotFound, "no task '{}' in '{}'{}", name, names.data().string(), did_you_mean(name, known));
  if (found.size() > 1) {
    fail(ErrorKind::kUsage, "task '{}' is in several groups: name it '{}' or '{}'", name, found[0].full_name(), found[1].full_name());
  }
  return found;
}

/// What --limit says: of all tasks, and by a group's or a task's name.
class Limits {
 public:
  explicit Limits(const std::vector<std::string>& texts) {
    for (const auto& text : texts) {
      const auto equal = text.find('=');
      const auto name = equal == std::string::npos ? std::string() : text.substr(0, equal);
      const auto digits = equal == std::string::npos ? text : text.substr(equal + 1);
      std::int64_t rows = 0;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rows);
      if (error != std::errc() || end != digits.data() + digits.size() || rows < 0)
        fail(ErrorKind::kUsage, "--limit '{}': expected a number of rows, or NAME=ROWS with a task's or a group's name", text);
      by_name_[name] = rows;
      if (!name.empty()) unused_.insert(name);
    }
  }
  std::int64_t of(const Chosen& task) {
    std::int64_t rows = 0;
    for (const auto& name : {std::string(), task.group->name, task.name, task.full_name()}) {
      const auto found = by_name_.find(name);
      if (found == by_name_.end()) continue;
      rows = found->second;
      unused_.erase(name);
    }
    return rows;
  }
  void check_used() const {
    if (!unused_.empty())
      fail(ErrorKind::kUsage, "--limit {}={}: --tasks names no such task or group", *unused_.begin(), by_name_.at(*unused_.begin()));
  }

 private:
  std::map<std::string, std::int64_t> by_name_;  // "" for all
  std::set<std::string> unused_;
};

}  // namespace

std::vector<EvalTask> select_tasks(const Selection& selection) {
  Names names(selection.data);
  std::vector<Chosen> chosen;
  std::set<std::string> seen;
  for (const auto& part : parts_of(selection.names)) {
    for (const auto& name : part == "paper" ? parts_of(kPaper) : std::vector<std::string>{part}) {
      for (auto& task : find_tasks(names, name)) {
        if (!seen.insert(task.full_name()).second) fail(ErrorKind::kUsage, "task '{}' is named twice", task.full_name());
        chosen.push_back(std::move(task));
      }
    }
  }
  if (chosen.empty()) fail(ErrorKind::kUsage, "no task is named; give names separated by commas: upstream, sni, mc, bbh, piqa, ...");
  Limits limits(selection.limits);
  std::vector<EvalTask> tasks;
  for (std::size_t first = 0, end = 0; first < chosen.size(); first = end) {  // those of a group that stand together
    std::vector<PackTask> some;
    for (end = first; end < chosen.size() && chosen[end].group == chosen[first].group; ++end) {
      some.push_back({chosen[end].name, {limits.of(chosen[end]), selection.num_fewshot, selection.seed}});
    }
    for (auto& task : load_pack_tasks(*chosen[first].group, selection.data, some)) tasks.push_back(std::move(task));
  }
  limits.check_used();
  return tasks;
}

}  // namespace quiver::tasks
