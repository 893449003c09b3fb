// The adapter library on disk: many adapters of one base model, what they are, and what was computed from them.
//
//   library/
//     quiver.json                 format version, base model, adapters, groups
//     adapters/<name>/            a PEFT adapter folder: the files that somebody gave, byte for byte, or those of a training
//     artifacts/<key>.safetensors + .json    named tensors that can be computed again (prototypes, embeddings, ...)
//     mixing/<name>.safetensors   how tasks mix skills: trained, so it cannot be computed again
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/io/file.h"
#include "quiver/library/catalogue.h"
#include "quiver/library/given.h"
#include "quiver/library/records.h"
#include "quiver/tensor/tensor.h"

namespace quiver::library {

/// Lengths of an artifact's key.
inline constexpr std::int64_t kMinArtifactKeyBytes = 8;
inline constexpr std::int64_t kMaxArtifactKeyBytes = 128;

/// A fault that verify() found.
struct Finding {
  std::string where;    ///< "adapter 'qnli'", "artifacts", ...
  std::string message;  ///< what is wrong, and how to mend it
};

/// How tasks mix the skills of a kind (Poly, MHR).
struct Mixing {
  torch::Tensor logits;  ///< [tasks, units, heads, skills]
  MixingMeta meta;       ///< which tasks and skills they are of
};

/// Throws unless a PEFT folder may be written to `folder`: as adapters::check_may_write, and kUsage for a library's own folder of an
/// adapter, which Library::add alone writes.
void check_may_write(const std::filesystem::path& folder, bool force);

/// A library folder. The catalogue is read when the object is made and by refresh(); methods that change it take the
/// library's lock, read it again, and write it atomically, so that two writers lose nothing and readers never wait.
/// Not thread-safe: one object per thread (and any number of processes). Copies share cache_fault() alone, which is guarded.
class Library {
 public:
  /// Throws kNotFound if `path` is no library folder, kUnsupported for another format version, kBadFormat.
  static Library open(const std::filesystem::path& path);
  /// Makes a new library in `path`, which may exist if it is empty. Throws kUsage if there is a library or another
  /// filled folder already, kNotFound if the parent folder does not exist, kIo.
  static Library create(const std::filesystem::path& path, const Base& base);
  /// Opens the library or makes it. Throws kMismatch if it is one of another base.
  static Library open_or_create(const std::filesystem::path& path, const Base& base);

  const std::filesystem::path& path() const { return path_; }
  const Base& base() const { return catalogue_.base; }
  /// Reads the catalogue again.
  void refresh();

  /// In name order.
  const std::map<std::string, AdapterEntry>& adapters() const { return catalogue_.adapters; }
  std::vector<std::string> adapter_names() const;
  /// nullptr if there is no such adapter.
  const AdapterEntry* find(const std::string& name) const;
  /// Throws kNotFound, naming a similar adapter if there is one.
  const AdapterEntry& at(const std::string& name) const;
  /// adapters/<name>, whether it is there or not.
  std::filesystem::path adapter_folder(const std::string& name) const;

  /// Throws kUsage if the adapter's folder holds files that Quiver does not write: such a folder is neither replaced nor removed. add and
  /// remove check it; long work asks before.
  void check_own_folder(const std::string& name) const;
  /// Stores an adapter under adapter.name. An adapter of that name is replaced only with `force`; a folder that is
  /// there without being in the catalogue (a writer was killed) counts only if its tensors differ. Throws kUsage, or
  /// kMismatch if the adapter is of another base (by fingerprint, or by name where a fingerprint is missing).
  void add(const adapters::LoraAdapter& adapter, const AdapterInfo& info, bool force = false);
  /// The same for a PEFT folder: its configuration and tensors, and a README.md, are copied byte for byte. Throws kMismatch if the files
  /// are not those that were read.
  void add(const GivenAdapter& given, const AdapterInfo& info, bool force = false);
  /// The same for many, in one writing of the catalogue: if one cannot be added, nothing is. Throws also kUsage for two of one name.
  void add(std::span<const GivenAdapter> given, const AdapterInfo& info, bool force = false);
  /// Enters a PEFT folder that was put into adapters/ by hand into the catalogue, as it is. Errors as add.
  void adopt(const std::string& name, const AdapterInfo& info);
  /// An adapter whose files are as given is one of the library's base, whatever they say. Throws kNotFound, or what load_peft throws.
  adapters::LoraAdapter load(const std::string& name) const;
  /// The named adapters, each with a LoRA at every path that one of them adapts (adapters::complete). Errors as load.
  std::vector<adapters::LoraAdapter> load_alike(std::span<const std::string> names) const;
  /// Takes an adapter out of the catalogue and removes its folder. Throws kNotFound.
  void remove(const std::string& name);
  /// Copies the adapter's folder, which PEFT can read, to `destination`, all of it or nothing. Throws kNotFound, or
  /// kUsage if there is something already that `force` does not allow to replace.
  void export_adapter(const std::string& name, const std::filesystem::path& destination, bool force = false) const;

