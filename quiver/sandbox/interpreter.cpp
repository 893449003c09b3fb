#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "quiver/base/error.h"
#include "quiver/sandbox/launch.h"

namespace quiver::sandbox {
namespace {

namespace fs = std::filesystem;

constexpr double kAnswerSeconds = 60;  // from a cold network disk

// The answer is the last line. What start-up files of Python print stands before it.
constexpr const char* kQuestion = R"(import os, platform, sys
folders = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
print("\n" + "\0".join([sys.executable, platform.python_version()] + folders + [os.path.realpath(f) for f in folders]), end="")
)";

/// The file that a shell would run. Throws kNotFound.
std::string path_of(const std::string& command) {
  if (command.find('/') != std::string::npos) {
    if (::access(command.c_str(), X_OK) == 0) return fs::absolute(command).string();
    fail(ErrorKind::kNotFound, "there is no program '{}' that can be run; give the path of a Python 3", command);
  }
  const char* path = std::getenv("PATH");
  std::string folders = path == nullptr ? "/usr/bin:/bin" : path;
  for (std::size_t begin = 0; begin < folders.size();) {
    const auto end = std::min(folders.find(':', begin), folders.size());
    const auto candidate = folders.substr(begin, end - begin) + "/" + command;
    if (candidate.front() == '/' && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    begin = end + 1;
  }
  fail(ErrorKind::kNotFound, "there is no program '{}' in PATH ('{}'); install Python 3, or give its path", command, folders);
}

std::vector<std::string> parts_of_last_line(const std::string& text) {
  std::vector<std::string> parts = {""};
  for (const char letter : text.substr(text.rfind('\n') + 1)) {
    if (letter == '\0') {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  return parts;
}

/// A program could read the home that lies in a folder of the interpreter.
void check_folder(const std::string& executable, const fs::path& folder) {
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return;
  const auto inside = fs::weakly_canonical(home);
  const auto outside = fs::weakly_canonical(folder);
  if (std::mismatch(outside.begin(), outside.end(), inside.begin(), inside.end()).first != outside.end()) return;
  fail(ErrorKind::kUnsupported,
       "the folder '{}' of the interpreter '{}' holds the home folder '{}', which programs would read; choose a "
       "Python that is installed in a folder of its own",
       folder.string(), executable, home);
}

}  // namespace

Interpreter find_interpreter(const std::string& command) {
  Command question{.words = {path_of(command), "-c", kQuestion}};
  for (char** entry = environ; *entry != nullptr; ++entry) question.environment.emplace_back(*entry);
  const Limits limits{.wall_seconds = kAnswerSeconds, .cpu_seconds = kAnswerSeconds};
  const auto outcome = launch(question, limits, Isolation::kNone, StopToken());
  const auto parts = parts_of_last_line(outcome.output);
  if (!outcome.is_success() || parts.size() < 3) {
    fail(ErrorKind::kIo, "'{}' does not answer as Python 3 does: exit code {}, and it says '{}'", question.words.front(), outcome.exit_code,
         outcome.output);
  }
  std::set<std::string> folders;
  for (std::size_t i = 2; i < parts.size(); ++i) {
    if (!parts[i].starts_with('/') || parts[i] == "/" || parts[i] == "/usr") continue;  // the last two: system folders, always shown
    check_folder(parts[0], parts[i]);
    folders.insert(parts[i]);
  }
  return {.executable = parts[0], .version = parts[1], .folders = {folders.begin(), folders.end()}};
}

}  // namespace quiver::sandbox
