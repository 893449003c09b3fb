// Attention over forests, its gradients and decoding, against their definitions in float64.
#include <algorithm>
#include <memory>

#include "quiver/backend/attention_plan.h"
#include "quiver/backend/cpu/attention_isa.h"
#include "tests/kernels/support.h"

namespace quiver::kernel_test {
namespace {

namespace kernel = backend::kernel;
using backend::AttentionBlock;
using backend::AttentionChunks;
using backend::AttentionPlan;
using backend::AttentionSpan;
using kernel::AttentionUnit;
using kernel::GradientUse;
using kernel::KeySpan;
using kernel::QueryBlock;

/// Adds a random segment of `path`'s tree and its children, depth first.
void add_segments(Draw& draw, AttentionPlan& plan, const std::vector<AttentionSpan>& path, int depth) {
  const auto length = draw.size(1, draw.size(0, 3) == 0 ? 70 : 9);
  AttentionBlock block{.first_query = plan.num_queries, .first_key = plan.num_queries, .length = length};
  block.spans_begin = std::ssize(plan.spans);
  for (const auto& span : path) {
    plan.spans.push_back(span);
    block.num_visible += span.length;
  }
  block.spans_end = std::ssize(plan.spans);
  plan.blocks.push_back(block);
  auto below = path;
  below.push_back({plan.num_queries, length});
  plan.num_queries += length;
  for (auto children = depth > 0 ? draw.size(0, 3) : 0; children > 0; --children) add_segments(draw, plan, below, depth - 1);
}

AttentionPlan random_plan(Draw& draw) {
  AttentionPlan plan;
  for (auto trees = draw.size(0, 2); trees >= 0; --trees) add_segments(draw, plan, {}, 2);
  plan.num_keys = plan.num_queries;
  plan.chunks = backend::cut_into_chunks(plan, draw.size(1, 80));
  plan.window = draw.coin() ? draw.size(1, 40) : 0;
  return plan;
}

struct Shape {
  std::int64_t kv_heads, group, dim;
  std::int64_t heads() const { return kv_heads * group; }
  explicit Shape(Draw& draw) : kv_heads(draw.size(1, 2)), group(draw.size(1, 3)), dim(draw.coin() ? draw.size(1, 40) : 64) {}
};

/// The keys that each query sees.
std::vector<std::vector<std::int64_t>> visible_keys(const AttentionPlan& plan) {
  std::vector<std::vector<std::int64_t>> of_query(static_cast<std::size_t>(plan.num_queries));
  for (const auto& block : plan.blocks) {
    for (std::int64_t i = 0; i < block.length; ++i) {
      auto& keys = of_query[static_cast<std::size_t>(block.first_query + i)];
      for (auto s = block.spans_begin; s < block.spans_end; ++s) {
        const auto& span = plan.spans[static_cast<std::size_t>(s)];
        for (std::int64_t j = 0; j < span.length; ++j) keys.push_back(span.first + j);
      }
      for (std::int64_t j = 0; j <= i; ++j) keys.push_back(block.first_key + j);
      if (plan.window > 0 && std::ssize(keys) > plan.window) keys.erase(keys.begin(), keys.end() - plan.window);
    }
  }
  return of_query;
}

/// A score s is scale s, or with a cap, cap tanh(scale s / cap).
struct Scores {
  double scale, cap;
  explicit Scores(Draw& draw, const Shape& shape)
      : scale(static_cast<float>(1 / std::sqrt(static_cast<double>(shape.dim)))), cap(draw.coin() ? 0 : 1.5) {}
  double of(double s) const { return cap > 0 ? cap * std::tanh(scale * s / cap) : scale * s; }
  /// The derivative, given the score.
  double slope(double score) const { return cap > 0 ? scale * (1 - score * score / (cap * cap)) : scale; }
};

/// softmax(scores of Q K^T) V and its gradients in float64. q, out, dout, dq [Tq, H, D]; k, v, dk, dv [Tk, H_kv, D]; lse [H, Tq].
template <typename T>
struct Definition {
  const Exact<T>&q, &k, &v, &dout;
  Expected out, lse, dq, dk, dv;