  /// Named groups of tasks, as a clustering gives them.
  const std::map<std::string, std::vector<std::string>>& groups() const { return catalogue_.groups; }
  /// What is known of how the groups came about; null if nothing.
  const nlohmann::json& groups_provenance() const { return catalogue_.groups_provenance; }
  /// Replaces all groups. Throws kUsage for a task that is in two of them.
  void set_groups(const std::map<std::string, std::vector<std::string>>& groups, const nlohmann::json& provenance);
  /// Adds tasks to a group that is there; the provenance stays, and names under "joined" the group of each. Throws kNotFound for another
  /// group, kUsage for a task that is in a group already.
  void extend_group(const std::string& group, const std::vector<std::string>& tasks);

  /// Reads everything again and reports what is wrong: changed or unreadable files, numbers that are not finite, shapes
  /// that disagree between adapters, folders that are not in the catalogue, broken artifacts. Empty if all is well.
  std::vector<Finding> verify() const;

  /// Tensors stored under `key` (hexadecimal digits: the hash of whatever they were computed from), or nullopt if there
  /// are none or they are damaged: an artifact can always be computed again. Never interpreted here. Throws kUsage for
  /// another key.
  std::optional<tensor::TensorMap> find_artifact(const std::string& key) const;
  /// What store_artifact was told about the tensors; nullopt as find_artifact.
  std::optional<nlohmann::json> find_artifact_meta(const std::string& key) const;
  /// Keeps tensors under `key` for next time. Where they cannot be written (a read-only library, a full disk), cache_fault() says so, and
  /// nothing is lost: the tensors are computed again. Throws kUsage for another key.
  void store_artifact(const std::string& key, const tensor::TensorMap& tensors, const nlohmann::json& meta) const;

  /// What kept the first artifact from being written, empty if nothing did. Shared by copies.
  std::string cache_fault() const;

  /// Stored by store_mixing under `name`; nullopt if there is nothing. Throws kBadFormat for a damaged file.
  std::optional<Mixing> find_mixing(const std::string& name) const;
  /// Replaces what is stored under `name`, atomically. Throws kUsage for a name that cannot name an adapter, kIo.
  void store_mixing(const std::string& name, const Mixing& mixing) const;

 private:
  explicit Library(std::filesystem::path path);
  /// Makes a library of the folder, which may not exist yet, unless it is one. True if it was this call that made it, false if it was there
  /// or another process was faster. Throws kUsage for a folder that holds other things, kNotFound, kIo.
  static bool establish(const std::filesystem::path& path, const Base& base);
  io::FileLock lock() const;
  void write(const Catalogue& catalogue);
  void check_base(const adapters::LoraAdapter& adapter) const;
  enum class Files { kOfQuiver, kAsGiven };
  /// An adapter whose files `fill` writes into a folder.
  struct Publication {
    const adapters::LoraAdapter& adapter;
    Files files;
    std::function<void(const std::filesystem::path&)> fill;
  };
  static Publication publication_of(const GivenAdapter& given);
  /// Publishes the folders, and the entries of them.
  void publish(std::span<const Publication> all, const AdapterInfo& info, bool force);

  std::filesystem::path path_;
  Catalogue catalogue_;
  struct CacheFault {
    std::mutex mutex;
    std::string text;
  };
  std::shared_ptr<CacheFault> cache_fault_ = std::make_shared<CacheFault>();
};

}  // namespace quiver::library
