#include "quiver/library/library.h"

#include <ctime>

#include "quiver/adapters/peft.h"
#include "quiver/adapters/rows.h"
#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/io/folder.h"

namespace quiver::library {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCatalogueFile = "quiver.json";
constexpr const char* kAdaptersFolder = "adapters";
constexpr const char* kArtifactsFolder = "artifacts";
constexpr const char* kLockFile = ".lock";
constexpr const char* kReadme = "README.md";
constexpr std::int64_t kLockWaitMs = 60'000;  // a writer holds the lock for as long as it writes one adapter

bool is_there(const fs::path& path) {
  std::error_code error;  // what cannot be examined is reported by whoever opens it
  return fs::exists(path, error);
}

/// Makes the folder unless it is there.
void create_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (error == std::errc::no_such_file_or_directory) {
    fail(ErrorKind::kNotFound, "cannot create '{}': there is no folder '{}' (create it first)", path.string(), path.parent_path().string());
  }
  if (error) fail(ErrorKind::kIo, "cannot create folder '{}': {}", path.string(), error.message());
}

/// "2026-01-31T12:00:00Z"
std::string now() {
  const auto seconds = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

AdapterEntry make_entry(const adapters::LoraAdapter& adapter, const AdapterInfo& info, const fs::path& folder) {
  AdapterEntry entry{.name = adapter.name,
                     .info = info,
                     .rank = 0,
                     .sha256 = io::sha256_file(folder / adapters::kPeftTensorsFile),
                     .config_sha256 = io::sha256_file(folder / adapters::kPeftConfigFile)};
  if (entry.info.created.empty()) entry.info.created = now();
  for (const auto& [path, pair] : adapter.pairs) entry.rank = std::max(entry.rank, pair.rank());
  return entry;
}

void copy_bytes(const fs::path& from, const fs::path& to) { io::write_file_atomic(to, io::MappedFile(from).bytes()); }

void check_disjoint(const std::map<std::string, std::vector<std::string>>& groups) {
  std::map<std::string, std::string> group_of;
  for (const auto& [group, tasks] : groups) {
    for (const auto& task : tasks) {
      const auto [place, is_new] = group_of.emplace(task, group);
      if (!is_new) {
        fail(ErrorKind::kUsage, "task '{}' is in two groups, '{}' and '{}': a task belongs to one", task, place->second, group);
      }
    }
  }
}

}  // namespace

Library::Library(fs::path path) : path_(std::move(path)) {}

void check_may_write(const fs::path& folder, bool force) {
  std::error_code error;
  auto place = fs::weakly_canonical(folder, error);
  if (!place.has_filename()) place = place.parent_path();  // of a slash at the end
  const auto parent = place.parent_path();
  if (!error && parent.filename() == kAdaptersFolder && is_there(parent.parent_path() / kCatalogueFile)) {
    fail(ErrorKind::kUsage, "'{}' is a place for adapters of library '{}': write to another folder, and add it to the library",
         folder.string(), parent.parent_path().string());
  }
  adapters::check_may_write(folder, force);
}

Library Library::open(const fs::path& path) {
  if (!is_there(path / kCatalogueFile)) {
    fail(ErrorKind::kNotFound, "'{}' is no library: {}", path.string(),
         is_there(path) ? format("it has no {}", kCatalogueFile) : std::string("there is no such folder"));
  }
  Library library(path);
  library.refresh();
  return library;
}

bool Library::establish(const fs::path& path, const Base& base) {
  if (is_there(path / kCatalogueFile)) return false;
  create_folder(path);
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const auto name = entry.path().filename().native();
    // What another process has made of a library so far; the catalogue comes last, under a temporary name first.
    if (name == kLockFile || name == kAdaptersFolder || name == kArtifactsFolder || name == kCatalogueFile ||
        name.starts_with(format(".{}.", kCatalogueFile)))
      continue;
    fail(ErrorKind::kUsage, "'{}' exists and is no library (it holds '{}'): choose another folder, or an empty one", path.string(), name);
  }
  if (error) fail(ErrorKind::kIo, "cannot read folder '{}': {}", path.string(), error.message());
  Library library(path);
  const auto guard = library.lock();
  if (is_there(path / kCatalogueFile)) return false;  // somebody was faster
  create_folder(path / kAdaptersFolder);
  create_folder(path / kArtifactsFolder);
  library.write(Catalogue{.base = base, .adapters = {}, .groups = {}, .groups_provenance = nullptr});
  return true;
}

Library Library::create(const fs::path& path, const Base& base) {
  if (!establish(path, base)) fail(ErrorKind::kUsage, "'{}' is a library already: open it, or choose another folder", path.string());
  return open(path);
}

