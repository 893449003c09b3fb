#include "quiver/engine/catalogue.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <string_view>
#include <utility>

#include "quiver/api/error.h"
#include "quiver/base/error.h"
#include "quiver/cluster/mbc.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/methods/composed_name.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/trace.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::engine {
namespace {

using api::ApiError;
using api::Reason;
using methods::AdapterUse;
using methods::Family;
using nlohmann::json;
namespace fs = std::filesystem;

/// The library's folder is looked at no more often.
constexpr std::chrono::seconds kLookInterval{1};

std::int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// The last part of a name such as "HuggingFaceTB/SmolLM2-135M", with what a name may not hold replaced.
std::string served_name(const std::string& name) {
  std::string served;
  for (const char c : name.substr(name.rfind('/') + 1)) served += api::is_model_name(std::string(1, c)) ? c : '-';
  return served.empty() ? "base" : served;
}

/// A method that can be used by its name alone: none that wants a name or files of tasks.
bool is_served(const methods::Method& method) {
  if (method.argument() != nullptr) return false;
  return std::ranges::none_of(method.options, [](const methods::Option& option) {
    return option.type == methods::OptionType::kTaskData && option.about.needs.empty();
  });
}

/// Bytes of an adapter's file; 0 where it cannot be seen.
std::int64_t adapter_bytes(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(fs::is_directory(path, error) ? path / "adapter_model.safetensors" : path, error);
  return error ? 0 : static_cast<std::int64_t>(bytes);
}

const char* decides(const AdapterUse& use) {
  if (!use.source.adapter.empty()) return "once";
  switch (use.method.row().family) {
    case Family::kToken: return "token";
    case Family::kPrompt: return "prompt";
    default: return "once";
  }
}

/// Tells what loading has to say, such as that an adapter was trained on another format of prompts.
class Messages : public NoProgress {
 public:
  explicit Messages(const std::function<void(const std::string&)>& say) : say_(say) {}
  void message(std::string_view line) override {
    if (say_) say_(std::string(line));
  }

 private:
  const std::function<void(const std::string&)>& say_;
};

}  // namespace

Catalogue::Catalogue(const methods::BaseModel& base, CatalogueOptions options, std::shared_ptr<RouteTracer> tracer)
    : base_(base),
      options_(std::move(options)),
      tracer_(std::move(tracer)),
      base_name_(served_name(base.lm.spec().name)),
      created_(seconds_now()),
      base_context_(base_context(base)),
      contexts_(options_.max_contexts) {
  if (!options_.library.empty()) {
    library_ = library::Library::open(options_.library);
    library_time_ = fs::last_write_time(library_->path() / "quiver.json");
    const auto& of = library_->base();
    if (!options_.allow_other_base && !of.fingerprint.empty() && of.fingerprint != base.lm.fingerprint()) {
      fail(ErrorKind::kMismatch,
           "library '{}' is of base '{}', and the server's is '{}' (other weights; `allow_other_base` uses it all the same)",
           options_.library, of.name, base.lm.spec().name);
    }
  }
  for (auto& folder : options_.adapter_folders) folder = fs::canonical(folder);
  names_ = names_now();
  for (const auto& [alias, target] : options_.aliases) {
    if (!api::is_model_name(alias)) fail(ErrorKind::kUsage, "the alias '{}' is no name; expected letters, digits and . _ : + -", alias);
    if (names_.contains(alias)) fail(ErrorKind::kUsage, "the alias '{}' is the name of a model already", alias);
    if (const auto found = names_.find(target); found != names_.end()) {
      names_[alias] = {"alias", found->second.use};
      continue;
    }
    if (!library_) fail(ErrorKind::kUsage, "the alias '{}' stands for '{}', and there is no library", alias, target);
    const auto name = methods::parse_name(target);
    AdapterUse use{.source = {.library = options_.library, .kind = name.kind, .allow_other_base = options_.allow_other_base},
                   .method = name.use};
    names_[alias] = {"alias", std::move(use)};
  }
}

