#include "quiver/results/bootstrap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quiver/base/error.h"

namespace quiver::results {
namespace {

constexpr std::int64_t kMostUnits = std::int64_t{1} << 31;
constexpr std::size_t kTile = 4;  // draws, and columns, that are summed at once: 16 sums stay in registers

using Tile = std::array<double, kTile>;

/// The sums of a tile of columns over a tile of draws: sums[d][m] = sum_u counts[u][d] * columns[u][m].
std::array<Tile, kTile> tile_sums(std::span<const Tile> counts, std::span<const Tile> columns) {
  std::array<Tile, kTile> sums{};
  auto& [first, second, third, fourth] = sums;  // by name: compilers keep them in registers without being asked to unroll
  Tile a{}, b{}, c{}, d{};
  for (std::size_t u = 0; u < counts.size(); ++u) {
    const auto& count = counts[u];
    const auto& column = columns[u];
    for (std::size_t m = 0; m < kTile; ++m) a[m] += count[0] * column[m];
    for (std::size_t m = 0; m < kTile; ++m) b[m] += count[1] * column[m];
    for (std::size_t m = 0; m < kTile; ++m) c[m] += count[2] * column[m];
    for (std::size_t m = 0; m < kTile; ++m) d[m] += count[3] * column[m];
  }
  first = a, second = b, third = c, fourth = d;
  return sums;
}

using TileColumns = std::vector<Tile>;  // U x kTile

/// Do all units hold as many rows? Then every draw does.
bool are_of_one_size(const BootstrapUnits& units) {
  return std::ranges::all_of(units.sizes, [&](double size) { return size == units.sizes.front(); });
}

/// The columns in tiles of kTile; and behind them the sizes, where they are not the same. The last tile is filled with zeros.
std::vector<TileColumns> tiles_of(const BootstrapUnits& units) {
  const auto num_units = units.sizes.size(), num_columns = static_cast<std::size_t>(units.num_columns);
  const bool with_sizes = !are_of_one_size(units);
  std::vector<TileColumns> tiles((num_columns + (with_sizes ? 1 : 0) + kTile - 1) / kTile, TileColumns(num_units));
  for (std::size_t u = 0; u < num_units; ++u) {
    for (std::size_t m = 0; m < num_columns; ++m) tiles[m / kTile][u][m % kTile] = units.sums[u * num_columns + m];
    if (with_sizes) tiles[num_columns / kTile][u][num_columns % kTile] = units.sizes[u];
  }
  return tiles;
}

}  // namespace

UnitDraws::UnitDraws(RandomStream& stream, std::int64_t num_units) : stream_(&stream), num_units_(static_cast<std::uint64_t>(num_units)) {
  if (num_units < 1 || num_units > kMostUnits) {
    fail(ErrorKind::kUsage, "a bootstrap draws from {} units; expected 1 to {}", num_units, kMostUnits);
  }
  // As many as leave a chance of rejection of 2^-2 at most, which few numbers of units come near.
  std::uint64_t power = 1;
  while (size_ < batch_.size() && power <= (std::uint64_t{1} << 62) / num_units_) {
    power *= num_units_;
    ++size_;
  }
  threshold_ = (0 - power) % power;
}

void UnitDraws::draw() {
  for (;;) {
    auto rest = stream_->next();
    for (left_ = 0; left_ < size_; ++left_) {
      const auto product = static_cast<unsigned __int128>(rest) * num_units_;
      batch_[left_] = static_cast<std::uint32_t>(product >> 64);
      rest = static_cast<std::uint64_t>(product);
    }
    if (rest >= threshold_) return;
  }
}

BootstrapUnits rows_as_units(std::span<const double> values, std::int64_t num_columns) {
  if (num_columns < 1 || values.size() % static_cast<std::size_t>(num_columns) != 0) {
    fail(ErrorKind::kMismatch, "{} values in rows of {} columns; expected whole rows", values.size(), num_columns);
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) fail(ErrorKind::kUsage, "value {} is {}; a bootstrap needs finite numbers", i, values[i]);
  }
  return {.num_columns = num_columns,
          .sums = std::vector<double>(values.begin(), values.end()),
          .sizes = std::vector<double>(values.size() / static_cast<std::size_t>(num_columns), 1.0)};
}

