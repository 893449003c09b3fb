// Models for tests of the service, and its options with them.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "quiver/api/error.h"
#include "quiver/serve/models.h"
#include "quiver/serve/service.h"
#include "quiver/serve/test_support.h"

namespace quiver::serve {

using nlohmann::json;

/// base, two adapters, a method that routes over them, one that decides by prompt, and one that has to be loaded.
class FakeModels : public Models {
 public:
  FakeModels() {
    for (const auto* name : {"tiny", "red", "blue", "arrow", "pooled", "slow"}) names_[name] = assignment_of(name);
  }
  std::vector<api::ModelObject> list() const override {
    const std::lock_guard lock(mutex_);
    std::vector<api::ModelObject> all = {{.id = "tiny", .kind = "base"}};
    for (const auto& [name, assignment] : names_) {
      if (name == "tiny") continue;
      const bool is_method = name == "arrow" || name == "pooled";
      all.push_back({.id = name, .parent = "tiny", .kind = is_method ? "method" : "adapter", .bytes = 100});
    }
    return all;
  }
  std::optional<Resolved> find(const std::string& name, const api::QuiverOptions& options) override {
    if (options.top_k && *options.top_k > 2) throw api::ApiError(api::Reason::kInvalidRequest, "too many", "quiver.top_k");
    const std::lock_guard lock(mutex_);
    if (name == "slow" && !is_slow_loaded_) return std::nullopt;
    return resolved(name);
  }
  Resolved load(const std::string& name, const api::QuiverOptions&) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const std::lock_guard lock(mutex_);
    is_slow_loaded_ = true;
    ++num_loads;
    return resolved(name);
  }
  void load_adapter(const api::LoadAdapterRequest& request) override {
    const std::lock_guard lock(mutex_);
    if (names_.contains(request.name) && !request.replaces) throw api::ApiError(api::Reason::kAdapterExists, "there is one");
    names_[request.name] = assignment_of(request.name + request.path);
  }
  std::vector<std::weak_ptr<const schedule::Assignment>> unload_adapter(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = names_.find(name);
    if (found == names_.end()) throw api::model_not_found(name, {});
    std::vector<std::weak_ptr<const schedule::Assignment>> in_use = {found->second};
    names_.erase(found);
    return in_use;
  }
  json library() override { return {{"base", "tiny"}, {"adapters", json::array()}}; }
  json trace(const std::string& name, const api::QuiverOptions&, const std::vector<std::int32_t>& prompt) override {
    return {{"model", name}, {"tokens", prompt}};
  }

  std::atomic<int> num_loads{0};

 private:
  Resolved resolved(const std::string& name) {
    const auto found = names_.find(name);
    if (found == names_.end()) throw api::model_not_found(name, {"tiny", "red"});
    Resolved model{.assignment = found->second, .decides_by_prompt = name == "pooled"};
    if (name == "arrow") model.routed = {"red", "blue"}, model.num_layers = 2, model.num_routed_maps = 8;
    return model;
  }
  mutable std::mutex mutex_;
  std::map<std::string, schedule::AssignmentPtr> names_;
  bool is_slow_loaded_ = false;
};

inline ServiceOptions service_options() {
  ServiceOptions options;
  options.base_name = "tiny";
  options.limits.vocab_size = 1500;
  options.limits.context_length = 4096;
  options.version = "1.2";
  options.max_sequences = 8;
  return options;
}

}  // namespace quiver::serve
