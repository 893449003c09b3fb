// Routes of an answer's tokens as the page and other clients read them (docs/serving-page.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/schedule/request.h"

namespace quiver::serve {

/// The member "route_header" of "quiver": `"route_header":{"adapters":[...],"layers":L,"projections":M,"ids":"u8"|"u16"}`.
std::string route_header(std::span<const std::string> adapters, std::int64_t num_layers, std::int64_t num_maps);

/// The member "route" of "quiver" for tokens from `first` on: `"route":{"t0","k":1,"data","texts"}`. `data` is base64 of, for each token
/// and layer, the favourite adapter (a byte, or two with more than 255 adapters, the lower first; all ones: none) and its share times 255.
std::string route_member(std::int64_t first, std::span<const std::vector<schedule::LayerRoute>> routes, std::span<const std::string> texts,
                         std::int64_t num_layers, bool has_wide_ids);

/// RFC 4648, section 4, with padding.
std::string base64(std::string_view bytes);

/// Whether ids of so many adapters take two bytes.
constexpr bool has_wide_ids(std::size_t num_adapters) { return num_adapters > 255; }

}  // namespace quiver::serve
