// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
#include "quiver/backend/cpu/routed_lora_isa.h"

#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

/// A row of x as float32, with zeros up to padded(n, kRowPad).
template <typename T>
QUIVER_INLINE void unpack(const T* in, std::int64_t n, float* out) {
  std::int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) store(out + c, load(in + c));
  T rest[kLanes] = {};
  if (c < n) {
    for (std::int64_t i = c; i < n; ++i) rest[i - c] = in[i];
    store(out + c, load(rest));
    c += kLanes;
  }
  for (; c < padded(n, kRowPad); c += kLanes) store(out + c, Vec{});
}

// ---- Arrow: scores, the top k, softmax

/// |<x_i, p_n>| for kRows tokens and kPanels panels of adapters. Each score is one chain of
/// multiply-adds over d_in, whatever the blocking.
template <int kRows, int kPanels>
QUIVER_INLINE void score_block(const float* x, std::int64_t row, const float* panel, std::int64_t d_in, float* scores,
                               std::int64_t scores_row) {
  constexpr int kVectors = kPanel / kLanes;
  Vec sum[kRows][kPanels][kVectors] = {};
  for (std::int64_t c = 0; c < d_in; ++c) {
    for (int p = 0; p < kPanels; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        const Vec prototype = load(panel + (p * d_in + c) * kPanel + v * kLanes);
        for (int i = 0; i < kRows; ++i) sum[i][p][v] += splat(x[i * row + c]) * prototype;
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int p = 0; p < kPanels; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        const auto bits = __builtin_bit_cast(BitsVec, sum[i][p][v]) & 0x7fffffffu;
        store(scores + i * scores_row + p * kPanel + v * kLanes, __builtin_bit_cast(Vec, bits));
      }
    }
  }
}

/// A link of a chain, as score_block has it: with one rounding where the CPU has such an instruction. GCC 12 would round twice in the loop
/// below.
QUIVER_INLINE float add_product(float sum, float a, float b) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, sum);
#else
  return sum + a * b;
#endif
}

/// |<x, row_i>| of kCount rows wherever they lie: the chains of score_block.
template <int kCount>
QUIVER_INLINE void score_some_rows(const float* x, const float* const* rows, std::int64_t d_in, float* scores) {
  float sum[kCount] = {};
  for (std::int64_t c = 0; c < d_in; ++c) {
    for (int i = 0; i < kCount; ++i) sum[i] = add_product(sum[i], x[c], rows[i][c]);
  }
  for (int i = 0; i < kCount; ++i) scores[i] = __builtin_fabsf(sum[i]);
}

/// The scores of one token made comparable: calibrated, and shifted by what its group prefers.
QUIVER_INLINE void adjust(float* scores, std::int64_t count, const float* scale, const float* shift, const float* bias) {
  if (scale != nullptr) {
    for (std::int64_t n = 0; n < count; ++n) scores[n] = scores[n] * scale[n] + shift[n];
  }
  if (bias != nullptr) {
    for (std::int64_t n = 0; n < count; ++n) scores[n] += bias[n];
  }
}

/// The top_k largest of n scores, largest first, the lower index first among equals; then softmax
/// of score / temperature.
QUIVER_INLINE void choose(const float* scores, std::int64_t n, std::int64_t top_k, float temperature, std::int64_t* index, float* weight) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float score = scores[i];
    if (i >= top_k && !(score > weight[top_k - 1])) continue;
    std::int64_t place = i < top_k ? i : top_k - 1;
    for (; place > 0 && score > weight[place - 1]; --place) {
      weight[place] = weight[place - 1];
      index[place] = index[place - 1];
    }
    weight[place] = score;
    index[place] = i;
  }
  const float largest = weight[0];
  float sum = 0;
  for (std::int64_t j = 0; j < top_k; ++j) {
    weight[j] = __builtin_expf((weight[j] - largest) / temperature);
    sum += weight[j];
  }
  for (std::int64_t j = 0; j < top_k; ++j) weight[j] /= sum;
}

// ---- LoRA ----------------------------------------------

template <int... kLane>
struct Lanes {};
template <int kCount, int... kLane>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kLane...> {};
template <int... kLane>
struct MakeLanes<0, kLane...> {
  using Type = Lanes<kLane...>;
};

/// Lane i: a_i + a_(i ^ kMask) where bit kMask of i is clear, b_i + b_(i ^ kMask) where it is set.
template <int kMask, int... kLane>
QUIVER_INLINE Vec fold(Vec a, Vec b, Lanes<kLane...>) {
  return __builtin_shufflevector(a, b, ((kLane & kMask) ? kLanes + kLane : kLane)...) +
         __builtin_shufflevector(a, b, ((kLane & kMask) ? kLanes + (kLane ^ kMask) : (kLane ^ kMask))...);
}

