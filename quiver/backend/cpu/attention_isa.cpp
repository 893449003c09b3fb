// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
//
// Keys and values of a chunk are packed once per key head so that every product below is one small GEMM with a unit-stride
// right side:
//
//   S = Q K^T    O = P V    dP = dO V^T    dS = scale P (dP - rowsum(dO O))    dQ = dS K    dK += dS^T Q    dV += P^T dO
//
// P = softmax(scale S) is recomputed from the saved log-sum-exp in the backward pass (Dao et al. 2022, algorithm 4,
// without its tiling over keys: a chunk's keys fit the cache). Sums and softmax are float32. Products are float32 too, except for
// bfloat16 tensors on a CPU that multiplies them: there P and dS are rounded to bfloat16, as is usual.
#include "quiver/backend/cpu/attention_isa.h"

#include "quiver/backend/cpu/small_gemm_isa.h"
#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

/// The scratch of one unit, cut up.
template <typename T>
struct Workspace {
  using C = typename CellsOf<T>::Type;
  using Cell = typename C::Cell;
  std::int64_t dim, width, depth, keys_ld, scores_ld;  // width: padded elements, depth: cells of them
  Cell *across, *down, *transposed, *transposed2, *rounded, *rounded_down, *queries, *queries_down, *douts, *douts_down;
  float *scores, *gradients, *tile;

  explicit Workspace(const AttentionUnit<T>& unit)
      : dim(unit.head_dim),
        width(padded(unit.head_dim)),
        depth(cells(width, C::kDepth)),
        keys_ld(padded(unit.num_keys) + kPad),
        scores_ld(scores_stride(unit.num_keys, unit.most_spans)) {
    float* next = unit.scratch;
    const auto take = [&next](std::int64_t count) {
      float* mine = next;
      next += padded(count);
      return mine;
    };
    const auto take_cells = [&](std::int64_t count) { return reinterpret_cast<Cell*>(take(count)); };
    across = take_cells(keys_ld * width);
    down = take_cells(keys_ld * width);
    transposed = take_cells(keys_ld * width);
    transposed2 = take_cells(keys_ld * width);
    scores = take(kQueryTile * scores_ld);
    gradients = take(kQueryTile * scores_ld);
    rounded = take_cells(kQueryTile * scores_ld);
    rounded_down = take_cells(kQueryTile * scores_ld);
    queries = take_cells(kQueryTile * width);
    queries_down = take_cells(kQueryTile * width);
    douts = take_cells(kQueryTile * width);
    douts_down = take_cells(kQueryTile * width);
    tile = take(kQueryTile * width);
  }
};

/// The chunk's keys or values, across.
template <typename T>
QUIVER_INLINE void pack_keys(const AttentionUnit<T>& unit, const Workspace<T>& w, const T* keys) {
  const auto stride = unit.num_kv_heads * w.dim;
  auto* out = w.across;
  const auto pack = [&](KeySpan rows) {
    Workspace<T>::C::pack_across(keys + rows.first * stride + unit.kv_head * w.dim, stride, rows.length, w.dim, out);
    out += rows.length * w.depth;
  };
  for (std::int64_t c = 0; c < unit.num_context_spans; ++c) pack(unit.context[c]);
  pack({unit.first_row, unit.num_rows});
}

/// Calls f(block, row, count, head, offset) for every tile of queries: rows [row, row + count) of the block, whose
/// elements for the head are at `offset` of q, and every query head of the unit.
template <typename T, typename F>
QUIVER_INLINE void for_each_tile(const AttentionUnit<T>& unit, F f) {
  const auto group = unit.num_heads / unit.num_kv_heads;
  for (std::int64_t b = 0; b < unit.num_blocks; ++b) {
    const QueryBlock& block = unit.blocks[b];
    for (std::int64_t row = 0; row < block.length; row += kQueryTile) {
      const auto count = row + kQueryTile < block.length ? kQueryTile : block.length - row;
      for (auto head = unit.kv_head * group; head < (unit.kv_head + 1) * group; ++head) {
        f(block, row, count, head, ((block.first_query + row) * unit.num_heads + head) * unit.head_dim);
      }
    }
  }
}

/// The rows of a tile: [row, row + count) of a block.
struct Tile {
  const QueryBlock& block;
  std::int64_t row, count;
  std::int64_t window;