Library Library::open_or_create(const fs::path& path, const Base& base) {
  establish(path, base);
  auto library = open(path);
  const auto& own = library.base();
  const bool both_known = !own.fingerprint.empty() && !base.fingerprint.empty();
  if (both_known ? own.fingerprint != base.fingerprint : adapters::base_names_differ(own.name, base.name)) {
    fail(ErrorKind::kMismatch,
         "'{}' is a library of base '{}' (fingerprint '{}'), not of '{}' (fingerprint '{}'): load that base, or use another library",
         path.string(), own.name, own.fingerprint, base.name, base.fingerprint);
  }
  return library;
}

void Library::refresh() {
  const auto file = path_ / kCatalogueFile;
  catalogue_ = parse_catalogue(io::read_text_file(file), file.string());
}

io::FileLock Library::lock() const { return io::FileLock(path_ / kLockFile, kLockWaitMs); }

void Library::write(const Catalogue& catalogue) {
  io::write_file_atomic(path_ / kCatalogueFile, catalogue_text(catalogue));
  catalogue_ = catalogue;
}

std::vector<std::string> Library::adapter_names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : adapters()) names.push_back(name);
  return names;
}

const AdapterEntry* Library::find(const std::string& name) const {
  const auto found = adapters().find(name);
  return found == adapters().end() ? nullptr : &found->second;
}

const AdapterEntry& Library::at(const std::string& name) const {
  const auto* entry = find(name);
  if (entry == nullptr) {
    fail(ErrorKind::kNotFound, "library '{}' has no adapter '{}' among its {}{}", path_.string(), name, adapters().size(),
         did_you_mean(name, adapter_names()));
  }
  return *entry;
}

fs::path Library::adapter_folder(const std::string& name) const {
  check_adapter_name(name);
  return path_ / kAdaptersFolder / name;
}

void Library::check_base(const adapters::LoraAdapter& adapter) const {
  const bool both_known = !adapter.base_fingerprint.empty() && !base().fingerprint.empty();
  const bool differ =
      both_known ? adapter.base_fingerprint != base().fingerprint : adapters::base_names_differ(adapter.base_model, base().name);
  if (!differ) return;
  fail(ErrorKind::kMismatch,
       "adapter '{}' was trained on base '{}' (fingerprint '{}'), library '{}' is one of base '{}' (fingerprint '{}')", adapter.name,
       adapter.base_model, adapter.base_fingerprint, path_.string(), base().name, base().fingerprint);
}

void Library::check_own_folder(const std::string& name) const { adapters::check_holds_only_peft(adapter_folder(name)); }

void Library::publish(std::span<const Publication> all, const AdapterInfo& info, bool force) {
  const auto guard = lock();
  refresh();
  auto changed = catalogue_;
  std::vector<std::unique_ptr<io::AtomicFolderWriter>> writers;
  for (const auto& [adapter, files, fill] : all) {
    const auto folder = adapter_folder(adapter.name);
    check_base(adapter);
    if (find(adapter.name) != nullptr && !force) {
      fail(ErrorKind::kUsage, "library '{}' has an adapter '{}' already: choose another name, or `force=true` replaces it", path_.string(),
           adapter.name);
    }
    check_own_folder(adapter.name);
    auto& writer = *writers.emplace_back(std::make_unique<io::AtomicFolderWriter>(folder));
    fill(writer.temp());
    auto entry = make_entry(adapter, info, writer.temp());
    entry.is_as_given = files == Files::kAsGiven;
    if (is_there(folder) && !force) {
      const auto leftover = folder / adapters::kPeftTensorsFile;
      if (!is_there(leftover) || io::sha256_file(leftover) != entry.sha256) {
        fail(ErrorKind::kUsage,
             "'{}' is there, but not in the catalogue, and holds something else: adopt it, remove it, or `force=true` replaces it",
             folder.string());
      }
    }
    changed.adapters[adapter.name] = std::move(entry);
  }
  catalogue_text(changed);  // what cannot be written is refused before anything is replaced
  for (const auto& writer : writers) writer->commit(io::IfExists::kReplace);
  write(changed);
}

Library::Publication Library::publication_of(const GivenAdapter& given) {
  if (given.folder.empty())
    return {given.adapter, Files::kOfQuiver, [&given](const fs::path& folder) { adapters::write_peft_files(folder, given.adapter); }};
  return {given.adapter, Files::kAsGiven, [&given](const fs::path& folder) {
            io::write_file_atomic(folder / adapters::kPeftConfigFile, given.adapter.peft_config);  // the text as it was read
            copy_bytes(given.folder / adapters::kPeftTensorsFile, folder / adapters::kPeftTensorsFile);
            if (io::sha256_file(folder / adapters::kPeftTensorsFile) != given.tensors_sha256) {
              fail(ErrorKind::kMismatch, "{} of '{}' changed while the adapter was added: add it again", adapters::kPeftTensorsFile,
                   given.folder.string());
            }
            if (is_there(given.folder / kReadme)) copy_bytes(given.folder / kReadme, folder / kReadme);
          }};
}