/// Folds `count` (a power of two) vectors into one, halving the distance of the lanes added; a lone
/// vector folds with itself. Every sum is of the same tree, whatever the count.
template <int kCount, int kMask>
QUIVER_INLINE void fold_all(Vec* v) {
  using All = typename MakeLanes<kLanes>::Type;
  if constexpr (kMask > 0) {
    if constexpr (kCount == 1) {
      v[0] = fold<kMask>(v[0], v[0], All{});
    } else {
      for (int i = 0; i < kCount / 2; ++i) v[i] = fold<kMask>(v[2 * i], v[2 * i + 1], All{});
    }
    fold_all<(kCount > 1 ? kCount / 2 : 1), kMask / 2>(v);
  }
}

/// out[j] = the sum of the lanes of v[j], for kCount vectors; destroys v.
template <int kCount>
QUIVER_INLINE void lane_sums(Vec* v, float* out) {
  constexpr int kStep = kCount < kLanes ? kCount : kLanes;
  for (int first = 0; first < kCount; first += kStep) {
    fold_all<kStep, kLanes / 2>(v + first);
    float lanes[kLanes];
    store(lanes, v[first]);
    for (int j = 0; j < kStep; ++j) {
      int lane = 0;
      for (int bit = 1, place = kLanes / 2; bit < kStep; bit *= 2, place /= 2) lane += (j & bit) ? place : 0;
      out[first + j] = lanes[lane];
    }
  }
}

/// u[i][first + q] = <x_i, a_q> for kRows tokens and kRanks rows of lora_a.
template <int kRows, int kRanks>
QUIVER_INLINE void shrink_block(const float* const* x, const float* a, std::int64_t width, float* const* u, std::int64_t first) {
  Vec sum[kRows * kRanks] = {};
  for (std::int64_t c = 0; c < width; c += kLanes) {
    Vec left[kRanks];
    for (int q = 0; q < kRanks; ++q) left[q] = load(a + q * width + c);
    for (int i = 0; i < kRows; ++i) {
      const Vec right = load(x[i] + c);
      for (int q = 0; q < kRanks; ++q) sum[i * kRanks + q] += left[q] * right;
    }
  }
  float sums[kRows * kRanks];
  lane_sums<kRows * kRanks>(sum, sums);
  for (int i = 0; i < kRows; ++i) {
    for (int q = 0; q < kRanks; ++q) u[i][first + q] = sums[i * kRanks + q];
  }
}

template <int kRows>
QUIVER_INLINE void shrink_rows(const float* const* x, const float* a, std::int64_t width, std::int64_t rank, float* const* u) {
  std::int64_t q = 0;
  for (; q + 4 <= rank; q += 4) shrink_block<kRows, 4>(x, a + q * width, width, u, q);
  for (; q + 2 <= rank; q += 2) shrink_block<kRows, 2>(x, a + q * width, width, u, q);
  for (; q < rank; ++q) shrink_block<kRows, 1>(x, a + q * width, width, u, q);
}

/// Sorts the (token, choice) pairs of a tile by adapter: those of adapter n become order[start[n]]
/// .. order[start[n + 1] - 1], tokens ascending.
QUIVER_INLINE void sort_by_adapter(const std::int64_t* index, std::int64_t num_pairs, std::int64_t num_adapters, std::int32_t* order,
                                   std::int32_t* start) {
  for (std::int64_t n = 0; n <= num_adapters; ++n) start[n] = 0;
  for (std::int64_t p = 0; p < num_pairs; ++p) ++start[index[p] + 1];
  for (std::int64_t n = 0; n < num_adapters; ++n) start[n + 1] += start[n];
  for (std::int64_t p = 0; p < num_pairs; ++p) order[start[index[p]]++] = static_cast<std::int32_t>(p);
  for (std::int64_t n = num_adapters; n > 0; --n) start[n] = start[n - 1];  // the loop above moved each to its end
  start[0] = 0;
}

/// u[p] = A_n x_t for kRows pairs p = (t, a choice of adapter n), whose lora_a is `a`.
template <int kRows, typename T>
QUIVER_INLINE void shrink_pairs(const LoraTask<T>& task, const float* x, const float* a, const std::int32_t* pairs, float* u) {
  const std::int64_t width = padded(task.d_in, kRowPad);
  const float* xs[kRows];
  float* us[kRows];
  for (int i = 0; i < kRows; ++i) {
    xs[i] = x + pairs[i] / task.top_k * width;
    us[i] = u + pairs[i] * task.rank;
  }
  shrink_rows<kRows>(xs, a, width, task.rank, us);
}