  /// Keys of the path, from its root on, that row i does not see any more.
  std::int64_t hidden(std::int64_t i) const {
    const auto beyond = block.num_visible + row + i + 1 - window;
    return window > 0 && beyond > 0 ? beyond : 0;
  }
};

/// Calls f(first key, number of keys, column) for every run of keys that a row of the tile may see. Returns the number of columns. A run's
/// columns are as far from a cell's border as its keys are, and cells are not shared: so some columns are no key's; compute_scores fills
/// them.
template <int kDepth, typename F>
QUIVER_INLINE std::int64_t for_each_run(const Tile& tile, F f) {
  std::int64_t column = 0, hidden = tile.hidden(0);
  const auto visit = [&](std::int64_t first, std::int64_t length) {
    const auto skipped = hidden < length ? hidden : length;
    hidden -= skipped;
    if (skipped == length) return;
    column += (first + skipped) % kDepth;
    f(first + skipped, length - skipped, column);
    column = cells(column + length - skipped, kDepth) * kDepth;
  };
  for (std::int64_t s = 0; s < tile.block.num_spans; ++s) visit(tile.block.spans[s].first, tile.block.spans[s].length);
  visit(tile.block.first_key, tile.row + tile.count);
  return column;
}

/// scores [count, columns] = left K^T, `keys_t` being K^T; `fill` in columns that are no key's, or that a row does not
/// see yet or any more, up to whole vectors. Returns the number of columns.
template <typename T>
std::int64_t compute_scores(const Workspace<T>& w, const Tile& tile, const typename Workspace<T>::Cell* left,
                            const typename Workspace<T>::Cell* keys_t, float fill, float* scores) {
  using C = typename Workspace<T>::C;
  const auto count = tile.count;
  std::int64_t end_of_last = 0;
  const auto columns = for_each_run<C::kDepth>(tile, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
    gemm<C>(count, length, w.depth, {left, w.depth, 1}, keys_t + first, w.keys_ld, scores + column, w.scores_ld, false);
    end_of_last = column + length;
  });
  if constexpr (C::kDepth > 1) {
    for_each_run<C::kDepth>(tile, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
      for (std::int64_t i = 0; i < count; ++i) {
        if (first % C::kDepth != 0) scores[i * w.scores_ld + column - 1] = fill;
        if ((column + length) % C::kDepth != 0) scores[i * w.scores_ld + column + length] = fill;
      }
    });
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (auto j = end_of_last - count + i + 1; j < columns + 2 * kPad; ++j) scores[i * w.scores_ld + j] = fill;
    auto more_hidden = tile.hidden(i) - tile.hidden(0);
    if (more_hidden == 0) continue;
    for_each_run<C::kDepth>(tile, [&](std::int64_t, std::int64_t length, std::int64_t column) {
      for (std::int64_t j = 0; j < length && more_hidden > 0; ++j, --more_hidden) scores[i * w.scores_ld + column + j] = fill;
    });
  }
  return columns;
}

/// The tile's rows of `left`, over the columns of compute_scores, times the keys in w.down: into w.tile.
template <typename T>
void multiply_values(const Workspace<T>& w, const Tile& tile, const typename Workspace<T>::Cell* left) {
  using C = typename Workspace<T>::C;
  bool accumulate = false;
  for_each_run<C::kDepth>(tile, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
    const auto begin = column / C::kDepth, end = cells(column + length, C::kDepth);
    gemm<C>(tile.count, w.width, end - begin, {left + begin, w.scores_ld / C::kDepth, 1}, w.down + first / C::kDepth * w.width, w.width,
            w.tile, w.width, accumulate);
    accumulate = true;
  });
}

/// sums [keys, width] += left^T right, `left` being the tile's rows as floats and rounded, `right` the tile's rows down.
template <typename T>
void add_transposed_product(const Workspace<T>& w, const Tile& tile, std::int64_t columns, float* left,
                            const typename Workspace<T>::Cell* rounded, const typename Workspace<T>::Cell* right, float* sums) {
  using C = typename Workspace<T>::C;
  const auto* down = C::round_down(left, tile.count, columns, w.scores_ld, rounded, w.rounded_down);
  for_each_run<C::kDepth>(tile, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
    gemm<C>(length, w.width, cells(tile.count, C::kDepth), {down + column, 1, w.scores_ld}, right, w.width, sums + first * w.width, w.width,
            true);
  });
}