/// All names but aliases. The short form of a method's name wins over an adapter's.
std::map<std::string, Catalogue::Meaning> Catalogue::names_now() const {
  std::map<std::string, Meaning> names;
  names["base"] = names[base_name_] = {"base", std::nullopt};
  if (library_) add_library_names(names);
  for (const auto& [name, use] : added_) {  // which take the place of the library's
    names["adapter:" + name] = {"adapter", use};
    auto& short_form = names[name];
    if (short_form.kind.empty() || short_form.kind == "adapter") short_form = {"adapter", use};
  }
  return names;
}

/// The names as they are now, and the aliases as they were. With mutex_.
void Catalogue::name_again() const {
  auto names = names_now();
  for (const auto& [name, meaning] : names_) {
    if (meaning.kind == "alias") names.try_emplace(name, meaning);
  }
  names_ = std::move(names);
}

void Catalogue::add_library_names(std::map<std::string, Meaning>& names) const {
  std::set<std::string> kinds;
  for (const auto& [name, entry] : library_->adapters()) {
    if (!hidden_.contains(name)) kinds.insert(library::kind_name(entry.info.kind));
  }
  for (const auto& method : methods::reuse_methods()) {
    if (!is_served(method) || kinds.empty()) continue;
    AdapterUse use{.source = {.library = options_.library, .allow_other_base = options_.allow_other_base}, .method = {.name = method.name}};
    names["method:" + method.name] = {"method", use};
    names.try_emplace(method.name, Meaning{"method", use});
    for (const auto& kind : kinds) {
      if (kinds.size() == 1) break;  // the method's name alone says the same
      use.source.kind = kind;
      names[kind + "-" + method.name] = {"method", use};
    }
  }
  for (const auto& [name, entry] : library_->adapters()) {
    if (hidden_.contains(name)) continue;
    AdapterUse use{.source = {.adapter = library_->adapter_folder(name).string()}};
    use.source.allow_other_base = options_.allow_other_base || entry.is_as_given;
    names["adapter:" + name] = {"adapter", use};
    names.try_emplace(name, Meaning{"adapter", use});
  }
}

std::vector<std::string> Catalogue::notes() const {
  std::vector<std::string> notes;
  const std::lock_guard lock(mutex_);
  if (!library_) return notes;
  for (const auto& [name, entry] : library_->adapters()) {
    const auto found = names_.find(name);
    if (found != names_.end() && found->second.kind != "adapter") {
      notes.push_back(format("the name '{}' means the {}; the adapter of this name is 'adapter:{}'", name, found->second.kind, name));
    }
  }
  return notes;
}

/// Reads the library's catalogue again where it has changed. With mutex_.
void Catalogue::refresh() const {
  if (!library_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_look_ < kLookInterval) return;
  last_look_ = now;
  std::error_code error;
  const auto time = fs::last_write_time(library_->path() / "quiver.json", error);
  if (error || time == library_time_) return;
  try {
    library_->refresh();
  } catch (const Error&) {
    return;  // as it was: whoever writes it may not have ended
  }
  library_time_ = time;
  ++generation_;
  std::erase_if(hidden_, [&](const auto& unloaded) {  // what takes the place of an unloaded adapter is served
    const auto* entry = library_->find(unloaded.first);
    return entry == nullptr || entry->sha256 != unloaded.second;
  });
  contexts_.clear();  // of the generation before: nobody asks for them again
  name_again();
}

