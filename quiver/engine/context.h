// What computes a request beside the base: an adapter, a merge, or a routed method of a library.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/schedule/engine.h"

namespace quiver::engine {

/// The base with some adapters, used by one method. Immutable but for what its chooser remembers; thread-safe.
struct Context : schedule::Assignment {
  explicit Context(methods::AdaptedModel m);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  methods::AdaptedModel model;
  std::vector<const nn::Linear*> linears;  ///< of the model, in path order
  /// It differs from the base in what is added to linear maps of the blocks alone, so that its rows may stand beside others'.
  bool shares_passes = true;
};
using ContextPtr = std::shared_ptr<const Context>;

/// A context, and which group its method has chosen for a prompt.
struct DecidedContext : schedule::Assignment {
  ContextPtr context;
  routing::GroupLease group;  ///< null: nothing is decided per prompt
};

/// The context of the base alone.
ContextPtr base_context(const methods::BaseModel& base);
/// The context of an adapter use. Its key names base, method, options and adapters by content (methods::begin_run_key). Loads and checks
/// adapters: not for the thread that computes passes. `observer` sees what its routers choose, and must outlive it. Throws as
/// methods::adapted_model, and kMismatch if files change meanwhile.
ContextPtr load_context(const methods::BaseModel& base, const methods::AdapterUse& use, Progress& progress,
                        routing::RouteObserver* observer = nullptr);

/// Whether rows of a model with adapters may stand beside those of the base in one pass (Context::shares_passes).
bool can_share_passes(const model::Model& adapted, const model::Model& base);

/// The group that the context's method chooses for a prompt; runs the base over it.
std::shared_ptr<const DecidedContext> decide(ContextPtr context, std::span<const std::int32_t> prompt);

}  // namespace quiver::engine
