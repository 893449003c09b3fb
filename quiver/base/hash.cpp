#include "quiver/base/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include "quiver/base/error.h"
#include "quiver/base/random.h"

namespace quiver {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
    fail(ErrorKind::kInternal, "cannot start a SHA-256 digest");
  }
}

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  if (context_ == nullptr || EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) {
    fail(ErrorKind::kInternal, "cannot update a SHA-256 digest");
  }
  return *this;
}

Sha256& Sha256::update(std::string_view text) { return update(std::as_bytes(std::span(text))); }

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (context_ == nullptr || EVP_DigestFinal_ex(context_.get(), digest, &size) != 1) {
    fail(ErrorKind::kInternal, "cannot finish a SHA-256 digest");
  }
  context_.reset();
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text.push_back(kDigits[digest[i] >> 4]);
    text.push_back(kDigits[digest[i] & 15]);
  }
  return text;
}

std::string sha256_hex(std::string_view text) { return Sha256().update(text).hex(); }

std::string xxh3_hex(std::span<const std::byte> bytes) {
  const auto hash = XXH3_128bits(bytes.data(), bytes.size());
  return format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::uint64_t derive_seed(std::uint64_t seed, std::string_view name) {
  const std::string digest = sha256_hex(format("{}/{}", seed, name));
  return std::stoull(digest.substr(0, 16), nullptr, 16);
}

std::uint64_t RandomStream::below(std::uint64_t n) {
  const std::uint64_t limit = n * (UINT64_MAX / n);  // the largest multiple of n: draws above it would be biased
  std::uint64_t value = engine_();
  while (value >= limit) value = engine_();
  return value % n;
}

}  // namespace quiver
