#include "quiver/tasks/select.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <ranges>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/tasks/pack.h"
#include "quiver/tasks/task_file.h"

namespace quiver::tasks {
namespace {

/// The ten tasks of the paper's table 1, HumanEval and MBPP included.
constexpr const char* kPaper = "piqa,boolq,winogrande,hellaswag,arc_easy,arc_challenge,openbookqa,bbh,humaneval,mbpp";

/// A task before its rows are read.
struct Chosen {
  const Group* group;  ///< nullptr: a task file
  std::string name;    ///< of a task file: its path
  std::string full_name() const { return group == nullptr || group->name == name ? name : group->name + "/" + name; }
  /// What a limit may call it; the last one counts most.
  std::vector<std::string> names() const { return group == nullptr ? task_file_names(name) : std::vector{group->name, name, full_name()}; }
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
  if (is_task_file(name)) return {{nullptr, name}};
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
      known.push_back(task);
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
      const auto equal = text.rfind('=');
      const auto name = equal == std::string::npos ? std::string() : text.substr(0, equal);
      const auto digits = equal == std::string::npos ? text : text.substr(equal + 1);
      std::int64_t rows = 0;
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rows);
      if (error != std::errc() || end != digits.data() + digits.size() || rows < 0)
        fail(ErrorKind::kUsage, "limit '{}': expected a number of rows, or NAME=ROWS with a task's or a group's name", text);
      by_name_[name] = rows;
      if (!name.empty()) unused_.insert(name);
    }
  }
  std::int64_t of(const Chosen& task) {
    std::int64_t rows = 0;
    auto names = task.names();
    names.insert(names.begin(), "");
    for (const auto& name : names) {
      const auto found = by_name_.find(name);
      if (found == by_name_.end()) continue;
      rows = found->second;
      unused_.erase(name);
    }
    return rows;
  }
  void check_used() const {
    if (!unused_.empty())
      fail(ErrorKind::kUsage, "limit {}={}: no task or group of this name is chosen", *unused_.begin(), by_name_.at(*unused_.begin()));
  }

 private:
  std::map<std::string, std::int64_t> by_name_;  // "" for all
  std::set<std::string> unused_;
};

/// Results are told apart by a task's name.
void check_names(const std::vector<EvalTask>& tasks) {
  for (const auto& own : tasks) {
    const auto count = std::ranges::count(tasks, own.name, &EvalTask::name);
    if (own.group == kOwnGroup && count > 1)
      fail(ErrorKind::kUsage, "{} tasks are called '{}'; give the task file another name, or another 'task'", count, own.name);
  }
}

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
    if (chosen[first].group == nullptr) {
      tasks.push_back(
          load_task_file(chosen[first].name, {limits.of(chosen[first]), selection.num_fewshot, selection.seed, selection.prompts}));
      end = first + 1;
      continue;
    }
    std::vector<PackTask> some;
    for (end = first; end < chosen.size() && chosen[end].group == chosen[first].group; ++end) {
      some.push_back({chosen[end].name, {limits.of(chosen[end]), selection.num_fewshot, selection.seed, selection.prompts}});
    }
    for (auto& task : load_pack_tasks(*chosen[first].group, selection.data, some)) tasks.push_back(std::move(task));
  }
  limits.check_used();
  check_names(tasks);
  return tasks;
}

}  // namespace quiver::tasks