BootstrapUnits clusters_as_units(std::span<const double> values, std::int64_t num_columns, std::span<const std::int64_t> clusters) {
  const auto rows = rows_as_units(values, num_columns);
  if (clusters.size() != rows.sizes.size()) {
    fail(ErrorKind::kMismatch, "{} rows in {} clusters; expected the cluster of each row", rows.sizes.size(), clusters.size());
  }
  const auto columns = static_cast<std::size_t>(num_columns);
  BootstrapUnits units{.num_columns = num_columns, .sums = {}, .sizes = {}};
  for (std::size_t row = 0; row < clusters.size(); ++row) {
    if (clusters[row] < 0 || clusters[row] >= static_cast<std::int64_t>(clusters.size())) {
      fail(ErrorKind::kUsage, "row {} is in cluster {}; expected numbers from 0 without gaps", row, clusters[row]);
    }
    const auto cluster = static_cast<std::size_t>(clusters[row]);
    if (cluster >= units.sizes.size()) {
      units.sizes.resize(cluster + 1);
      units.sums.resize(units.sizes.size() * columns);
    }
    ++units.sizes[cluster];
    for (std::size_t m = 0; m < columns; ++m) units.sums[cluster * columns + m] += values[row * columns + m];
  }
  if (const auto empty = std::ranges::find(units.sizes, 0.0); empty != units.sizes.end()) {
    fail(ErrorKind::kUsage, "cluster {} has no rows; expected numbers from 0 without gaps", empty - units.sizes.begin());
  }
  return units;
}

std::vector<double> bootstrap_means(const BootstrapUnits& units, std::int64_t num_draws, RandomStream& stream) {
  if (units.sizes.empty() || num_draws < 1) {
    fail(ErrorKind::kUsage, "a bootstrap of {} units by {} draws is undefined; expected one at least of both", units.sizes.size(),
         num_draws);
  }
  const auto num_units = units.sizes.size(), num_columns = static_cast<std::size_t>(units.num_columns);
  const auto tiles = tiles_of(units);
  const double equal_rows = are_of_one_size(units) ? static_cast<double>(num_units) * units.sizes.front() : 0;
  UnitDraws pick(stream, units.num_units());
  std::vector<double> means(static_cast<std::size_t>(num_draws) * num_columns);
  std::vector<Tile> counts(num_units);
  std::vector<std::array<Tile, kTile>> sums(tiles.size());
  for (std::size_t first = 0; first < static_cast<std::size_t>(num_draws); first += kTile) {
    const auto size = std::min(kTile, static_cast<std::size_t>(num_draws) - first);
    std::ranges::fill(counts, Tile{});
    for (std::size_t d = 0; d < size; ++d) {
      for (std::size_t u = 0; u < num_units; ++u) ++counts[pick.next()][d];
    }
    for (std::size_t t = 0; t < tiles.size(); ++t) sums[t] = tile_sums(counts, tiles[t]);
    for (std::size_t d = 0; d < size; ++d) {
      const auto sum_of = [&](std::size_t column) { return sums[column / kTile][d][column % kTile]; };
      const double rows = equal_rows > 0 ? equal_rows : sum_of(num_columns);
      for (std::size_t m = 0; m < num_columns; ++m) means[(first + d) * num_columns + m] = sum_of(m) / rows;
    }
  }
  return means;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty() || !(share >= 0 && share <= 1)) {
    fail(ErrorKind::kUsage, "the quantile {} of {} values is undefined; expected values, and a share from 0 to 1", share, values.size());
  }
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::ptrdiff_t>(place);
  std::ranges::nth_element(values, values.begin() + below);
  const double low = values[static_cast<std::size_t>(below)];
  if (static_cast<std::size_t>(below) + 1 == values.size()) return low;
  const double high = *std::min_element(values.begin() + below + 1, values.end());
  return low + (place - static_cast<double>(below)) * (high - low);
}

Interval percentile_interval(std::span<const double> draws, double confidence) {
  const std::vector<double> values(draws.begin(), draws.end());
  return {.low = quantile(values, (1 - confidence) / 2), .high = quantile(values, (1 + confidence) / 2)};
}

void SimultaneousIntervals::add(double estimate, std::span<const double> draws) {
  if (draws.size() != largest_.size()) {
    fail(ErrorKind::kMismatch, "{} draws of a figure beside {} of the others; expected as many", draws.size(), largest_.size());
  }
  double mean = 0, squares = 0;
  for (const double draw : draws) mean += draw / static_cast<double>(draws.size());
  for (const double draw : draws) squares += (draw - mean) * (draw - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(std::max<std::size_t>(draws.size(), 2) - 1));
  // Draws of equal differences differ by rounding alone: no deviation to divide by.
  const bool varies = deviation > 1e-12 * std::abs(estimate);
  figures_.push_back({estimate, varies ? deviation : 0});
  for (std::size_t b = 0; varies && b < draws.size(); ++b) {
    largest_[b] = std::max(largest_[b], std::abs(draws[b] - estimate) / deviation);
  }
}

std::vector<Interval> SimultaneousIntervals::intervals(double confidence) const {
  const double reach = figures_.empty() ? 0 : quantile(largest_, confidence);
  std::vector<Interval> found;
  for (const auto& [estimate, deviation] : figures_) found.push_back({estimate - reach * deviation, estimate + reach * deviation});
  return found;
}

}  // namespace quiver::results
