// SHA-256, by OpenSSL, and XXH3, by xxHash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace quiver {

/// Incremental SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  /// 64 hexadecimal digits; ends the digest (further updates are a kInternal error).
  std::string hex();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;  ///< none after hex()
};

/// The 64 hexadecimal digits of the SHA-256 of `text`.
std::string sha256_hex(std::string_view text);

/// The 32 hexadecimal digits of the XXH3-128 of `bytes`, five times as fast as SHA-256. It guards against mistakes, not against forgery.
std::string xxh3_hex(std::span<const std::byte> bytes);

}  // namespace quiver