/// Leaves exp(scale s - highest) of one row in place; returns their sum and the log-sum-exp.
struct RowSum {
  float sum, lse;
};
QUIVER_INLINE RowSum exponentiate(float* p, std::int64_t columns, float scale) {
  Vec top = load(p);
  for (std::int64_t j = kLanes; j < columns; j += kLanes) {
    const Vec x = load(p + j);
    top = x > top ? x : top;
  }
  float highest = top[0];
  for (int l = 1; l < kLanes; ++l) highest = top[l] > highest ? top[l] : highest;
  highest *= scale;
  Vec total = {};
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    const Vec e = exp_negative(load(p + j) * scale - highest);
    store(p + j, e);
    total += e;
  }
  const float sum = sum_lanes(total);
  return {sum, highest + __builtin_logf(sum)};
}

/// Scaled scores s become cap tanh(s / cap), but for those that no row sees.
QUIVER_INLINE void cap_scores(float* p, std::int64_t columns, float scale, float cap) {
  const Vec nothing = splat(-__builtin_inff());
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    const Vec x = load(p + j);
    const Vec s = x * (scale / cap);
    const Vec z = exp_negative(-2.0f * (s < Vec{} ? -s : s));
    const Vec t = cap * (1.0f - z) / (1.0f + z);
    store(p + j, x == nothing ? x : s < Vec{} ? -t : t);
  }
}

}  // namespace

template <typename T>
void attention_forward(const AttentionUnit<T>& unit) {
  const Workspace<T> w(unit);
  using C = typename Workspace<T>::C;
  pack_keys(unit, w, unit.k);
  transpose(w.across, unit.num_keys, w.depth, w.transposed, w.keys_ld);
  pack_keys(unit, w, unit.v);
  C::pack_down(w.across, unit.num_keys, w.width, w.down);

  const auto stride = unit.num_heads * w.dim;
  for_each_tile(unit, [&](const QueryBlock& block, std::int64_t row, std::int64_t count, std::int64_t head, std::int64_t offset) {
    C::pack_across(unit.q + offset, stride, count, w.dim, w.queries);
    const Tile tile{block, row, count, unit.window};
    const auto columns = compute_scores(w, tile, w.queries, w.transposed, -__builtin_inff(), w.scores);
    float inverse[kQueryTile];
    for (std::int64_t i = 0; i < count; ++i) {
      if (unit.cap > 0) cap_scores(w.scores + i * w.scores_ld, columns, unit.scale, unit.cap);
      const auto [sum, lse] = exponentiate(w.scores + i * w.scores_ld, columns, unit.cap > 0 ? 1.0f : unit.scale);
      inverse[i] = 1.0f / sum;
      unit.lse[head * unit.num_queries + block.first_query + row + i] = lse;
    }
    const auto* p = C::round_rows(w.scores, count, columns, w.scores_ld, w.rounded);
    multiply_values<T>(w, tile, p);
    for (std::int64_t i = 0; i < count; ++i) {
      for_vectors(0, w.dim, [&](std::int64_t d, std::int64_t some) {
        store_some(unit.out + offset + i * stride + d, some, load(w.tile + i * w.width + d) * inverse[i]);
      });
    }
  });
}

