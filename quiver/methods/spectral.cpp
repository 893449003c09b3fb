// Scores by the length of x in an adapter's singular directions: the family of SpectR, SEQR's norm, and Arrow.
#include "quiver/methods/parts.h"
#include "quiver/routing/directions.h"

namespace quiver::methods {
namespace {

using SpectrOptions = OptionsOf<TopK<4>, MixesParams>;
using NormOptions = OptionsOf<TopK<4>, MixesOutputs, Softmax, CalibrationText>;
struct SpectralOptions : OptionsOf<TopK<4>, MixesParams, Softmax>, CalibrationText {
  std::int64_t components = 0;
  double gamma = 0;
  bool is_calibrated = false;
  static void describe(auto& schema) {
    OptionsOf::describe(schema);
    schema.add(&SpectralOptions::components, "components", {.help = "singular directions of each adapter; 0: all", .range = at_least(0)});
    schema.add(&SpectralOptions::gamma, "gamma", {.help = "power of the singular values"});
    schema.add(&SpectralOptions::is_calibrated, "calibrated",
               {.help = "choose by scores measured against those on text of no task; with components=1 and combine=outputs this is "
                        "calibrated-arrow"});
    CalibrationText::describe(schema, "calibrated");
  }
};

RoutedAdapters make_spectr(const LibraryContext& in, const SpectrOptions& options) {
  return make_scored(in, options.combine, {.vectors = routing::stacked_directions(in.adapters, 0, 0), .rule = {}},
                     {.top_k = options.top_k_of(in.adapters.size()), .weighting = routing::Weighting::kEqual});
}

RoutedAdapters make_norm(const LibraryContext& in, const NormOptions& options) {
  return make_scored(in, options.combine, {.vectors = routing::stacked_directions(in.adapters, 0, 1), .rule = {}},
                     {.top_k = options.top_k_of(in.adapters.size()), .temperature = options.routing_temperature}, &options);
}

RoutedAdapters make_spectral(const LibraryContext& in, const SpectralOptions& options) {
  return make_scored(in, options.combine,
                     {.vectors = routing::stacked_directions(in.adapters, options.components, options.gamma), .rule = {}},
                     {.top_k = options.top_k_of(in.adapters.size()), .temperature = options.routing_temperature},
                     options.is_calibrated ? &options : nullptr);
}

}  // namespace

Method spectr() {
  return method_row(Family::kToken,
                    {"spectr", "SpectR", "the top k of |V x| over all singular directions, weighted equally",
                     "Fleshman and Van Durme 2025, arXiv 2504.03454"},
                    make_spectr);
}

Method norm() {
  return method_row(Family::kToken,
                    {"norm", "norm", "the top k of |s B A x|, calibrated, weighted by their softmax", "SEQR 2025, arXiv 2509.18093"},
                    make_norm);
}

Method spectral() {
  return method_row(
      Family::kToken,
      {"spectral", "spectral", "the top k of |diag(sigma^gamma) V_c x|, of c components", "the family of arrow, spectr and norm"},
      make_spectral);
}

}  // namespace quiver::methods
