// Byte pair encoding by its definition, for targets that compare with text::Bpe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace quiver::fuzz {

/// Until no two neighbours have a rank, those of the lowest, and of these the leftmost, become one (Sennrich et al. 2016, alg. 1).
/// The ids of what is left, by `ids`. `rank_of` two symbols is an optional number.
template <typename Ids, typename RankOf>
std::vector<std::int32_t> merge_by_definition(std::vector<std::string> symbols, const Ids& ids, const RankOf& rank_of) {
  while (true) {
    std::optional<std::pair<double, std::size_t>> best;  // rank, place
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const std::optional<double> rank = rank_of(symbols[i], symbols[i + 1]);
      if (rank && (!best || *rank < best->first)) best = {*rank, i};
    }
    if (!best) break;
    symbols[best->second] += symbols[best->second + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best->second) + 1);
  }
  std::vector<std::int32_t> result;
  for (const auto& symbol : symbols) result.push_back(ids.at(symbol));
  return result;
}

}  // namespace quiver::fuzz
