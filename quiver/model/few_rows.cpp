#include "quiver/model/few_rows.h"

#include <ATen/ThreadLocalState.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "quiver/backend/cpu/attention_isa.h"
#include "quiver/backend/cpu/elementwise_isa.h"
#include "quiver/backend/cpu/quantized_product.h"
#include "quiver/backend/phase_team.h"
#include "quiver/backend/row_parts.h"
#include "quiver/base/error.h"
#include "quiver/model/model.h"
#include "quiver/nn/quantized_weight.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

namespace kernel = backend::kernel;
using backend::divide_up;
using nn::Slot;
using tensor::mutable_trusted_data;
using tensor::trusted_data;
using torch::Tensor;

/// Rows from which threads share out what each row goes through alone.
constexpr std::int64_t kSharedRows = 4;
/// Rows whose updates are an item.
constexpr std::int64_t kUpdateRows = 8;
constexpr std::int64_t kChunksPerThread = 4;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

/// A linear map, as its step and in the terms of its kernel.
struct Map {
  nn::LinearStep step;
  kernel::QuantizedProduct product;                // without the rows
  std::vector<const nn::AdditiveUpdate*> updates;  // of the step's map
  std::int64_t addition = 0;                       // its number among the stage's maps that have updates
};

// Row steps beside those of nn::Step.
struct Quantize {
  Slot slot;
};
struct Copy {
  Slot from, to;
};
struct WriteCache {
  std::size_t layer;
};
struct AddUpdates {
  Slot out;
  std::int64_t addition, width;
};
using RowStep = std::variant<nn::NormStep, nn::TakeStep, nn::RotateStep, nn::GateStep, nn::ActivateStep, nn::AddStep, Quantize, Copy,
                             WriteCache, AddUpdates>;

Slot writes(const RowStep& step) {
  return std::visit(Overloaded{[](const Quantize&) { return nn::kNoSlot; }, [](const WriteCache&) { return nn::kNoSlot; },
                               [](const Copy& s) { return s.to; }, [](const auto& s) { return s.out; }},
                    step);
}

bool reads(const RowStep& step, Slot slot) {
  return std::visit(
      Overloaded{[&](const Quantize& s) { return s.slot == slot; }, [&](const Copy& s) { return s.from == slot; },
                 [&](const WriteCache&) { return slot == kKey || slot == kValue; }, [&](const AddUpdates& s) { return s.out == slot; },
                 [&](const auto& s) {
                   const auto slots = nn::reads(nn::Step(s));
                   return std::ranges::find(slots, slot) != slots.end();
                 }},
      step);
}

/// Maps that do not wait for each other, or the attention of a layer; then steps of each row alone.
struct Stage {
  std::vector<Map> maps;
  std::optional<std::size_t> attention;
  std::vector<RowStep> then;
};

/// Writes the stages of all blocks.
class StageCompiler {
 public:
  /// Nothing where a linear map cannot be computed so.
  static std::optional<std::vector<Stage>> compile(const std::vector<Block>& blocks) {
    StageCompiler compiler;
    for (std::size_t layer = 0; layer < blocks.size(); ++layer) {
      if (!compiler.add(blocks[layer].before)) return {};
      compiler.add(WriteCache{layer});
      compiler.stages_.push_back({.maps = {}, .attention = layer, .then = {}});
      compiler.forget(kAttended);
      if (!compiler.add(blocks[layer].after)) return {};
      if (layer + 1 < blocks.size()) compiler.add(Copy{blocks[layer].result, kInput});
    }
    return std::move(compiler.stages_);
  }

 private:
  void forget(Slot slot) { std::erase(quantized_, slot); }

  void add(const RowStep& step) {
    forget(writes(step));
    stages_.back().then.push_back(step);
  }

  bool add(const nn::RowProgram& program) {
    bool can = true;
    for (const auto& step : program.steps()) {
      std::visit(Overloaded{[&](const nn::LinearStep& s) { can = can && add_map(s); }, [&](const auto& s) { add(RowStep(s)); }}, step);
    }
    return can;
  }

  /// Whether a map of these slots can be computed with the last stage's maps, before its row steps.
  bool fits_last_stage(const nn::LinearStep& step) const {
    const auto& stage = stages_.back();
    if (stage.maps.empty()) return false;
    const auto is_input = [&](Slot slot) { return slot == step.in || slot == step.onto; };
    return std::ranges::none_of(stage.maps, [&](const Map& map) { return is_input(map.step.out) || map.step.out == step.out; }) &&
           std::ranges::none_of(stage.then,
                                [&](const RowStep& s) { return is_input(writes(s)) || writes(s) == step.out || reads(s, step.out); });
  }

