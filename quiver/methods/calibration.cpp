#include "quiver/methods/calibration.h"

#include <torch/utils.h>

#include <algorithm>
#include <ranges>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/data/encode.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/methods/kept.h"
#include "quiver/model/generate.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::methods {
namespace {

/// Part of the key of stored figures: changes when their computation does.
constexpr const char* kCalibrationVersion = "score-calibration-4";

/// What stands before and after the user's text in a prompt.
struct Frame {
  Prompt before, after;
};

/// The frame of a chat prompt. Throws kUnsupported for a template that does not write the user's text as it is.
Frame frame_of(const BaseModel& base) {
  if (!base.format.chat) return {.before = data::encode_text(base.tokenizer, "")};
  const std::string mark = "Xj7qKz";
  const auto text = base.format.chat->render(data::with_system(base.format, {{"user", mark}}), /*add_generation_prompt=*/true);
  const auto place = text.find(mark);
  if (place == std::string::npos) {
    fail(ErrorKind::kUnsupported,
         "{}: the template does not write the user's text as it is, so prompts cannot be sampled; give `calibration=FILE`",
         base.format.chat->origin());
  }
  return {base.tokenizer.encode(text.substr(0, place)),
          base.tokenizer.encode(text.substr(place + mark.size()), {.place = text::TextPlace::kContinued})};
}

/// What the base's own text is sampled from.
struct SampleInputs {
  const model::Model& base;
  Prompt start,
      after;    ///< what stands before and after the sampled text in a chat prompt; bare text begins with `start`, and has no `after`
  Prompt stop;  ///< ids that are left out; the first of them ends a message of a chat
  std::int32_t fallback;  ///< the prompt where nothing was sampled
  bool is_chat;
  std::int64_t num_prompts, max_tokens;
  std::uint64_t seed;
  void add_to(ArtifactKey& key) const {
    const auto& [lm, before, behind, stop_ids, empty, chat, count, length, draw] = *this;
    key.add(lm).add(std::vector{before, behind, stop_ids}).add_values(empty, chat, count, length, draw);
  }
};

/// Continuations of nothing, or of where a user's message begins: the base model's idea of text. Tensors "0000", "0001", ...
tensor::TensorMap sample_prompts(const SampleInputs& in, Progress&) {
  const std::vector<Prompt> starts(static_cast<std::size_t>(in.num_prompts), in.start);
  auto prompts = model::generate(in.base, starts,
                                 {.max_new_tokens = in.max_tokens,
                                  .sampler = {.temperature = 1, .seed = derive_seed(in.seed, "calibration")},
                                  .stop_ids = in.is_chat ? in.stop : Prompt{}});  // a message ends, documents go on
  tensor::TensorMap tensors;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    std::erase_if(prompts[i], [&](std::int32_t id) { return std::ranges::find(in.stop, id) != in.stop.end(); });
    if (in.is_chat) {
      prompts[i].insert(prompts[i].begin(), in.start.begin(), in.start.end());
      prompts[i].insert(prompts[i].end(), in.after.begin(), in.after.end());
    }
    if (prompts[i].empty()) prompts[i] = {in.fallback};
    tensors.emplace(format("{:04d}", i), torch::tensor(std::vector<std::int64_t>(prompts[i].begin(), prompts[i].end())));
  }
  return tensors;
}

std::vector<Prompt> own_samples(const BaseModel& base, const library::Library& library, const CalibrationText& text, Progress& progress) {
  const auto frame = frame_of(base);
  const auto stop = data::stop_ids(base.tokenizer, base.format);
  auto start = base.tokenizer.bos_id();
  if (!start && !stop.empty()) start = stop.front();
  if (!start)
    fail(ErrorKind::kUnsupported, "the base model's tokenizer has neither BOS nor EOS to sample text from; give `calibration=FILE`");
  const bool is_chat = base.format.chat.has_value();
  const SampleInputs inputs{.base = base.lm,
                            .start = is_chat ? frame.before : Prompt{*start},
                            .after = frame.after,
                            .stop = stop,
                            .fallback = *start,
                            .is_chat = is_chat,
                            .num_prompts = text.num_prompts,
                            .max_tokens = text.max_tokens,
                            .seed = text.seed};
  std::vector<Prompt> prompts;
  for (const auto& [index, sample] : kept_in(library, "base-samples-3", {}, inputs, sample_prompts, progress)) {
    const auto ids = sample.to(torch::kInt).contiguous();
    const auto tokens = tensor::elements<std::int32_t>(ids, "a sampled prompt");
    prompts.emplace_back(tokens.begin(), tokens.end());
  }
  return prompts;
}

std::vector<Prompt> file_prompts(const BaseModel& base, const CalibrationText& text) {
  std::vector<std::string> texts;
  if (text.file.path.ends_with(".jsonl") || text.file.path.ends_with(".jsonl.zst")) {
    io::JsonLinesReader reader(text.file.path);
    while (const auto row = reader.next()) texts.push_back(io::require_string(*row, "text", reader.where()));
  } else {
    const auto lines = io::read_text_file(text.file.path);
    for (const auto line : std::views::split(lines, '\n')) {
      if (!line.empty()) texts.emplace_back(line.begin(), line.end());
    }
  }
  std::vector<Prompt> prompts;
  const auto frame = frame_of(base);
  for (const auto& line : texts) {
    auto ids = base.tokenizer.encode(line);
    if (ids.empty()) continue;
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(text.max_tokens)));
    ids.insert(ids.begin(), frame.before.begin(), frame.before.end());
    ids.insert(ids.end(), frame.after.begin(), frame.after.end());
    prompts.push_back(std::move(ids));
    if (static_cast<std::int64_t>(prompts.size()) == text.num_prompts) break;
  }
  if (prompts.size() < 2) fail(ErrorKind::kUsage, "'{}' holds {} texts; calibration takes at least 2", text.file.path, prompts.size());
  return prompts;
}

