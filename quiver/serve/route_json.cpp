#include "quiver/serve/route_json.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cmath>

#include "quiver/api/json_text.h"
#include "quiver/base/error.h"

namespace quiver::serve {

std::string base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and the zero that OpenSSL writes
  const auto length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), reinterpret_cast<const unsigned char*>(bytes.data()),
                                      static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

std::string route_header(std::span<const std::string> adapters, std::int64_t num_layers, std::int64_t num_maps) {
  std::string out = R"("route_header":{"adapters":[)";
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    if (i > 0) out += ',';
    api::append_json(out, adapters[i]);
  }
  return out + format(R"(],"layers":{},"projections":{},"ids":"{}"}})", num_layers, num_maps, has_wide_ids(adapters.size()) ? "u16" : "u8");
}

std::string route_member(std::int64_t first, std::span<const std::vector<schedule::LayerRoute>> routes, std::span<const std::string> texts,
                         std::int64_t num_layers, bool has_wide_ids) {
  std::string bytes;
  for (const auto& route : routes) {
    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
      const auto one = layer < std::ssize(route) ? route[static_cast<std::size_t>(layer)] : schedule::LayerRoute{};
      bytes += static_cast<char>(one.adapter & 0xff);  // -1 is all ones
      if (has_wide_ids) bytes += static_cast<char>(one.adapter >> 8 & 0xff);
      bytes += static_cast<char>(std::lround(255 * std::clamp(one.share, 0.0F, 1.0F)));
    }
  }
  auto out = format(R"("route":{{"t0":{},"k":1,"data":"{}","texts":[)", first, base64(bytes));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) out += ',';
    api::append_json(out, texts[i]);
  }
  return out + "]}";
}

}  // namespace quiver::serve
