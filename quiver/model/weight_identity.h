// Hashes that tell the weights of models apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "quiver/base/hash.h"

namespace quiver::model {

/// Hashes names, shapes, types and a few bytes of every tensor as stored: enough to tell checkpoints apart, cheap
/// enough to do at every start.
class Fingerprint {
 public:
  void add(const std::string& name, std::string_view type, std::span<const std::int64_t> shape, std::span<const std::byte> data);
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

/// Hashes names, types, shapes and every byte of tensors. The order in which tensors are added does not matter. All threads share the work.
class ContentHash {
 public:
  void add(const std::string& name, std::string_view type, std::span<const std::int64_t> shape, std::span<const std::byte> data);
  std::string hex() const;

 private:
  std::map<std::string, std::string> digests_;
};

}  // namespace quiver::model