  bool add_map(const nn::LinearStep& step) {
    const auto* weight = dynamic_cast<const nn::QuantizedWeight*>(&step.linear.weight());
    if (weight == nullptr || step.linear.is_trained()) return false;
    Map map{.step = step, .product = weight->blocks().kernel_product(), .updates = {}};
    for (const auto& update : step.linear.updates()) {
      map.updates.push_back(dynamic_cast<const nn::AdditiveUpdate*>(update.get()));
      if (map.updates.back() == nullptr) return false;
    }
    const auto& bias = step.linear.bias();
    if (bias.defined()) map.product.bias = tensor::raw_data<float>(bias, "bias of a linear map", {map.product.num_outputs});
    if (!fits_last_stage(step)) stages_.emplace_back();
    auto& stage = stages_.back();
    if (std::ranges::find(quantized_, step.in) == quantized_.end()) {
      stages_[stages_.size() - 2].then.emplace_back(Quantize{step.in});
      quantized_.push_back(step.in);
    }
    map.addition = std::ranges::count_if(stage.maps, [](const Map& other) { return !other.updates.empty(); });
    if (!map.updates.empty()) stage.then.emplace_back(AddUpdates{step.out, map.addition, map.product.num_outputs});
    forget(step.out);
    stage.maps.push_back(std::move(map));
    return true;
  }

  std::vector<Stage> stages_ = std::vector<Stage>(1);
  std::vector<Slot> quantized_;  // slots whose rows are quantised as they are
};

/// The keys that rows see in layers of one window.
struct Visible {
  backend::AttentionPlanPtr plan;
  std::vector<kernel::QueryBlock> blocks;
  std::int64_t most_keys = 0;

  explicit Visible(backend::AttentionPlanPtr given) : plan(std::move(given)) {
    static_assert(sizeof(kernel::KeySpan) == sizeof(backend::AttentionSpan));
    const auto* spans = reinterpret_cast<const kernel::KeySpan*>(plan->spans.data());
    for (const auto& b : plan->blocks) {
      blocks.push_back({b.first_query, b.first_key, b.length, b.num_visible, b.spans_end - b.spans_begin, spans + b.spans_begin});
      most_keys = std::max(most_keys, b.num_visible + b.length);
    }
  }
};

/// One run of the stages.
class FewRowsPass {
 public:
  FewRowsPass(const Model& model, const ForwardRows& rows, const std::vector<Stage>& stages)
      : stages_(stages),
        rows_(rows),
        spec_(model.spec()),
        isa_(tensor::cpu_isa()),
        num_rows_(static_cast<std::int64_t>(rows.tokens.size())),
        widths_(slot_widths(spec_)),
        embedded_(model.embed(rows)),
        scores_(model.attention_scores()),
        result_(model.blocks().back().result) {
    check_cache();
    slots_.resize(kNumBlockSlots);
    quantized_.resize(kNumBlockSlots);
    take(kInput);
    std::memcpy(floats(kInput), trusted_data<float>(embedded_.x), at(embedded_.x.numel()) * sizeof(float));
    for (const auto& stage : stages) {
      for (const auto& map : stage.maps) {
        take(map.step.out);
        if (map.updates.empty()) continue;
        auto& addition = additions_[{map.addition, map.product.num_outputs}];
        if (!addition.defined()) addition = torch::empty({num_rows_, map.product.num_outputs}, torch::kFloat);
      }
      for (const auto& step : stage.then) {
        if (writes(step) != nn::kNoSlot) take(writes(step));
        if (const auto* quantize = std::get_if<Quantize>(&step)) take_quantized(quantize->slot);
      }
      if (stage.attention) take(kAttended);
    }
    for (const auto& [window, rope] : spec_.layers) {
      if (!visible_.contains(window)) visible_.emplace(window, Visible(backend::windowed(rows.plan, window)));
      most_keys_ = std::max(most_keys_, visible_.at(window).most_keys);
    }
    const auto& attention = spec_.block.attention;
    statistics_ = torch::empty({2, num_rows_ * std::max(attention.num_heads, attention.num_kv_heads)}, torch::kFloat);
  }

