#include "quiver/sandbox/plan.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "quiver/base/error.h"

namespace quiver::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr const char* kScratchFolder = "/tmp";
constexpr std::int64_t kBytesPerFile = 4096;  // so many files fit into the temporary folder as if each took a page
constexpr rlim_t kMaxOpenFiles = 128;
constexpr rlim_t kStackBytes = rlim_t{8} << 20;
constexpr rlim_t kMaxPendingSignals = 128;

std::string relative(const std::string& path) { return path.substr(1); }

void add_folders(std::set<std::string>& folders, const fs::path& path) {
  for (fs::path part = path; part.has_relative_path(); part = part.parent_path()) folders.insert(relative(part.string()));
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

void show_devices(Plan& plan) {
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    plan.files.push_back(relative(device));
    plan.shown.push_back({.source = device, .target = relative(device), .is_device = true});
  }
  plan.links.push_back({.target = kScratchFolder, .path = "dev/shm"});  // semaphores of multiprocessing
}

void show_files(Plan& plan, const std::vector<std::string>& of_interpreter) {
  std::set<std::string> folders = {"dev", "etc"};
  std::vector<fs::path> shown;
  for (const char* path : {"/usr", "/lib", "/lib64", "/bin"}) {
    if (fs::is_symlink(path)) {
      plan.links.push_back({.target = fs::read_symlink(path).string(), .path = relative(path)});
    } else if (fs::is_directory(path)) {
      shown.emplace_back(path);
    }
  }
  auto others = of_interpreter;
  std::ranges::sort(others);  // a folder before those within it
  for (const auto& folder : others) {
    const auto holds = [&](const fs::path& one) { return lies_in(folder, one); };
    if (std::ranges::none_of(shown, holds)) shown.emplace_back(folder);
  }
  for (const auto& folder : shown) {
    add_folders(folders, folder);
    plan.shown.push_back({.source = folder.string(), .target = relative(folder.string())});
  }
  const std::string library_cache = "/etc/ld.so.cache";  // where libraries outside of /usr/lib are
  if (fs::exists(library_cache)) {
    plan.files.push_back(relative(library_cache));
    plan.shown.push_back({.source = library_cache, .target = relative(library_cache)});
  }
  folders.erase(relative(kScratchFolder));
  plan.folders.assign(folders.begin(), folders.end());
}

/// No limit is raised above the one that holds for this process.
void add_limit(Plan& plan, int resource, rlim_t value) {
  rlimit present{};
  ::getrlimit(static_cast<decltype(RLIMIT_AS)>(resource), &present);
  const rlim_t most = std::min(value, present.rlim_max);
  plan.limits.push_back({.resource = resource, .value = {.rlim_cur = most, .rlim_max = most}});
}

void add_limits(Plan& plan, const Limits& limits) {
  add_limit(plan, RLIMIT_AS, static_cast<rlim_t>(limits.memory_bytes));
  add_limit(plan, RLIMIT_CPU, static_cast<rlim_t>(std::ceil(limits.cpu_seconds)));
  add_limit(plan, RLIMIT_FSIZE, static_cast<rlim_t>(limits.file_bytes));
  add_limit(plan, RLIMIT_NOFILE, kMaxOpenFiles);
  add_limit(plan, RLIMIT_STACK, kStackBytes);
  for (const int resource : {RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_RTPRIO}) add_limit(plan, resource, 0);
  if (plan.isolation == Isolation::kNone) return;  // there the kernel would count all processes of the user
  add_limit(plan, RLIMIT_NPROC, static_cast<rlim_t>(limits.processes));
  add_limit(plan, RLIMIT_SIGPENDING, kMaxPendingSignals);
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

bool has_id(const char* map, unsigned id) {
  std::ifstream file(map);
  std::uint64_t inside = 0, outside = 0, count = 0;
  while (file >> inside >> outside >> count) {
    if (id >= inside && id - inside < count) return true;
  }
  return false;
}

}  // namespace

bool maps_to_nobody() { return ::geteuid() == 0 && has_id("/proc/self/uid_map", kNobody) && has_id("/proc/self/gid_map", kNobody); }

void fill_plan(Plan& plan, const Command& command, const Limits& limits, Isolation isolation, const std::string& folder) {
  plan.isolation = isolation;
  plan.folder = folder;
  if (isolation == Isolation::kSandbox) {
    plan.folder = kScratchFolder;
    plan.changes_id = maps_to_nobody();
    plan.scratch_options = format("mode=700,size={},nr_inodes={}", limits.file_bytes, limits.file_bytes / kBytesPerFile + 16);
    plan.filter = call_filter();
    show_files(plan, command.folders);
    show_devices(plan);
  }
  plan.program = command.program;
  plan.words = command.words;
  plan.environment = command.environment;
  for (const char* name : {"HOME", "TMPDIR"}) plan.environment.push_back(format("{}={}", name, plan.folder));
  plan.word_pointers = pointers(plan.words);
  plan.environment_pointers = pointers(plan.environment);
  add_limits(plan, limits);
}

}  // namespace quiver::sandbox
