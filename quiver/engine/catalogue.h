// The names that a server serves over one base and one library.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "quiver/engine/context.h"
#include "quiver/engine/context_store.h"
#include "quiver/engine/route_tracer.h"
#include "quiver/library/library.h"
#include "quiver/serve/models.h"

namespace quiver::engine {

struct CatalogueOptions {
  std::string library;                                 ///< a library folder; empty: none
  std::vector<std::filesystem::path> adapter_folders;  ///< whose adapters may be loaded by name while the server runs
  std::map<std::string, std::string> aliases;  ///< a name -> a name of a method or adapter, or a method with options as methods::parse_name
  bool allow_other_base = false;
  std::function<void(const std::string&)> say;  ///< is told what loading has to say; may be empty
  std::size_t max_contexts = 64;                ///< in memory beside those that requests use; those that were used last
};

/// Names, and contexts made when they are asked for. Follows the library on disk: an adapter that is added, replaced or removed there
/// counts from the next request on. Thread-safe; loads one context at a time.
class Catalogue : public serve::Models {
 public:
  /// The base must outlive the catalogue. `tracer` observes all contexts. Throws as Library::open, kMismatch for a library of another base,
  /// and kUsage for an alias whose name is taken or whose target there is not.
  Catalogue(const methods::BaseModel& base, CatalogueOptions options, std::shared_ptr<RouteTracer> tracer);

  std::vector<api::ModelObject> list() const override;
  std::optional<serve::Resolved> find(const std::string& name, const api::QuiverOptions& options) override;
  serve::Resolved load(const std::string& name, const api::QuiverOptions& options) override;
  void load_adapter(const api::LoadAdapterRequest& request) override;
  std::vector<std::weak_ptr<const schedule::Assignment>> unload_adapter(const std::string& name) override;
  nlohmann::json library() override;
  nlohmann::json trace(const std::string& name, const api::QuiverOptions& options, const std::vector<std::int32_t>& prompt) override;

  const std::string& base_name() const { return base_name_; }
  /// What a user should know of names at the start, a line each.
  std::vector<std::string> notes() const;

 private:
  /// What a name means.
  struct Meaning {
    std::string kind;                        // "base", "method", "adapter", "alias"
    std::optional<methods::AdapterUse> use;  // none: the base
  };
  std::map<std::string, Meaning> names_now() const;
  void name_again() const;
  void add_library_names(std::map<std::string, Meaning>& names) const;
  Meaning meaning_of(const std::string& name, const api::QuiverOptions& options) const;
  void refresh() const;
  std::string key_of(const Meaning& meaning) const;
  std::vector<std::string> folders_of(const Meaning& meaning) const;
  nlohmann::json similarity();
  serve::Resolved resolved(ContextPtr context) const;
  api::ModelObject object_of(const std::string& name, const Meaning& meaning) const;

  const methods::BaseModel& base_;
  CatalogueOptions options_;
  std::shared_ptr<RouteTracer> tracer_;
  std::string base_name_;
  std::int64_t created_;
  ContextPtr base_context_;

  mutable std::mutex load_mutex_;  // one loads
  mutable std::mutex mutex_;       // of what follows
  mutable std::optional<library::Library> library_;
  mutable std::filesystem::file_time_type library_time_;
  mutable std::chrono::steady_clock::time_point last_look_;
  mutable std::uint64_t generation_ = 0;  // of the library's content
  mutable std::map<std::string, Meaning> names_;
  std::map<std::string, methods::AdapterUse> added_;                    // adapters that were loaded by name
  std::map<std::string, std::uint64_t> versions_;                       // of added_, which replace each other
  mutable std::map<std::string, std::string> hidden_;                   // adapters of the library that were unloaded, with their sha256
  mutable ContextStore contexts_;                                       // by key_of
  std::optional<std::pair<std::uint64_t, nlohmann::json>> similarity_;  // of a generation
};

}  // namespace quiver::engine