  Tensor run() {
    const ::at::ThreadLocalState caller;
    const auto& attention = spec_.block.attention;
    const auto scratch_floats = kernel::padded(kernel::decode_scratch_floats(most_keys_, attention.head_dim, attention.num_heads));
    const auto scratch = torch::empty({::at::get_num_threads(), scratch_floats}, torch::kFloat);
    backend::PhaseTeam::run([&](backend::PhaseTeam& team, int thread) {
      const ::at::ThreadLocalStateGuard guard(caller);
      auto* mine = mutable_trusted_data<float>(scratch) + thread * scratch_floats;
      backend::PhaseTeam::Place place;
      for (const auto& stage : stages_) run_stage(stage, team, place, mine);
    });
    return slots_[at(result_)];
  }

 private:
  void check_cache() const {
    const auto& plan = *rows_.plan;
    const auto capacity = rows_.cache->keys.front().size(0);
    const auto is_row = [&](std::int64_t row) { return row >= 0 && row < capacity; };
    if (plan.num_queries == num_rows_ && plan.num_keys == capacity && std::ssize(rows_.cache_rows) == num_rows_ &&
        std::ranges::all_of(rows_.cache_rows, is_row)) {
      return;
    }
    fail(ErrorKind::kInternal, "a plan of {} queries and {} keys for {} rows over a KV cache of {}", plan.num_queries, plan.num_keys,
         num_rows_, capacity);
  }

  // Memory of slots, taken once.
  void take(Slot slot) {
    if (!slots_[at(slot)].defined()) slots_[at(slot)] = torch::empty({num_rows_, widths_[at(slot)]}, torch::kFloat);
  }
  void take_quantized(Slot slot) {
    auto& [values, scales, sums] = quantized_[at(slot)];
    if (values.defined()) return;
    const auto width = widths_[at(slot)], num_blocks = width / kernel::kBlockWidth;
    values = torch::empty({num_rows_, width}, torch::kShort);
    scales = torch::empty({num_rows_, num_blocks}, torch::kFloat);
    sums = torch::empty({num_rows_, num_blocks}, torch::kInt);
  }
  float* floats(Slot slot) const { return mutable_trusted_data<float>(slots_[at(slot)]); }
  kernel::QuantizedRows quantized(Slot slot) const {
    const auto& [values, scales, sums] = quantized_[at(slot)];
    return backend::cpu::quantized_rows(num_rows_, widths_[at(slot)], mutable_trusted_data<std::int16_t>(values),
                                        mutable_trusted_data<float>(scales), mutable_trusted_data<std::int32_t>(sums));
  }

  void run_stage(const Stage& stage, backend::PhaseTeam& team, backend::PhaseTeam::Place& place, float* scratch) const {
    const auto go_on = [&](std::int64_t begin, std::int64_t end) {
      for (const auto& step : stage.then) std::visit([&](const auto& s) { run_step(s, begin, end); }, step);
    };
    const bool shares_rows = num_rows_ >= kSharedRows && team.num_threads() > 1;
    const auto then = [&] {
      if (!shares_rows) go_on(0, num_rows_);
    };
    if (stage.attention) {
      const auto num_blocks = std::ssize(visible_of(*stage.attention).blocks), num_kv_heads = spec_.block.attention.num_kv_heads;
      const auto heads = kernel::decode_unit_heads(num_blocks, num_kv_heads, team.num_threads());
      team.phase(
          place, num_blocks * (num_kv_heads / heads), [&](std::int64_t unit) { attend(*stage.attention, unit, heads, scratch); }, then);
    } else {
      run_maps(stage.maps, team, place, then);
    }
    if (shares_rows)
      team.phase(
          place, num_rows_, [&](std::int64_t row) { go_on(row, row + 1); }, [] {});
  }

  /// The updates first, in items of some rows, then the panels of all maps in chunks.
  template <typename Then>
  void run_maps(const std::vector<Map>& maps, backend::PhaseTeam& team, backend::PhaseTeam::Place& place, const Then& then) const {
    const auto num_panels = [](const Map& map) { return divide_up(map.product.num_outputs, kernel::kPanelRows); };
    std::int64_t all_panels = 0, num_items = 0;
    for (const auto& map : maps) all_panels += num_panels(map);
    const auto per_chunk =
        team.num_threads() == 1 ? std::max<std::int64_t>(all_panels, 1) : divide_up(all_panels, team.num_threads() * kChunksPerThread);
    const auto num_updates = [&](const Map& map) { return map.updates.empty() ? 0 : divide_up(num_rows_, kUpdateRows); };
    for (const auto& map : maps) num_items += num_updates(map) + divide_up(num_panels(map), per_chunk);
    team.phase(
        place, num_items,
        [&](std::int64_t item) {
          for (const auto& map : maps) {
            if (item < num_updates(map)) return compute_updates(map, item * kUpdateRows, std::min((item + 1) * kUpdateRows, num_rows_));
            item -= num_updates(map);
          }
          for (const auto& map : maps) {
            const auto chunks = divide_up(num_panels(map), per_chunk);
            if (item < chunks) return multiply(map, item * per_chunk, std::min((item + 1) * per_chunk, num_panels(map)));
            item -= chunks;
          }
        },
        then);
  }