/// With mutex_.
Catalogue::Meaning Catalogue::meaning_of(const std::string& name, const api::QuiverOptions& options) const {
  refresh();
  const auto found = names_.find(name);
  if (found == names_.end()) {
    std::vector<std::string> served;
    for (const auto& [other, meaning] : names_) served.push_back(other);
    throw api::model_not_found(name, served);
  }
  auto meaning = found->second;
  const auto refuse = [&](const char* param, std::string_view why) {
    throw ApiError(Reason::kInvalidRequest, format("'{}' {}", name, why), std::string("quiver.") + param);
  };
  const bool is_of_library = meaning.use && !meaning.use->source.library.empty();
  const auto expect_served = [&](const char* param, const std::string& adapter) {
    if (hidden_.contains(adapter)) refuse(param, format("cannot use the adapter '{}': it was unloaded", adapter));
  };
  if (!options.weights.empty()) {
    if (!library_) refuse("weights", "has no library whose adapters could be mixed");
    AdapterUse use{.source = {.library = options_.library, .allow_other_base = options_.allow_other_base}, .method = {.name = "cat"}};
    for (const auto& [adapter, weight] : options.weights) {
      expect_served("weights", adapter);
      use.source.names.push_back(adapter);
      use.method.options["weights"][adapter] = weight;
    }
    return {"method", use};
  }
  if (options.adapters) {
    if (!is_of_library) refuse("adapters", "chooses among no adapters");
    for (const auto& adapter : *options.adapters) expect_served("adapters", adapter);
    meaning.use->source.names = *options.adapters;
    meaning.use->source.kind.clear();
  }
  const auto set = [&](const char* option, const json& value) {
    if (!is_of_library || !meaning.use->method.row().has(option)) refuse(option, format("has no option {}", option));
    meaning.use->method.options[option] = value;
  };
  if (options.top_k) set("top_k", *options.top_k);
  if (options.temperature) set("temperature", *options.temperature);
  if (is_of_library && meaning.use->source.names.empty() && !hidden_.empty()) {
    for (auto& member : methods::library_members(*library_, meaning.use->source)) {
      if (!hidden_.contains(member)) meaning.use->source.names.push_back(std::move(member));
    }
  }
  return meaning;
}

/// What contexts are kept by. With mutex_.
std::string Catalogue::key_of(const Meaning& meaning) const {
  if (!meaning.use) return "";
  const auto& [source, method] = *meaning.use;
  const auto version = versions_.find(source.adapter);
  const json key = {source.adapter, version == versions_.end() ? 0 : version->second,      source.library, generation_, source.kind,
                    source.names,   source.adapter.empty() ? methods::text_of(method) : ""};
  return key.dump();
}

/// The folders of the adapters in a context. With mutex_.
std::vector<std::string> Catalogue::folders_of(const Meaning& meaning) const {
  const auto& source = meaning.use->source;
  if (!source.adapter.empty()) return {source.adapter};
  std::vector<std::string> folders;
  for (const auto& member : methods::library_members(*library_, source)) folders.push_back(library_->adapter_folder(member).string());
  return folders;
}

std::optional<serve::Resolved> Catalogue::find(const std::string& name, const api::QuiverOptions& options) {
  const std::lock_guard lock(mutex_);
  const auto meaning = meaning_of(name, options);
  if (!meaning.use) return resolved(base_context_);
  auto context = contexts_.find(key_of(meaning));
  if (context == nullptr) return std::nullopt;
  return resolved(std::move(context));
}

serve::Resolved Catalogue::resolved(ContextPtr context) const {
  serve::Resolved resolved{.decides_by_prompt = context->model.chooser != nullptr, .routed = context->model.routed};
  resolved.num_layers = std::ssize(base_.lm.blocks());
  if (!resolved.routed.empty()) {
    for (const auto& [path, linear] : context->model.lm.linears()) resolved.num_routed_maps += linear.has_updates() ? 1 : 0;
  }
  resolved.assignment = std::move(context);
  return resolved;
}

serve::Resolved Catalogue::load(const std::string& name, const api::QuiverOptions& options) {
  const std::lock_guard loading(load_mutex_);
  if (auto found = find(name, options)) return *found;  // somebody else was faster
  Meaning meaning;
  std::string key;
  std::vector<std::string> folders;
  {
    const std::lock_guard lock(mutex_);
    meaning = meaning_of(name, options);
    key = key_of(meaning);
    folders = folders_of(meaning);
  }
  Messages messages(options_.say);
  const auto context = load_context(base_, *meaning.use, messages, tracer_.get());
  const std::lock_guard lock(mutex_);
  const bool is_current = key == key_of(meaning_of(name, options));  // throws for what was unloaded meanwhile
  contexts_.note(context, std::move(folders));
  if (is_current) contexts_.keep(key, context);
  return resolved(context);
}

