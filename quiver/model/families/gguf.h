// What the metadata of GGUF files of most families have in common.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "quiver/io/gguf.h"
#include "quiver/model/spec.h"

namespace quiver::model {

/// The metadata of one file, by keys without the architecture that they begin with.
class GgufConfig {
 public:
  explicit GgufConfig(const io::GgufView& gguf) : gguf_(gguf), prefix_(gguf.require_string("general.architecture") + ".") {}

  const io::GgufView& gguf() const { return gguf_; }
  const std::string& origin() const { return gguf_.origin(); }
  std::string key(const char* name) const { return prefix_ + name; }
  std::int64_t count(const char* name) const { return gguf_.require_int(key(name)); }
  std::int64_t count(const char* name, std::int64_t absent) const { return gguf_.find_int(key(name)).value_or(absent); }
  double number(const char* name) const { return gguf_.require_float(key(name)); }
  double number(const char* name, double absent) const { return gguf_.find_float(key(name)).value_or(absent); }
  bool flag(const char* name, bool absent) const { return gguf_.find_bool(key(name)).value_or(absent); }
  bool require_flag(const char* name) const;
  bool has_tensor(const char* name) const { return gguf_.find(name) != nullptr; }
  /// Throws kUnsupported, naming key and value, for a key that says other than `expected`.
  void expect_count(const char* name, std::int64_t expected) const;
  void expect_flag(const char* name, bool expected) const;
  /// Throws kUnsupported if the first block has a tensor of this name.
  void refuse_in_block(const char* name) const;

 private:
  const io::GgufView& gguf_;
  std::string prefix_;
};

/// What holds for the windows of a family where a file says nothing.
struct GgufWindows {
  std::int64_t window = 0;  ///< 0: none
  std::int64_t period = 0;  ///< every so many layers one is without; 0: none is
};

/// Sizes, epsilon, rotation, windows, biases and head, for all families alike. All else is as in Llama. Biases are those whose tensors are
/// there. Without `windows`, a file that says that layers have some is refused.
ModelSpec common_from_gguf(const GgufConfig& config, const char* family, NormSpec::Kind kind = NormSpec::Kind::kRms,
                           const std::optional<GgufWindows>& windows = {});

/// Sets the scale of scores, where the file says it.
void read_attention_scale(const GgufConfig& config, ModelSpec& spec);

}  // namespace quiver::model
