#include "quiver/model/weight_identity.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "quiver/base/error.h"

namespace quiver::model {

void Fingerprint::add(const std::string& name, std::string_view type, std::span<const std::int64_t> shape,
                      std::span<const std::byte> data) {
  hash_.update(format("{} {}", name, type));
  for (const auto dim : shape) hash_.update(format(" {}", dim));
  constexpr std::size_t kSample = 1024, kSamples = 4;
  if (data.size() <= kSample * kSamples) {
    hash_.update(data);
  } else {
    for (std::size_t i = 0; i < kSamples; ++i) hash_.update(data.subspan((data.size() - kSample) / (kSamples - 1) * i, kSample));
  }
}

void ContentHash::add(const std::string& name, std::string_view type, std::span<const std::int64_t> shape,
                      std::span<const std::byte> data) {
  constexpr std::size_t kPiece = 256 * 1024;
  std::vector<std::string> pieces((data.size() + kPiece - 1) / kPiece);
  at::parallel_for(0, static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      pieces[i] = xxh3_hex(data.subspan(i * kPiece, std::min(kPiece, data.size() - i * kPiece)));
    }
  });
  Sha256 whole;
  whole.update(format("{} {}", name, type));
  for (const auto dim : shape) whole.update(format(" {}", dim));
  for (const auto& piece : pieces) whole.update("\n" + piece);
  digests_.emplace(name, whole.hex());
}

std::string ContentHash::hex() const {
  Sha256 all;
  for (const auto& [name, digest] : digests_) all.update(digest);
  return all.hex();
}

}  // namespace quiver::model