/// u[p] [rank] for every pair of a tile, adapter by adapter, so that each A is read once.
template <typename T>
QUIVER_INLINE void shrink(const LoraTask<T>& task, const float* x, std::int64_t num_pairs, const std::int64_t* index, float* u,
                          std::int32_t* ints) {
  constexpr int kRows = kLanes == 16 ? 4 : 2;  // as many sums as the registers hold
  std::int32_t* order = ints;
  std::int32_t* start = ints + num_pairs;
  sort_by_adapter(index, num_pairs, task.num_adapters, order, start);
  for (std::int64_t n = 0; n < task.num_adapters; ++n) {
    const float* a = task.lora_a + n * task.rank * padded(task.d_in, kRowPad);
    std::int64_t i = start[n];
    for (; i + kRows <= start[n + 1]; i += kRows) shrink_pairs<kRows>(task, x, a, order + i, u);
    for (; i < start[n + 1]; ++i) shrink_pairs<1>(task, x, a, order + i, u);
  }
}

/// Turns u into the coefficients of the rows of lora_b: w_j s_j u_j, or s w_j sum_i w_i u_i where
/// parameters are mixed.
template <typename T>
QUIVER_INLINE void weigh(const LoraTask<T>& task, std::int64_t token, float* u) {
  const std::int64_t* index = task.index + token * task.top_k;
  const float* weight = task.weight + token * task.top_k;
  for (std::int64_t q = 0; q < task.rank; ++q) {
    float mixed = 0;
    if (task.mix_parameters) {
      for (std::int64_t j = 0; j < task.top_k; ++j) mixed += weight[j] * u[j * task.rank + q];
    }
    for (std::int64_t j = 0; j < task.top_k; ++j) {
      const float value = task.mix_parameters ? mixed : u[j * task.rank + q];
      u[j * task.rank + q] = task.scaling[index[j]] * weight[j] * value;
    }
  }
}

/// y[:, block] += sum over choices j and ranks q of u[j, q] * lora_b[j, block, q], for one token; b is the block of adapter 0.
template <typename T>
QUIVER_INLINE void expand(const LoraTask<T>& task, const float* b, const std::int64_t* index, const float* u, T* y, std::int64_t columns) {
  constexpr int kVectors = kColumns / kLanes;
  const std::int64_t b_size = task.rank * padded(task.d_out, kColumns);
  Vec sum[kVectors] = {};
  for (std::int64_t j = 0; j < task.top_k; ++j) {
    const float* row = b + index[j] * b_size;
    for (std::int64_t q = 0; q < task.rank; ++q, row += kColumns) {
      const Vec coefficient = splat(u[j * task.rank + q]);
      for (int v = 0; v < kVectors; ++v) sum[v] += coefficient * load(row + v * kLanes);
    }
  }
  if (columns == kColumns) {
    for (int v = 0; v < kVectors; ++v) store(y + v * kLanes, load(y + v * kLanes) + sum[v]);
    return;
  }
  T whole[kColumns] = {};  // the last block may be narrower
  for (std::int64_t c = 0; c < columns; ++c) whole[c] = y[c];
  for (int v = 0; v < kVectors; ++v) store(whole + v * kLanes, load(whole + v * kLanes) + sum[v]);
  for (std::int64_t c = 0; c < columns; ++c) y[c] = whole[c];
}

/// Asks for the factors of a token's adapters. They are short runs of memory, which the CPU does not foresee.
template <typename T>
QUIVER_INLINE void fetch_adapters(const LoraTask<T>& task, std::int64_t token) {
  constexpr std::int64_t kLine = 16;  // floats
  const std::int64_t a_size = task.rank * padded(task.d_in, kRowPad), b_size = task.rank * padded(task.d_out, kColumns);
  for (std::int64_t j = 0; j < task.top_k; ++j) {
    const std::int64_t n = task.index[token * task.top_k + j];
    for (std::int64_t i = 0; i < a_size; i += kLine) __builtin_prefetch(task.lora_a + n * a_size + i);
    for (std::int64_t i = 0; i < b_size; i += kLine) __builtin_prefetch(task.lora_b + n * b_size + i);
  }
}

}  // namespace