template <typename T>
void attention_backward(const AttentionUnit<T>& unit) {
  const Workspace<T> w(unit);
  using C = typename Workspace<T>::C;
  pack_keys(unit, w, unit.v);
  transpose(w.across, unit.num_keys, w.depth, w.transposed2, w.keys_ld);  // V^T
  pack_keys(unit, w, unit.k);
  transpose(w.across, unit.num_keys, w.depth, w.transposed, w.keys_ld);  // K^T
  C::pack_down(w.across, unit.num_keys, w.width, w.down);                // K
  for (std::int64_t i = 0; i < unit.num_keys * w.width; i += kLanes) {
    store(unit.dk + i, Vec{});
    store(unit.dv + i, Vec{});
  }

  const auto stride = unit.num_heads * w.dim;
  for_each_tile(unit, [&](const QueryBlock& block, std::int64_t row, std::int64_t count, std::int64_t head, std::int64_t offset) {
    C::pack_across(unit.q + offset, stride, count, w.dim, w.queries);
    C::pack_down(w.queries, count, w.width, w.queries_down);
    C::pack_across(unit.dout + offset, stride, count, w.dim, w.douts);
    C::pack_down(w.douts, count, w.width, w.douts_down);
    const Tile tile{block, row, count, unit.window};
    const auto columns = compute_scores(w, tile, w.queries, w.transposed, -__builtin_inff(), w.scores);
    compute_scores(w, tile, w.douts, w.transposed2, 0.0f, w.gradients);  // dP = dO V^T
    for (std::int64_t i = 0; i < count; ++i) {
      float* p = w.scores + i * w.scores_ld;
      float* g = w.gradients + i * w.scores_ld;
      Vec dots = {};
      for_vectors(0, w.dim, [&](std::int64_t d, std::int64_t some) {
        dots += load_some(unit.dout + offset + i * stride + d, some) * load_some(unit.out_in + offset + i * stride + d, some);
      });
      const float delta = sum_lanes(dots);  // rowsum(dO O)
      const float lse = unit.lse[head * unit.num_queries + block.first_query + row + i];
      if (unit.cap > 0) {
        cap_scores(p, columns, unit.scale, unit.cap);
        for (std::int64_t j = 0; j < columns; j += kLanes) {
          const Vec score = load(p + j), share = score / unit.cap;
          const Vec probability = exp_negative(score - lse);
          const Vec slope = probability > Vec{} ? 1.0f - share * share : Vec{};  // a score that no row sees is infinite
          store(p + j, probability);
          store(g + j, probability * (load(g + j) - delta) * slope * unit.scale);
        }
        continue;
      }
      for (std::int64_t j = 0; j < columns; j += kLanes) {
        const Vec probability = exp_negative(load(p + j) * unit.scale - lse);
        store(p + j, probability);
        store(g + j, probability * (load(g + j) - delta) * unit.scale);
      }
    }
    // P is done with once it is down, and leaves its place to dS.
    const auto* p_across = C::round_rows(w.scores, count, columns, w.scores_ld, w.rounded);
    add_transposed_product<T>(w, tile, columns, w.scores, p_across, w.douts_down, unit.dv);
    const auto* g_across = C::round_rows(w.gradients, count, columns, w.scores_ld, w.rounded);
    add_transposed_product<T>(w, tile, columns, w.gradients, g_across, w.queries_down, unit.dk);
    multiply_values<T>(w, tile, g_across);  // dQ = dS K
    for (std::int64_t i = 0; i < count; ++i) {
      for_vectors(0, w.dim, [&](std::int64_t d, std::int64_t some) {
        store_some(unit.dq + offset + i * stride + d, some, load(w.tile + i * w.width + d));
      });
    }
  });
}

template <typename T>
void collect_gradients(const AttentionUnit<T>& unit, const GradientUse* uses, std::int64_t num_uses, T* dk, T* dv) {
  const auto width = padded(unit.head_dim);
  const auto first_own = (unit.num_keys - unit.num_rows) * width;
  const auto collect = [&](float* own, const float* GradientUse::*found, T* out) {
    for (std::int64_t u = 0; u < num_uses; ++u) {
      float* sum = own + uses[u].first * width;
      for (std::int64_t i = 0; i < uses[u].length * width; i += kLanes) store(sum + i, load(sum + i) + load(uses[u].*found + i));
    }
    for (std::int64_t i = 0; i < unit.num_rows; ++i) {
      T* row = out + ((unit.first_row + i) * unit.num_kv_heads + unit.kv_head) * unit.head_dim;
      for_vectors(0, unit.head_dim, [&](std::int64_t d, std::int64_t some) { store_some(row + d, some, load(own + i * width + d)); });
    }
  };
  collect(unit.dk + first_own, &GradientUse::dk, dk);
  collect(unit.dv + first_own, &GradientUse::dv, dv);
}

/// How far ahead of a key the next ones are fetched. A head's part of a row is too short for the CPU to see the stride by itself.
constexpr std::int64_t kPrefetchedKeys = 12;

namespace {

/// A head's part of a key's or value's row, as float32 with zeros up to `width`: where it lies, or in `place`.
template <typename T>
QUIVER_INLINE const float* unpacked(const T* source, std::int64_t dim, std::int64_t width, float* place) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (dim == width) return source;
  }
  Floats::pack_across(source, dim, 1, dim, place);
  return place;
}

