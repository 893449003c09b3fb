#include "quiver/metrics/stop.h"

#include "quiver/base/error.h"
#include "quiver/metrics/python_text.h"

namespace quiver::metrics {

std::string_view cut_at_stops(std::string_view text, std::span<const std::string> stops) {
  for (const auto& stop : stops) {
    if (!stop.empty()) text = text.substr(0, text.find(stop));
  }
  return text;
}

std::string_view after_thinking(std::string_view text, std::string_view marker) {
  if (marker.empty()) fail(ErrorKind::kUsage, "the marker that ends the thinking is empty; name a text, for example '</think>'");
  const auto at = text.rfind(marker);
  return strip_left(at == std::string_view::npos ? text : text.substr(at + marker.size()));
}

}  // namespace quiver::metrics