void Library::add(const adapters::LoraAdapter& adapter, const AdapterInfo& info, bool force) {
  const Publication one{adapter, Files::kOfQuiver, [&](const fs::path& folder) { adapters::write_peft_files(folder, adapter); }};
  publish(std::span(&one, 1), info, force);
}

void Library::add(const GivenAdapter& given, const AdapterInfo& info, bool force) { add(std::span(&given, 1), info, force); }

void Library::add(std::span<const GivenAdapter> given, const AdapterInfo& info, bool force) {
  std::map<std::string, fs::path> folders;
  std::vector<Publication> all;
  for (const auto& one : given) {
    const auto [first, is_new] = folders.emplace(one.adapter.name, one.folder);
    if (!is_new) {
      fail(ErrorKind::kUsage, "'{}' and '{}' would both be adapter '{}': add one of them by another name", first->second.string(),
           one.folder.string(), one.adapter.name);
    }
    all.push_back(publication_of(one));
  }
  publish(all, info, force);
}

void Library::adopt(const std::string& name, const AdapterInfo& info) {
  const auto folder = adapter_folder(name);
  const auto guard = lock();
  refresh();
  if (find(name) != nullptr) {
    fail(ErrorKind::kUsage, "library '{}' has adapter '{}' in its catalogue already", path_.string(), name);
  }
  const auto adapter = adapters::load_peft(folder);
  check_base(adapter);
  auto changed = catalogue_;
  auto& entry = changed.adapters[name] = make_entry(adapter, info, folder);
  entry.is_as_given = true;
  write(changed);
}

adapters::LoraAdapter Library::load(const std::string& name) const {
  const auto& entry = at(name);
  auto adapter = adapters::load_peft(adapter_folder(name));
  if (entry.is_as_given) {
    adapter.base_model = base().name;
    adapter.base_fingerprint = base().fingerprint;
  }
  if (adapter.prompt_format.empty() && entry.info.training.contains("settings")) adapter.prompt_format = adapters::kBareText;
  return adapter;
}

std::vector<adapters::LoraAdapter> Library::load_alike(std::span<const std::string> names) const {
  std::vector<adapters::LoraAdapter> adapters;
  for (const auto& name : names) adapters.push_back(load(name));
  adapters::complete(adapters);
  return adapters;
}

void Library::remove(const std::string& name) {
  const auto guard = lock();
  refresh();
  at(name);
  check_own_folder(name);
  auto changed = catalogue_;
  changed.adapters.erase(name);
  write(changed);  // first: a catalogue must not name what is gone
  const auto folder = adapter_folder(name);
  if (is_there(folder)) io::remove_folder(folder);
}

void Library::export_adapter(const std::string& name, const fs::path& destination, bool force) const {
  at(name);
  check_may_write(destination, force);
  const auto folder = adapter_folder(name);
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->is_regular_file(error)) files.push_back(it->path());
  }
  if (error) fail(ErrorKind::kIo, "cannot read folder '{}': {}", folder.string(), error.message());
  io::AtomicFolderWriter writer(destination);
  for (const auto& file : files) {
    copy_bytes(file, writer.temp() / file.filename());
  }
  writer.commit(force ? io::IfExists::kReplace : io::IfExists::kRefuse);
}

void Library::set_groups(const std::map<std::string, std::vector<std::string>>& groups, const nlohmann::json& provenance) {
  check_disjoint(groups);
  const auto guard = lock();
  refresh();
  auto changed = catalogue_;
  changed.groups = groups;
  changed.groups_provenance = provenance;
  write(changed);
}

void Library::extend_group(const std::string& group, const std::vector<std::string>& tasks) {
  const auto guard = lock();
  refresh();
  auto changed = catalogue_;
  const auto found = changed.groups.find(group);
  if (found == changed.groups.end()) {
    fail(ErrorKind::kNotFound, "library '{}' has no group '{}' among its {}", path_.string(), group, changed.groups.size());
  }
  found->second.insert(found->second.end(), tasks.begin(), tasks.end());
  check_disjoint(changed.groups);
  for (const auto& task : tasks) changed.groups_provenance["joined"][task] = group;
  write(changed);
}

}  // namespace quiver::library