  void multiply(const Map& map, std::int64_t begin, std::int64_t end) const {
    auto product = map.product;
    product.num_rows = num_rows_;
    product.x = quantized(map.step.in);
    product.onto = map.step.onto == nn::kNoSlot ? nullptr : floats(map.step.onto);
    product.y = floats(map.step.out);
    product.onto_stride = product.y_stride = product.num_outputs;
    backend::cpu::quantized_product(begin, end, product);
  }

  void compute_updates(const Map& map, std::int64_t begin, std::int64_t end) const {
    const auto width = map.product.num_outputs;
    const auto& sum = additions_.at({map.addition, width});
    std::memset(mutable_trusted_data<float>(sum) + begin * width, 0, at((end - begin) * width) * sizeof(float));
    const nn::Rows rows{.first_row = begin, .index = {}, .groups = rows_.groups.empty() ? nullptr : rows_.groups.data()};
    for (const auto* update : map.updates) update->add_to(slots_[at(map.step.in)], begin, end, rows, sum);
  }

  const Visible& visible_of(std::size_t layer) const { return visible_.at(spec_.layers[layer].window); }

  void attend(std::size_t layer, std::int64_t unit_index, std::int64_t heads, float* scratch) const {
    const auto& attention = spec_.block.attention;
    const auto& visible = visible_of(layer);
    kernel::AttentionUnit<float> unit{};
    unit.q = floats(kQuery);
    unit.k = trusted_data<float>(rows_.cache->keys[layer]);
    unit.v = trusted_data<float>(rows_.cache->values[layer]);
    unit.out = floats(kAttended);
    unit.num_queries = num_rows_;
    unit.num_heads = attention.num_heads;
    unit.num_kv_heads = attention.num_kv_heads;
    unit.head_dim = attention.head_dim;
    unit.scale = static_cast<float>(scores_.scale);
    unit.cap = static_cast<float>(scores_.cap);
    unit.window = visible.plan->window;
    unit.scratch = scratch;
    const auto units_of_block = attention.num_kv_heads / heads;
    unit.kv_head = unit_index % units_of_block * heads;
    unit.num_unit_heads = heads;
    unit.blocks = visible.blocks.data() + unit_index / units_of_block;
    unit.num_blocks = 1;
    QUIVER_ON_ISA(isa_, kernel, attention_decode, unit);
  }

  // The steps of rows [begin, end).

  void run_step(const nn::NormStep& step, std::int64_t begin, std::int64_t end) const {
    const auto groups = step.num_groups, width = widths_[at(step.out)] / groups;
    const auto *x = floats(step.in), *weight = trusted_data<float>(step.norm.weight);
    auto *first = mutable_trusted_data<float>(statistics_), *second = first + statistics_.size(1);
    const auto epsilon = static_cast<float>(step.norm.epsilon);
    if (step.norm.bias.defined()) {
      QUIVER_ON_ISA(isa_, kernel, layer_norm_forward<float>, begin * groups, end * groups, width, epsilon, x, weight,
                    trusted_data<float>(step.norm.bias), floats(step.out), first, second);
    } else {
      QUIVER_ON_ISA(isa_, kernel, rms_norm_forward<float>, begin * groups, end * groups, width, epsilon, x, weight, floats(step.out),
                    first);
    }
  }

  void run_step(const nn::TakeStep& step, std::int64_t begin, std::int64_t end) const {
    const auto width = step.num_heads * step.head_dim;
    for (auto row = begin; row < end; ++row) {
      for (std::int64_t head = 0; head < step.num_heads; ++head) {
        std::memcpy(floats(step.out) + row * width + head * step.head_dim,
                    floats(step.in) + row * step.in_width + step.first + head * step.stride, at(step.head_dim) * sizeof(float));
      }
    }
  }

  void run_step(const nn::RotateStep& step, std::int64_t begin, std::int64_t end) const {
    const auto& [cosine, sine] = embedded_.angles[at(step.rope)];
    QUIVER_ON_ISA(isa_, kernel, rotate<float>, begin, end, step.num_heads, widths_[at(step.out)] / step.num_heads, cosine.size(1), 1.0f,
                  floats(step.in), trusted_data<float>(cosine), trusted_data<float>(sine), floats(step.out));
  }