  Definition(const AttentionPlan& plan, const Shape& shape, Scores score_of, const Exact<T>& queries, const Exact<T>& keys,
             const Exact<T>& values, const Exact<T>& gradient)
      : q(queries), k(keys), v(values), dout(gradient) {
    out.resize(q.all().size());
    lse.resize(static_cast<std::size_t>(shape.heads() * plan.num_queries));
    dq.resize(q.all().size());
    dk.resize(k.all().size());
    dv.resize(k.all().size());
    const auto seen = visible_keys(plan);
    for (std::int64_t i = 0; i < plan.num_queries; ++i) {
      for (std::int64_t h = 0; h < shape.heads(); ++h) {
        add(seen[static_cast<std::size_t>(i)], shape, score_of, (i * shape.heads() + h) * shape.dim, h / shape.group,
            lse[static_cast<std::size_t>(h * plan.num_queries + i)]);
      }
    }
  }

 private:
  /// One query of one head, whose elements begin at `at`.
  void add(const std::vector<std::int64_t>& keys, const Shape& shape, Scores score_of, std::int64_t at, std::int64_t kv_head,
           double& log_sum) {
    const auto row = [&](std::int64_t key) { return (key * shape.kv_heads + kv_head) * shape.dim; };
    const auto dot = [&](const Exact<T>& left, const Exact<T>& right, std::int64_t r) {
      double sum = 0;
      for (std::int64_t d = 0; d < shape.dim; ++d) sum += left.at(at + d) * right.at(r + d);
      return sum;
    };
    double highest = -std::numeric_limits<double>::infinity(), sum = 0, delta = 0;
    std::vector<double> p, slopes;
    for (const auto key : keys) {
      p.push_back(score_of.of(dot(q, k, row(key))));
      slopes.push_back(score_of.slope(p.back()));
    }
    for (const double score : p) highest = std::max(highest, score);
    for (double& score : p) sum += score = std::exp(score - highest);
    log_sum = highest + std::log(sum);
    for (std::size_t j = 0; j < keys.size(); ++j) {
      p[j] /= sum;
      for (std::int64_t d = 0; d < shape.dim; ++d) out[static_cast<std::size_t>(at + d)] += p[j] * v.at(row(keys[j]) + d);
    }
    for (std::int64_t d = 0; d < shape.dim; ++d) {  // rowsum(dO O), with O as it is stored
      T stored;
      from_double(out[static_cast<std::size_t>(at + d)], stored);
      delta += dout.at(at + d) * to_double(stored);
    }
    for (std::size_t j = 0; j < keys.size(); ++j) {
      const auto r = row(keys[j]);
      const double ds = slopes[j] * p[j] * (dot(dout, v, r) - delta);
      for (std::int64_t d = 0; d < shape.dim; ++d) {
        dq[static_cast<std::size_t>(at + d)] += ds * k.at(r + d);
        dk[static_cast<std::size_t>(r + d)] += ds * q.at(at + d);
        dv[static_cast<std::size_t>(r + d)] += p[j] * dout.at(at + d);
      }
    }
  }
};

std::vector<KeySpan> key_spans(const std::vector<AttentionSpan>& spans) {
  std::vector<KeySpan> result;
  for (const auto& span : spans) result.push_back({span.first, span.length});
  return result;
}

std::vector<QueryBlock> query_blocks(const std::vector<AttentionBlock>& blocks, const std::vector<KeySpan>& spans) {
  std::vector<QueryBlock> result;
  for (const auto& block : blocks) {
    result.push_back({block.first_query, block.first_key, block.length, block.num_visible, block.spans_end - block.spans_begin,
                      spans.data() + block.spans_begin});
  }
  return result;
}

/// Calls f(unit, chunk) for every chunk and key head, with scratch of just the size that the kernel asks for.
template <typename T, typename F>
void for_chunks(const AttentionUnit<T>& unit, const AttentionChunks& work, F f) {
  const auto spans = key_spans(work.spans), context = key_spans(work.context);
  const auto blocks = query_blocks(work.blocks, spans);
  for (std::size_t c = 0; c < work.chunks.size(); ++c) {
    const auto& chunk = work.chunks[c];
    auto mine = unit;
    mine.context = context.data() + chunk.context_begin;
    mine.num_context_spans = chunk.context_end - chunk.context_begin;
    mine.first_row = chunk.first_row;
    mine.num_rows = chunk.num_rows;
    mine.num_keys = chunk.num_keys();
    mine.blocks = blocks.data() + chunk.blocks_begin;
    mine.num_blocks = chunk.blocks_end - chunk.blocks_begin;
    mine.most_spans = 0;
    for (std::int64_t b = 0; b < mine.num_blocks; ++b) mine.most_spans = std::max(mine.most_spans, mine.blocks[b].num_spans);
    Exact<float> scratch(kernel::scratch_floats(mine.num_keys, mine.most_spans, mine.head_dim));
    mine.scratch = scratch.data();
    for (mine.kv_head = 0; mine.kv_head < mine.num_kv_heads; ++mine.kv_head) f(mine, c);
  }
}

template <typename T>
AttentionUnit<T> unit_of(const Shape& shape, std::int64_t num_queries, const Scores& scores, const Exact<T>& q, const Exact<T>& k,
                         const Exact<T>& v) {
  AttentionUnit<T> unit{};
  unit.q = q.data();
  unit.k = k.data();
  unit.v = v.data();
  unit.num_queries = num_queries;
  unit.num_heads = shape.heads();
  unit.num_kv_heads = shape.kv_heads;
  unit.head_dim = shape.dim;
  unit.scale = static_cast<float>(scores.scale);
  unit.cap = static_cast<float>(scores.cap);
  return unit;
}

/// The gradients of all chunks, as backend/cpu/attention.cpp collects them.
template <typename T>
void run_backward(CpuIsa isa, AttentionUnit<T> unit, const AttentionChunks& work, T* dk, T* dv) {
  const auto width = kernel::padded(unit.head_dim);
  std::vector<std::unique_ptr<Exact<float>>> places;  // [chunk, kv head, dk or dv]
  for (const auto& chunk : work.chunks) {
    for (std::int64_t i = 0; i < 2 * unit.num_kv_heads; ++i) places.push_back(std::make_unique<Exact<float>>(chunk.num_keys() * width));
  }
  const auto place = [&](std::size_t chunk, std::int64_t kv_head, int which) {
    return places[(chunk * static_cast<std::size_t>(unit.num_kv_heads) + static_cast<std::size_t>(kv_head)) * 2 +
                  static_cast<std::size_t>(which)]
        ->data();
  };
  for_chunks(unit, work, [&](AttentionUnit<T>& mine, std::size_t chunk) {
    mine.dk = place(chunk, mine.kv_head, 0);
    mine.dv = place(chunk, mine.kv_head, 1);
    QUIVER_ON_ISA(isa, kernel, attention_backward, mine);
  });
  for_chunks(unit, work, [&](AttentionUnit<T>& mine, std::size_t chunk) {
    mine.dk = place(chunk, mine.kv_head, 0);
    mine.dv = place(chunk, mine.kv_head, 1);
    std::vector<GradientUse> uses;
    for (const auto& use : work.uses) {
      if (use.owner != static_cast<std::int64_t>(chunk)) continue;
      const auto user = static_cast<std::size_t>(use.user);
      uses.push_back({use.first_row - mine.first_row, use.length, place(user, mine.kv_head, 0) + use.first_key * width,
                      place(user, mine.kv_head, 1) + use.first_key * width});
    }
    QUIVER_ON_ISA(isa, kernel, collect_gradients, mine, uses.data(), std::ssize(uses), dk, dv);
  });
}

/// With products of bfloat16 the probabilities are rounded, too.
template <typename T>
Tolerance tolerance_on(CpuIsa isa) {
  if (sizeof(T) == sizeof(float)) return {1e-4, 1e-5, 1e-5};
  return isa == CpuIsa::kV4Bf16 ? Tolerance{0.02, 0.01, 0.01} : Tolerance{0x1p-7, 1e-3, 1e-3};
}

template <typename T>
class Attention : public ::testing::Test {};
using Elements = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(Attention, Elements);

TYPED_TEST(Attention, OverAForestAndItsGradientsAreTheirDefinitions) {
  using T = TypeParam;
  for_rounds("attention", [](Draw& draw) {
    const Shape shape(draw);
    const auto plan = random_plan(draw);
    const Scores scores(draw, shape);
    const auto count = plan.num_queries;
    const auto q = draw.values<T>(count * shape.heads() * shape.dim), dout = draw.values<T>(count * shape.heads() * shape.dim);
    const auto k = draw.values<T>(count * shape.kv_heads * shape.dim), v = draw.values<T>(count * shape.kv_heads * shape.dim);
    const Definition<T> definition(plan, shape, scores, q, k, v, dout);
    Exact<T> out_in(std::ssize(definition.out));
    Exact<float> lse_in(std::ssize(definition.lse));
    for (std::size_t i = 0; i < definition.out.size(); ++i) from_double(definition.out[i], out_in.all()[i]);
    for (std::size_t i = 0; i < definition.lse.size(); ++i) from_double(definition.lse[i], lse_in.all()[i]);
    for (const auto isa : instruction_sets()) {
      auto unit = unit_of(shape, count, scores, q, k, v);
      unit.window = plan.window;
      auto out = draw.untouched<T>(std::ssize(definition.out)), dq = draw.untouched<T>(std::ssize(definition.out));
      auto dk = draw.untouched<T>(std::ssize(definition.dk)), dv = draw.untouched<T>(std::ssize(definition.dk));
      auto lse = draw.untouched<float>(std::ssize(definition.lse));
      unit.out = out.data();
      unit.lse = lse.data();
      for_chunks(unit, plan.chunks,
                 [&](const AttentionUnit<T>& mine, std::size_t) { QUIVER_ON_ISA(isa, kernel, attention_forward, mine); });
      expect_near(out, definition.out, tolerance_on<T>(isa), "attention", isa);
      expect_near(lse, definition.lse, {1e-5, 1e-5, 1e-5}, "lse of attention", isa);
      unit.dout = dout.data();
      unit.out_in = out_in.data();
      unit.lse = lse_in.data();
      unit.dq = dq.data();
      run_backward(isa, unit, plan.chunks, dk.data(), dv.data());
      expect_near(dq, definition.dq, tolerance_on<T>(isa), "dq of attention", isa);
      expect_near(dk, definition.dk, tolerance_on<T>(isa), "dk of attention", isa);
      expect_near(dv, definition.dv, tolerance_on<T>(isa), "dv of attention", isa);
    }
  });
}

TYPED_TEST(Attention, DecodingOverACacheIsItsDefinition) {
  using T = TypeParam;
  for_rounds("attention_decode", [](Draw& draw) {
    const Shape shape(draw);
    AttentionPlan plan;
    plan.num_keys = draw.size(1, 90);
    std::int64_t next = 0;  // of the cache: spans, then the block's own keys
    AttentionBlock block{.first_query = draw.size(0, 2)};
    for (auto spans = draw.size(0, 3); spans > 0; --spans) {
      const auto first = draw.size(next, plan.num_keys - 1), length = draw.size(0, plan.num_keys - 1 - first);
      plan.spans.push_back({first, length});
      block.num_visible += length;
      next = first + length;
    }
    block.spans_end = std::ssize(plan.spans);
    block.first_key = draw.size(next, plan.num_keys - 1);
    block.length = draw.size(1, std::min<std::int64_t>(3, plan.num_keys - block.first_key));
    plan.blocks = {block};
    plan.num_queries = block.first_query + block.length;
    const Scores scores(draw, shape);
    const auto q = draw.values<T>(plan.num_queries * shape.heads() * shape.dim);
    const auto k = draw.values<T>(plan.num_keys * shape.kv_heads * shape.dim),
               v = draw.values<T>(plan.num_keys * shape.kv_heads * shape.dim);
    auto expected = Definition<T>(plan, shape, scores, q, k, v, q).out;
    std::fill_n(expected.begin(), block.first_query * shape.heads() * shape.dim, kUntouched);
    const auto unit_heads = draw.coin() ? std::int64_t{1} : shape.kv_heads;
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(std::ssize(expected));
      auto unit = unit_of(shape, plan.num_queries, scores, q, k, v);
      unit.num_unit_heads = unit_heads;
      const auto spans = key_spans(plan.spans);
      const auto blocks = query_blocks(plan.blocks, spans);
      Exact<float> scratch(kernel::decode_scratch_floats(block.num_visible + block.length, shape.dim, unit_heads * shape.group));
      unit.out = out.data();
      unit.blocks = blocks.data();
      unit.num_blocks = 1;
      unit.scratch = scratch.data();
      for (unit.kv_head = 0; unit.kv_head < shape.kv_heads; unit.kv_head += unit_heads) QUIVER_ON_ISA(isa, kernel, attention_decode, unit);
      expect_near(out, expected, tolerance_on<T>(CpuIsa::kV4), "decoding", isa);
    }
  });
}

}  // namespace
}  // namespace quiver::kernel_test
