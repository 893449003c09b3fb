// What a server serves: names, what computes each, and how they change.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quiver/api/generation.h"
#include "quiver/api/responses.h"
#include "quiver/api/tokenize.h"
#include "quiver/schedule/engine.h"

namespace quiver::serve {

/// What computes the requests that name a model.
struct Resolved {
  schedule::AssignmentPtr assignment;
  bool decides_by_prompt = false;        ///< its method chooses once per prompt, from the prompt alone
  std::vector<std::string> routed = {};  ///< the adapters that rows are routed to, by their indices; empty: none are
  std::int64_t num_layers = 0;
  std::int64_t num_routed_maps = 0;  ///< linear maps with a router
};

/// The names that requests may use. Thread-safe.
class Models {
 public:
  virtual ~Models() = default;
  /// All names, the base first.
  virtual std::vector<api::ModelObject> list() const = 0;
  /// What computes a name with a request's options, if it is in memory; else nothing. Quick. Throws ApiError: kModelNotFound for a name
  /// that is not served, kInvalidRequest for options that do not fit it.
  virtual std::optional<Resolved> find(const std::string& name, const api::QuiverOptions& options) = 0;
  /// The same; loads what is not in memory, which takes a while.
  virtual Resolved load(const std::string& name, const api::QuiverOptions& options) = 0;

  /// Serves one more adapter, or another under a name. Throws ApiError.
  virtual void load_adapter(const api::LoadAdapterRequest& request) = 0;
  /// No longer serves an adapter. Requests that use it, alone or in a method, end as they began. The pointers that are returned have
  /// expired when the last of them has ended.
  virtual std::vector<std::weak_ptr<const schedule::Assignment>> unload_adapter(const std::string& name) = 0;

  /// What the page's library view shows (docs/serving-page.md).
  virtual nlohmann::json library() = 0;
  /// Which adapters the tokens of a prompt are routed to by the model of that name: a trace document (docs/results.md). Takes a while.
  virtual nlohmann::json trace(const std::string& name, const api::QuiverOptions& options, const std::vector<std::int32_t>& prompt) = 0;
};

}  // namespace quiver::serve