void Catalogue::load_adapter(const api::LoadAdapterRequest& request) {
  const std::lock_guard loading(load_mutex_);
  {
    const std::lock_guard lock(mutex_);
    refresh();
    const auto found = names_.find(request.name);
    const bool is_adapter = found != names_.end() && found->second.kind == "adapter";
    if (found != names_.end() && !is_adapter) {
      throw ApiError(Reason::kAdapterExists, format("the name '{}' means the {} already", request.name, found->second.kind), "lora_name");
    }
    if (is_adapter && !request.replaces) {
      throw ApiError(Reason::kAdapterExists, format("an adapter '{}' is served already; load_inplace replaces it", request.name),
                     "lora_name");
    }
  }
  std::error_code error;
  const auto path = fs::canonical(request.path, error);
  const auto is_inside = [&](const fs::path& folder) { return std::ranges::mismatch(folder, path).in1 == folder.end(); };
  auto folders = options_.adapter_folders;
  if (library_) folders.push_back(fs::canonical(library_->path()));
  if (error || std::ranges::none_of(folders, is_inside)) {
    throw ApiError(Reason::kForbidden,
                   format("'{}' is not in the library, nor in a folder that the server may load adapters from", api::clipped(request.path)),
                   "lora_path");
  }
  AdapterUse use{.source = {.adapter = path.string(), .allow_other_base = options_.allow_other_base}};
  Messages messages(options_.say);
  const auto context = load_context(base_, use, messages, tracer_.get());
  const std::lock_guard lock(mutex_);
  if (const auto replaced = added_.find(request.name); replaced != added_.end()) contexts_.forget(replaced->second.source.adapter);
  added_[request.name] = use;
  ++versions_[use.source.adapter];
  hidden_.erase(request.name);
  name_again();
  contexts_.note(context, {use.source.adapter});
  contexts_.keep(key_of({"adapter", use}), context);
}

std::vector<std::weak_ptr<const schedule::Assignment>> Catalogue::unload_adapter(const std::string& name) {
  const std::lock_guard lock(mutex_);
  refresh();
  const auto found = names_.find(name);
  if (found == names_.end() || found->second.kind != "adapter") {
    std::vector<std::string> served;
    for (const auto& [other, meaning] : names_) {
      if (meaning.kind == "adapter" && !other.starts_with("adapter:")) served.push_back(other);
    }
    throw api::model_not_found(name, served);
  }
  auto in_use = contexts_.forget(found->second.use->source.adapter);
  const auto plain = name.starts_with("adapter:") ? name.substr(8) : name;
  added_.erase(plain);
  if (const auto* entry = library_ ? library_->find(plain) : nullptr) hidden_[plain] = entry->sha256;
  name_again();
  return in_use;
}

api::ModelObject Catalogue::object_of(const std::string& name, const Meaning& meaning) const {
  api::ModelObject object{.id = name, .created = created_, .max_model_len = base_.lm.spec().max_positions, .kind = meaning.kind};
  if (!meaning.use) {
    object.sha256 = base_.lm.content_hash();
    return object;
  }
  const auto& [source, method] = *meaning.use;
  object.parent = base_name_;
  object.decides = decides(*meaning.use);
  object.is_ready = contexts_.contains(key_of(meaning));
  if (!source.adapter.empty()) {
    const auto plain = name.starts_with("adapter:") ? name.substr(8) : name;
    object.adapters = {plain};
    object.bytes = adapter_bytes(source.adapter);
    if (const auto* entry = library_ ? library_->find(plain) : nullptr) object.sha256 = entry->sha256;
    return object;
  }
  object.method = methods::text_of(method);
  return object;
}

std::vector<api::ModelObject> Catalogue::list() const {
  const std::lock_guard lock(mutex_);
  refresh();
  std::vector<api::ModelObject> objects;
  for (const auto* kind : {"base", "alias", "method", "adapter"}) {
    for (const auto& [name, meaning] : names_) {
      const bool is_long_form = name.starts_with("method:") || name.starts_with("adapter:");
      if (meaning.kind == kind && api::is_model_name(name) && !is_long_form) objects.push_back(object_of(name, meaning));
    }
  }
  return objects;
}

