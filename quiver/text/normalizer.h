// Normal forms and lower case, as `tokenizers` computes them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::text {

enum class NormalizerStep { kNfc, kNfd, kNfkc, kNfkd, kLowercase };

/// Steps applied in order; none for a tokenizer without a normaliser. Thread-safe.
using Normalizer = std::vector<NormalizerStep>;

/// Reads the member "normalizer" of a tokenizer.json: null, NFC, NFD, NFKC, NFKD, Lowercase, or a Sequence of them.
/// Throws kUnsupported, by name, for another one.
Normalizer parse_normalizer(const nlohmann::json& json, const std::string& origin);

/// `text` must be valid UTF-8; so is the result.
std::string normalize(const Normalizer& normalizer, std::string_view text);

}  // namespace quiver::text
