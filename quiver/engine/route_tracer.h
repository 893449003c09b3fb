// Which adapters computed rows of a pass, layer by layer.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quiver/routing/observer.h"
#include "quiver/schedule/request.h"

namespace quiver::engine {

/// Adds up, for some rows of a pass, the weights that routers give to each adapter at the linear maps of a layer. Threads of a pass may
/// tell it of different rows at once; begin and take are called between passes.
///
///   share_n = mean over the layer's routed maps of the weight of adapter n;  the favourite is the n of the largest share
class RouteTracer : public routing::RouteObserver {
 public:
  explicit RouteTracer(std::int64_t num_layers) : num_layers_(num_layers) {}
  /// The pass at hand has `num_rows` rows, and those of `traced` are looked at. None: nothing is.
  void begin(std::int64_t num_rows, std::span<const std::int64_t> traced);
  /// The favourites of a traced row, one for each layer; empty if no router was asked about the row.
  std::vector<schedule::LayerRoute> take(std::int64_t row) const;

  void see(const std::string& path, const nn::Rows& rows, const routing::RoutingDecision& decision) override;

 private:
  /// The weights of a row at the maps of a layer.
  struct LayerSum {
    std::vector<std::pair<std::int32_t, float>> weights;  // by adapter, as they come
    std::int32_t num_maps = 0;
  };
  std::int64_t num_layers_;
  std::vector<std::int64_t> place_of_;         // of each row of the pass: among the traced ones, or -1
  std::vector<std::vector<LayerSum>> traced_;  // by place, by layer
};

/// The layer of a linear map by its path: the first number in it. -1 if there is none.
std::int64_t layer_of_path(const std::string& path);

}  // namespace quiver::engine