/// The figures by the names under which a library keeps an adapter's.
constexpr std::pair<const char*, torch::Tensor ScoreCalibration::*> kFigures[] = {{"mean", &ScoreCalibration::mean},
                                                                                  {"deviation", &ScoreCalibration::deviation},
                                                                                  {"prompt_mean", &ScoreCalibration::prompt_mean},
                                                                                  {"prompt_deviation", &ScoreCalibration::prompt_deviation},
                                                                                  {"prompt_z", &ScoreCalibration::prompt_z}};

void check_varies(const tensor::TensorMap& measured, const std::string& name, std::span<const std::string> paths) {
  for (const char* key : {"deviation", "prompt_deviation"}) {
    const auto constant = (measured.at(key) > 0).logical_not().nonzero();  // NaN included
    if (constant.size(0) == 0) continue;
    fail(ErrorKind::kUsage,
         "the scores of adapter '{}' do not vary over the calibration text at '{}': its update is 0 there, or the text too short", name,
         paths[static_cast<std::size_t>(constant[0].item<std::int64_t>())]);
  }
}

/// What the figures of one adapter are computed from.
struct AdapterScores {
  const std::string& name;
  const model::Model& base;
  const std::vector<Prompt>& prompts;
  Scoring scoring;  ///< the adapter's alone
  void add_to(ArtifactKey& key) const {
    const auto& [for_messages, lm, texts, own] = *this;
    key.add(lm).add(texts).add(own);
  }
};

/// The figures of adapters that are scored in one pass. They share the base, the prompts and the rule.
std::vector<tensor::TensorMap> measure(std::span<const AdapterScores* const> adapters, Progress& progress) {
  const auto& first = *adapters.front();
  Scoring together{.vectors = {}, .rule = first.scoring.rule};
  std::vector<std::string> names;
  for (const auto* each : adapters) names.push_back(each->name);
  for (const auto& [path, vectors] : first.scoring.vectors) {
    std::vector<torch::Tensor> of_adapters;
    for (const auto* each : adapters) of_adapters.push_back(each->scoring.vectors.at(path));
    together.vectors.emplace(path, torch::cat(of_adapters));
  }
  progress.begin("calibrate", static_cast<std::int64_t>(first.prompts.size()), "prompts");
  const auto summary = observe_scores(first.base, first.prompts, together, progress);
  progress.end();
  check_finite(summary.by_prompt, summary.paths, names);
  ScoreCalibration whole{.mean = summary.mean,
                         .deviation = summary.deviation,
                         .prompt_mean = summary.by_prompt.mean(0),
                         .prompt_deviation = summary.by_prompt.var(0, /*unbiased=*/false).sqrt()};
  whole.prompt_z = whole.pooled(summary.by_prompt);
  std::vector<tensor::TensorMap> measured(adapters.size());
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    for (const auto& [name, figure] : kFigures) {
      measured[i].emplace(name, (whole.*figure).select(1, static_cast<std::int64_t>(i)).contiguous());
    }
    check_varies(measured[i], names[i], summary.paths);
  }
  return measured;
}

}  // namespace

std::vector<Prompt> calibration_prompts(const BaseModel& base, const library::Library& library, const CalibrationText& text,
                                        Progress& progress) {
  if (!text.file.path.empty()) return file_prompts(base, text);
  progress.message("calibrating on samples of the base model");
  return own_samples(base, library, text, progress);
}

routing::Calibration ScoreCalibration::at(const std::string& path) const {
  const auto found = std::ranges::find(paths, path);
  if (found == paths.end()) fail(ErrorKind::kNotFound, "no calibration for '{}'", path);
  const auto l = found - paths.begin();
  return {mean[l].to(torch::kFloat), deviation[l].to(torch::kFloat)};
}

torch::Tensor ScoreCalibration::pooled(const torch::Tensor& by_prompt) const {
  return ((by_prompt - prompt_mean) / prompt_deviation).mean(1);
}

ScoreCalibration calibrate(const BaseModel& base, const library::Library& library, std::span<const std::string> names,
                           const Scoring& scoring, const CalibrationText& text, Progress& progress) {
  const auto prompts = calibration_prompts(base, library, text, progress);
  std::vector<AdapterScores> inputs;
  std::vector<nlohmann::json> about;
  for (std::size_t n = 0; n < names.size(); ++n) {
    Scoring own{.vectors = {}, .rule = scoring.rule};
    for (const auto& [path, vectors] : scoring.vectors) own.vectors.emplace(path, vectors.narrow(0, static_cast<std::int64_t>(n), 1));
    inputs.push_back({names[n], base.lm, prompts, std::move(own)});
    about.push_back({{"adapter", names[n]}});
  }
  const auto measured = kept_all_in(library, kCalibrationVersion, about, inputs, measure, progress);
  ScoreCalibration calibration;
  for (const auto& [path, vectors] : scoring.vectors) calibration.paths.push_back(path);
  for (const auto& [name, figure] : kFigures) {
    std::vector<torch::Tensor> columns;
    for (const auto& each : measured) columns.push_back(each.at(name).to(torch::kDouble));
    calibration.*figure = torch::stack(columns, 1);
  }
  return calibration;
}

}  // namespace quiver::methods