  void run_step(const nn::GateStep& step, std::int64_t begin, std::int64_t end) const {
    const auto width = widths_[at(step.out)];
    if (step.activation == backend::Activation::kSilu) {
      QUIVER_ON_ISA(isa_, kernel, swiglu_forward<float>, begin * width, end * width, floats(step.gate), floats(step.up), floats(step.out));
    } else {
      QUIVER_ON_ISA(isa_, kernel, activation_forward<float>, step.activation, begin * width, end * width, floats(step.gate),
                    floats(step.up), floats(step.out));
    }
  }

  void run_step(const nn::ActivateStep& step, std::int64_t begin, std::int64_t end) const {
    const auto width = widths_[at(step.out)];
    const float* none = nullptr;
    QUIVER_ON_ISA(isa_, kernel, activation_forward<float>, step.activation, begin * width, end * width, floats(step.in), none,
                  floats(step.out));
  }

  void run_step(const nn::AddStep& step, std::int64_t begin, std::int64_t end) const {
    const auto width = widths_[at(step.out)];
    const auto *in = floats(step.in), *onto = floats(step.onto);
    auto* out = floats(step.out);
    const auto scale = static_cast<float>(step.scale);
    for (auto i = begin * width; i < end * width; ++i) out[i] = onto[i] + scale * in[i];
  }

  void run_step(const Quantize& step, std::int64_t begin, std::int64_t end) const {
    backend::cpu::quantize_rows(begin, end, widths_[at(step.slot)], floats(step.slot), quantized(step.slot));
  }

  void run_step(const Copy& step, std::int64_t begin, std::int64_t end) const {
    const auto width = widths_[at(step.from)];
    std::memcpy(floats(step.to) + begin * width, floats(step.from) + begin * width, at((end - begin) * width) * sizeof(float));
  }

  void run_step(const WriteCache& step, std::int64_t begin, std::int64_t end) const {
    const auto width = widths_[kKey];
    const auto write = [&](Slot slot, const Tensor& cache) {
      for (auto row = begin; row < end; ++row) {
        std::memcpy(mutable_trusted_data<float>(cache) + rows_.cache_rows[at(row)] * width, floats(slot) + row * width,
                    at(width) * sizeof(float));
      }
    };
    write(kKey, rows_.cache->keys[step.layer]);
    write(kValue, rows_.cache->values[step.layer]);
  }

  void run_step(const AddUpdates& step, std::int64_t begin, std::int64_t end) const {
    auto* out = floats(step.out);
    const auto* added = trusted_data<float>(additions_.at({step.addition, step.width}));
    for (auto i = begin * step.width; i < end * step.width; ++i) out[i] += added[i];
  }

  struct QuantizedTensors {
    Tensor values, scales, sums;
  };

  const std::vector<Stage>& stages_;
  const ForwardRows& rows_;
  const ModelSpec& spec_;
  tensor::CpuIsa isa_;
  std::int64_t num_rows_;
  std::vector<std::int64_t> widths_;
  Model::Embedded embedded_;
  backend::AttentionScores scores_;
  Slot result_;
  std::vector<Tensor> slots_;                                          // [T, width], undefined if unused
  std::vector<QuantizedTensors> quantized_;                            // of slots that maps read
  std::map<std::pair<std::int64_t, std::int64_t>, Tensor> additions_;  // [T, width] of a stage's updates, by number and width
  Tensor statistics_;                                                  // that norms leave for a backward pass
  std::map<std::int64_t, Visible> visible_;                            // by window
  std::int64_t most_keys_ = 0;
};

class CompiledRows final : public FewRows {
 public:
  explicit CompiledRows(std::vector<Stage> stages) : stages_(std::move(stages)) {}

  bool takes(const ForwardRows& rows) const override {
    const auto count = std::ssize(rows.tokens);
    const bool is_by_key = rows.plan->num_direct == std::ssize(rows.plan->blocks);  // no run is long enough for chunks
    return rows.cache != nullptr && rows.attend_to_cache && is_by_key && count > 0 && count <= kMostRows;
  }
  Tensor hidden(const Model& model, const ForwardRows& rows) const override { return FewRowsPass(model, rows, stages_).run(); }

 private:
  std::vector<Stage> stages_;
};

}  // namespace

std::shared_ptr<const FewRows> FewRows::compile(const std::vector<Block>& blocks) {
  auto stages = StageCompiler::compile(blocks);
  return stages ? std::make_shared<CompiledRows>(*std::move(stages)) : nullptr;
}

}  // namespace quiver::model