/// p [seen] becomes its softmax; up to whole vectors beyond it are written.
QUIVER_INLINE void softmax_row(float* p, std::int64_t seen) {
  for (auto j = seen; j < padded(seen); ++j) p[j] = -__builtin_inff();
  const float inverse = 1.0f / exponentiate(p, seen, 1.0f).sum;
  for (std::int64_t j = 0; j < seen; j += kLanes) store(p + j, load(p + j) * inverse);
}

}  // namespace

/// One block of few queries against a KV cache: each key row is read once for all query heads of the unit. Spans and first_key are rows of
/// the cache.
template <typename T>
void attention_decode(const AttentionUnit<T>& unit) {
  const QueryBlock& block = unit.blocks[0];
  const auto dim = unit.head_dim, width = padded(dim), group = unit.num_heads / unit.num_kv_heads;
  const auto kv_stride = unit.num_kv_heads * dim, q_stride = unit.num_heads * dim, num_heads = unit.num_unit_heads * group;
  constexpr std::int64_t kLineElements = 64 / static_cast<std::int64_t>(sizeof(T));
  const auto most = padded(block.num_visible + block.length);
  float* queries = unit.scratch;                 // [num_heads, width]
  float* sums = queries + num_heads * width;     // [num_heads, width]
  float* row_values = sums + num_heads * width;  // [width]
  float* scores = row_values + width;            // [num_heads, most]
  for (std::int64_t i = 0; i < block.length; ++i) {
    const auto q_offset = (block.first_query + i) * q_stride + unit.kv_head * group * dim;
    Floats::pack_across(unit.q + q_offset, dim, num_heads, dim, queries);
    for (std::int64_t d = 0; d < num_heads * width; d += kLanes) store(queries + d, load(queries + d) * unit.scale);
    const auto seen = block.num_visible + i + 1;
    // Calls f(column, query head, the row of its key head).
    const auto each_key = [&](const T* base, auto&& f) {
      std::int64_t column = 0;
      for (std::int64_t s = 0; s <= block.num_spans; ++s) {
        const KeySpan span = s < block.num_spans ? block.spans[s] : KeySpan{block.first_key, i + 1};
        const T* source = base + span.first * kv_stride + unit.kv_head * dim;
        for (std::int64_t j = 0; j < span.length; ++j, ++column, source += kv_stride) {
          for (std::int64_t d = 0; d < unit.num_unit_heads * dim; d += kLineElements)
            __builtin_prefetch(source + kPrefetchedKeys * kv_stride + d);
          for (std::int64_t h = 0; h < unit.num_unit_heads; ++h) {
            const float* row = unpacked(source + h * dim, dim, width, row_values);
            for (auto head = h * group; head < (h + 1) * group; ++head) f(column, head, row);
          }
        }
      }
    };
    each_key(unit.k, [&](std::int64_t column, std::int64_t head, const float* row) {
      Vec dots = {};
      for (std::int64_t d = 0; d < width; d += kLanes) dots += load(queries + head * width + d) * load(row + d);
      const float score = sum_lanes(dots);
      scores[head * most + column] = unit.cap > 0 ? unit.cap * __builtin_tanhf(score / unit.cap) : score;
    });
    for (std::int64_t head = 0; head < num_heads; ++head) softmax_row(scores + head * most, seen);
    for (std::int64_t d = 0; d < num_heads * width; d += kLanes) store(sums + d, Vec{});
    each_key(unit.v, [&](std::int64_t column, std::int64_t head, const float* row) {
      const Vec weight = splat(scores[head * most + column]);
      for (std::int64_t d = 0; d < width; d += kLanes)
        store(sums + head * width + d, load(sums + head * width + d) + weight * load(row + d));
    });
    for (std::int64_t head = 0; head < num_heads; ++head) {
      for (std::int64_t d = 0; d < dim; ++d) from_float(sums[head * width + d], unit.out[q_offset + head * dim + d]);
    }
  }
}

#define QUIVER_INSTANTIATE(T)                                                                            \
  template void attention_forward<T>(const AttentionUnit<T>&);                                           \
  template void attention_backward<T>(const AttentionUnit<T>&);                                          \
  template void collect_gradients<T>(const AttentionUnit<T>&, const GradientUse*, std::int64_t, T*, T*); \
  template void attention_decode<T>(const AttentionUnit<T>&);
QUIVER_INSTANTIATE(float)
QUIVER_INSTANTIATE(Bf16)

}  // namespace quiver::backend::kernel::QUIVER_ISA