template <typename T>
void arrow_route(const ArrowTask<T>& task, std::int64_t begin, std::int64_t end, float* scratch) {
  constexpr int kRows = kLanes / 2;  // eight vectors of sums
  const std::int64_t width = padded(task.d_in, kRowPad);
  const std::int64_t num_scores = padded(task.num_adapters, kPanel);
  float* scores = scratch + 16 * width;
  for (std::int64_t t = begin; t < end;) {
    const int rows = end - t < kRows ? 1 : kRows;
    for (int i = 0; i < rows; ++i) unpack(task.x + (t + i) * task.d_in, task.d_in, scratch + i * width);
    for (std::int64_t n = 0; n < num_scores;) {
      const float* panel = task.prototypes + n * task.d_in;
      if (rows == kRows) {
        score_block<kRows, 1>(scratch, width, panel, task.d_in, scores + n, num_scores);
        n += kPanel;
      } else if (n + 4 * kPanel <= num_scores) {
        score_block<1, 4>(scratch, width, panel, task.d_in, scores + n, num_scores);
        n += 4 * kPanel;
      } else {
        score_block<1, 1>(scratch, width, panel, task.d_in, scores + n, num_scores);
        n += kPanel;
      }
    }
    for (int i = 0; i < rows; ++i, ++t) {
      const float* bias = task.bias == nullptr ? nullptr : task.bias + (task.groups == nullptr ? 0 : task.groups[t]) * task.num_adapters;
      adjust(scores + i * num_scores, task.num_adapters, task.scale, task.shift, bias);
      choose(scores + i * num_scores, task.num_adapters, task.top_k, task.temperature, task.index + t * task.top_k,
             task.weight + t * task.top_k);
    }
  }
}

void score_rows(const float* x, const float* const* rows, std::int64_t count, std::int64_t d_in, float* scores) {
  constexpr std::int64_t kCount = 8;  // one chain takes as long as eight side by side
  for (; count >= kCount; count -= kCount, rows += kCount, scores += kCount) score_some_rows<kCount>(x, rows, d_in, scores);
  if (count == 0) return;
  const float* some[kCount];
  float found[kCount];
  for (std::int64_t i = 0; i < kCount; ++i) some[i] = rows[i < count ? i : 0];
  score_some_rows<kCount>(x, some, d_in, found);
  for (std::int64_t i = 0; i < count; ++i) scores[i] = found[i];
}

void choose_adjusted(float* scores, std::int64_t n, const float* scale, const float* shift, const float* bias, std::int64_t top_k,
                     float temperature, std::int64_t* index, float* weight) {
  adjust(scores, n, scale, shift, bias);
  choose(scores, n, top_k, temperature, index, weight);
}

template <typename T>
void shrink_routed(const LoraTask<T>& task, std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints, float* hidden) {
  const std::int64_t width = padded(task.d_in, kRowPad);
  for (std::int64_t t = begin; t < end; ++t) unpack(task.x + t * task.d_in, task.d_in, scratch + (t - begin) * width);
  shrink(task, scratch, (end - begin) * task.top_k, task.index + begin * task.top_k, hidden + begin * task.top_k * task.rank, ints);
}

template <typename T>
void add_routed(const LoraTask<T>& task, std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints) {
  const std::int64_t width = padded(task.d_in, kRowPad);
  const std::int64_t per_token = task.top_k * task.rank;
  const std::int64_t num_tokens = end - begin;
  float* x = scratch;
  float* u = scratch + num_tokens * width;
  if (num_tokens == 1) fetch_adapters(task, begin);
  for (std::int64_t t = 0; t < num_tokens; ++t) unpack(task.x + (begin + t) * task.d_in, task.d_in, x + t * width);
  shrink(task, x, num_tokens * task.top_k, task.index + begin * task.top_k, u, ints);
  for (std::int64_t t = 0; t < num_tokens; ++t) weigh(task, begin + t, u + t * per_token);
  for (std::int64_t c = 0; c < task.d_out; c += kColumns) {
    const float* b = task.lora_b + c * task.rank;
    const std::int64_t columns = task.d_out - c < kColumns ? task.d_out - c : kColumns;
    for (std::int64_t t = 0; t < num_tokens; ++t) {
      expand(task, b, task.index + (begin + t) * task.top_k, u + t * per_token, task.y + (begin + t) * task.d_out + c, columns);
    }
  }
}

template void arrow_route(const ArrowTask<float>&, std::int64_t, std::int64_t, float*);
template void arrow_route(const ArrowTask<Bf16>&, std::int64_t, std::int64_t, float*);
template void shrink_routed(const LoraTask<float>&, std::int64_t, std::int64_t, float*, std::int32_t*, float*);
template void shrink_routed(const LoraTask<Bf16>&, std::int64_t, std::int64_t, float*, std::int32_t*, float*);
template void add_routed(const LoraTask<float>&, std::int64_t, std::int64_t, float*, std::int32_t*);
template void add_routed(const LoraTask<Bf16>&, std::int64_t, std::int64_t, float*, std::int32_t*);

}  // namespace quiver::backend::kernel::QUIVER_ISA