/// The matrix that model-based clustering groups by, of the adapters that methods choose from; null where there is none.
json Catalogue::similarity() {
  constexpr std::size_t kMostAdapters = 512;
  std::uint64_t generation = 0;
  std::optional<library::Library> library;
  {
    const std::lock_guard lock(mutex_);
    refresh();
    if (!library_) return nullptr;
    if (similarity_ && similarity_->first == generation_) return similarity_->second;
    generation = generation_;
    library = library_;
  }
  json result = nullptr;
  try {
    const auto names = methods::library_members(*library, {.library = options_.library});
    if (names.size() > 1 && names.size() <= kMostAdapters) {
      const cluster::MbcOptions mbc;
      const auto adapters = library->load_alike(names);
      const auto cosine =
          cluster::cosine_similarity(cluster::embed(cluster::gram_of_factors(adapters, mbc.sparsity), mbc.svd_components)).contiguous();
      json values = json::array();
      const auto count = static_cast<std::int64_t>(names.size());
      const auto* each = tensor::raw_data<double>(cosine, "similarity of adapters", {count, count});
      for (std::int64_t i = 0; i < count; ++i) {
        json row = json::array();
        for (std::int64_t j = 0; j < count; ++j) row.push_back(std::round(each[i * count + j] * 1e4) / 1e4);
        values.push_back(std::move(row));
      }
      result = {{"names", names}, {"values", std::move(values)}};
    }
  } catch (const Error&) {  // adapters of several shapes are not compared
    result = nullptr;
  }
  const std::lock_guard lock(mutex_);
  similarity_ = {generation, result};
  return result;
}

json Catalogue::library() {
  auto similar = similarity();
  const std::lock_guard lock(mutex_);
  refresh();
  json methods = json::array(), adapters = json::array(), groups = json::object();
  for (const auto& method : methods::reuse_methods()) {
    if (library_ && is_served(method)) {
      const char* family = method.family == Family::kToken ? "token" : method.family == Family::kPrompt ? "prompt" : "once";
      methods.push_back({{"name", method.name}, {"family", family}, {"what", method.what}});
    }
  }
  if (library_) {
    for (const auto& [name, entry] : library_->adapters()) {
      if (hidden_.contains(name)) continue;
      adapters.push_back({{"name", name},
                          {"kind", library::kind_name(entry.info.kind)},
                          {"tasks", entry.info.tasks},
                          {"rank", entry.rank},
                          {"bytes", adapter_bytes(library_->adapter_folder(name))},
                          {"sha256", entry.sha256},
                          {"group", entry.info.group.empty() ? json(nullptr) : json(entry.info.group)}});
    }
    groups = library_->groups();
  }
  for (const auto& [name, use] : added_) {
    if (library_ && library_->find(name) != nullptr) continue;
    adapters.push_back(
        {{"name", name}, {"kind", "added"}, {"tasks", json::array()}, {"rank", 0}, {"bytes", 0}, {"sha256", ""}, {"group", nullptr}});
  }
  return {{"base", base_name_}, {"methods", methods}, {"adapters", adapters}, {"groups", groups}, {"similarity", std::move(similar)}};
}

json Catalogue::trace(const std::string& name, const api::QuiverOptions& options, const std::vector<std::int32_t>& prompt) {
  Meaning meaning;
  {
    const std::lock_guard lock(mutex_);
    meaning = meaning_of(name, options);
  }
  if (!meaning.use || meaning.use->source.library.empty() || decides(*meaning.use) == std::string("once")) {
    throw ApiError(Reason::kInvalidRequest, format("'{}' routes nothing: name a method that decides per token or per prompt", name),
                   "model");
  }
  Messages messages(options_.say);
  return recipes::trace_routes(base_, *meaning.use, prompt, messages);
}

}  // namespace quiver::engine
