#include "quiver/train/checkpoint_file.h"

#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "quiver/base/error.h"

namespace quiver::train {
namespace {

constexpr std::int64_t kAny = -1;

struct EntrySpec {
  io::Dtype dtype;
  std::vector<std::int64_t> shape;  ///< kAny: any number
};

std::string describe(io::Dtype dtype, const std::vector<std::int64_t>& shape) {
  std::string sizes;
  for (const auto size : shape) sizes += (sizes.empty() ? "" : ", ") + (size == kAny ? "any" : std::to_string(size));
  return format("{} [{}]", io::dtype_name(dtype), sizes);
}

bool fits(const io::TensorEntry& entry, const EntrySpec& spec) {
  if (entry.dtype != spec.dtype || entry.shape.size() != spec.shape.size()) return false;
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    if (spec.shape[i] != kAny && entry.shape[i] != spec.shape[i]) return false;
  }
  return true;
}

/// The checkpoint has these tensors and no other.
void check_entries(const io::SafetensorsView& view, const CheckpointShape& shape) {
  const EntrySpec values = {shape.dtype, {shape.num_values}};
  std::map<std::string, EntrySpec> specs = {{"values", values},
                                            {"first", values},
                                            {"second", values},
                                            {"steps", {io::Dtype::kI64, {1}}},
                                            {"losses", {io::Dtype::kF64, {kAny}}},
                                            {"counters", {io::Dtype::kI64, {3}}},
                                            {"seconds", {io::Dtype::kF64, {1}}},
                                            {"validations", {io::Dtype::kF64, {kAny, 2}}}};
  if (view.find("best_values") != nullptr) specs.emplace("best_values", values);
  for (const auto& [name, spec] : specs) {
    const auto* entry = view.find(name);
    if (entry == nullptr) fail(ErrorKind::kBadFormat, "checkpoint '{}' lacks the tensor '{}'{}", view.origin(), name, kCheckpointHint);
    if (fits(*entry, spec)) continue;
    fail(ErrorKind::kBadFormat, "checkpoint '{}': tensor '{}' is {}; expected {}{}", view.origin(), name,
         describe(entry->dtype, entry->shape), describe(spec.dtype, spec.shape), kCheckpointHint);
  }
  for (const auto& entry : view.entries()) {
    if (specs.contains(entry.name)) continue;
    fail(ErrorKind::kBadFormat, "checkpoint '{}' holds a tensor '{}', which has no place in it{}", view.origin(), entry.name,
         kCheckpointHint);
  }
}

/// The elements of a tensor whose dtype was checked; its bytes need not be aligned.
template <class T>
std::vector<T> elements(const io::SafetensorsView& view, const char* name) {
  const auto data = view.at(name).data;
  std::vector<T> values(data.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), data.data(), values.size() * sizeof(T));
  return values;
}

/// The validations, and the step of the lowest loss.
void read_validations(const io::SafetensorsView& view, TrainStats& stats) {
  const auto numbers = elements<double>(view, "validations");
  double lowest = std::numeric_limits<double>::infinity();
  std::int64_t last = 0;
  for (std::size_t i = 0; i + 1 < numbers.size(); i += 2) {
    const double step = numbers[i], loss = numbers[i + 1];
    if (!(step > static_cast<double>(last) && step <= static_cast<double>(stats.steps))) {
      fail(ErrorKind::kBadFormat, "checkpoint '{}': validation {} is of step {}, after {} and at step {}{}", view.origin(), i / 2, step,
           last, stats.steps, kCheckpointHint);
    }
    last = static_cast<std::int64_t>(step);
    stats.validations.push_back({last, loss});
    if (loss >= lowest && i > 0) continue;
    lowest = loss;
    stats.best_step = last;
  }
}

}  // namespace

TrainStats checked_stats(const io::SafetensorsView& view, const CheckpointShape& shape) {
  check_entries(view, shape);
  TrainStats stats;
  const auto counters = elements<std::int64_t>(view, "counters");
  stats.steps = counters.at(0);
  stats.tokens = counters.at(1);
  stats.rows = counters.at(2);
  stats.seconds = elements<double>(view, "seconds").at(0);
  stats.losses = elements<double>(view, "losses");
  const auto optimizer_steps = elements<std::int64_t>(view, "steps").at(0);
  if (stats.steps < 0 || stats.steps > shape.num_steps || stats.steps != std::ssize(stats.losses) || stats.steps != optimizer_steps) {
    fail(ErrorKind::kBadFormat, "checkpoint '{}' is at step {} of {} with {} losses and {} steps of the optimiser{}", view.origin(),
         stats.steps, shape.num_steps, stats.losses.size(), optimizer_steps, kCheckpointHint);
  }
  if (stats.tokens < 0 || stats.rows < 0 || !(stats.seconds >= 0)) {
    fail(ErrorKind::kBadFormat, "checkpoint '{}' has seen {} tokens and {} rows in {} seconds; expected 0 or more{}", view.origin(),
         stats.tokens, stats.rows, stats.seconds, kCheckpointHint);
  }
  read_validations(view, stats);
  const bool has_best = view.find("best_values") != nullptr;
  if (stats.validations.empty() == has_best) {
    fail(ErrorKind::kBadFormat, "checkpoint '{}' holds {} validations and {} 'best_values'{}", view.origin(), stats.validations.size(),
         has_best ? "has" : "no", kCheckpointHint);
  }
  return stats;
}

}  // namespace quiver::train
