#include "quiver/train/checkpoint.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::train {
namespace {

std::string described(io::Dtype dtype, std::span<const std::int64_t> shape) {
  std::string text = std::string(io::dtype_name(dtype)) + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) text += format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

/// The parts of a checkpoint, each checked as it is read.
class Reader {
 public:
  explicit Reader(const io::SafetensorsView& view) : view_(view) {}

  const io::TensorEntry& at(const char* name) const {
    const auto* entry = view_.find(name);
    if (entry == nullptr)
      fail(ErrorKind::kBadFormat, "checkpoint '{}' lacks the tensor '{}'; delete it to start anew", view_.origin(), name);
    return *entry;
  }

  /// A tensor like `other`, or of any length where it is the first of its kind.
  const io::TensorEntry* parameters(const char* name, const io::TensorEntry* other) const {
    const auto& entry = at(name);
    const bool is_float = entry.dtype == io::Dtype::kF32 || entry.dtype == io::Dtype::kF64;
    if (!is_float || entry.shape.size() != 1) refuse(name, entry, "F32 or F64 [P]");
    if (other != nullptr && (entry.dtype != other->dtype || entry.shape != other->shape)) {
      refuse(name, entry, described(other->dtype, other->shape));
    }
    return &entry;
  }

  /// The numbers of a tensor of `count` elements, or of any number of rows of -`count`.
  template <typename T>
  std::vector<T> numbers(const char* name, io::Dtype dtype, std::int64_t count, const char* expected) const {
    const auto& entry = at(name);
    const auto& shape = entry.shape;
    const auto size = static_cast<std::int64_t>(entry.data.size() / sizeof(T));
    const bool is_list = count >= 0 ? size == count && shape.size() <= 1
                                    : !shape.empty() && (count == -1 ? shape.size() == 1 : shape.size() == 2 && shape[1] == -count);
    if (entry.dtype != dtype || !is_list) refuse(name, entry, expected);
    std::vector<T> values(static_cast<std::size_t>(size));
    if (size > 0) std::memcpy(values.data(), entry.data.data(), entry.data.size());
    return values;
  }

  template <typename... Args>
  [[noreturn]] void damaged(std::string_view text, const Args&... args) const {
    fail(ErrorKind::kBadFormat, "checkpoint '{}' {}; delete it to start anew", view_.origin(), format(text, args...));
  }

 private:
  [[noreturn]] void refuse(const char* name, const io::TensorEntry& entry, std::string_view expected) const {
    damaged("has the tensor '{}' {}; expected {}", name, described(entry.dtype, entry.shape), expected);
  }

  const io::SafetensorsView& view_;
};

}  // namespace

Checkpoint parse_checkpoint(const io::SafetensorsView& view) {
  const Reader reader(view);
  Checkpoint result;
  result.values = reader.parameters("values", nullptr);
  result.first = reader.parameters("first", result.values);
  result.second = reader.parameters("second", result.values);
  if (view.find("best_values") != nullptr) result.best_values = reader.parameters("best_values", result.values);
  result.optimizer_steps = reader.numbers<std::int64_t>("steps", io::Dtype::kI64, 1, "I64 [1]").front();
  const auto counters = reader.numbers<std::int64_t>("counters", io::Dtype::kI64, 3, "I64 [3]");
  result.steps = counters[0];
  result.tokens = counters[1];
  result.rows = counters[2];
  result.seconds = reader.numbers<double>("seconds", io::Dtype::kF64, 1, "F64 [1]").front();
  result.losses = reader.numbers<double>("losses", io::Dtype::kF64, -1, "F64 [steps]");
  const auto pairs = reader.numbers<double>("validations", io::Dtype::kF64, -2, "F64 [validations, 2]");
  if (result.steps < 0 || result.steps != static_cast<std::int64_t>(result.losses.size()) || result.optimizer_steps != result.steps) {
    reader.damaged("is at step {} with {} losses and {} steps of the optimizer", result.steps, result.losses.size(),
                   result.optimizer_steps);
  }
  if (result.tokens < 0 || result.rows < 0 || !(result.seconds >= 0)) {
    reader.damaged("counts {} tokens, {} rows and {} seconds", result.tokens, result.rows, result.seconds);
  }
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    const double step = pairs[i];
    if (!(step >= 0 && step <= static_cast<double>(result.steps)) || step != std::floor(step)) {
      reader.damaged("has a validation at step {} of {}", step, result.steps);
    }
    result.validations.push_back({static_cast<std::int64_t>(step), pairs[i + 1]});
  }
  return result;
}

}  // namespace quiver::train
