#include "quiver/recipes/eval_section.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/data/prompt_format.h"
#include "quiver/eval/prompt_cache.h"
#include "quiver/eval/score.h"
#include "quiver/methods/table.h"
#include "quiver/metrics/choice.h"
#include "quiver/metrics/exact_match.h"
#include "quiver/metrics/pass_at_k.h"
#include "quiver/metrics/perplexity.h"
#include "quiver/metrics/rouge.h"
#include "quiver/metrics/stop.h"
#include "quiver/results/text_scores.h"

namespace quiver::recipes {
namespace {

constexpr std::size_t kAnswersTogether = 64;
constexpr std::int64_t kBatchRows = 2048;  // of likelihoods that are computed in one pass
constexpr std::int64_t kChunkRows = 8192;  // that are kept together
constexpr std::int64_t kMostBatchRows = 16384;

/// A row of a task.
struct RowOf {
  const EvalRows* task;
  std::size_t row;
};

/// Evaluates one method on tasks with one choice of adapters.
class TaskRun {
 public:
  TaskRun(const SectionSetup& setup, const EvalMethod& method, const std::string& section, EvalJournal& journal, Progress& progress)
      : setup_(setup),
        method_(method),
        section_(section),
        journal_(journal),
        progress_(progress),
        stop_ids_(data::stop_ids(setup.base.tokenizer, setup.base.format)),
        bare_stop_ids_(data::stop_ids(setup.base.tokenizer, {})) {}

  /// The rows of the tasks that the journal lacks.
  void run(const methods::AdapterUse& use, std::span<const EvalRows> tasks) {
    std::vector<RowOf> rows;
    for (const auto& task : tasks) {
      for (auto row = journal_.num_done(task.task.name); row < task.task.num_rows(); ++row) rows.push_back({&task, row});
    }
    if (rows.empty()) return;
    recorder_.clear();
    const auto model = methods::adapted_model(setup_.base, use, progress_, &recorder_);
    if (!use.source.library.empty() && use.method.row().family != methods::Family::kMerge)
      adapters_ = methods::library_members(library::Library::open(use.source.library), use.source);
    const auto kind = tasks.front().task.kind;
    if (kind == tasks::Kind::kChoice || kind == tasks::Kind::kText || !setup_.rows.generates) {
      run_likelihoods(model, rows);
    } else {
      run_answers(model, rows);
    }
  }

 private:
  std::string name_of(const methods::AdaptedModel& model) const { return format("evaluation method '{}', {},", method_.name, model.name); }

  results::Sample& add_sample(EvalPart& chunk, const EvalRows& task, const std::string& id) const {
    chunk.samples.push_back({.section = section_, .method = method_.name, .task = task.task.name, .id = id});
    return chunk.samples.back();
  }

  /// Keeps a chunk with what was routed since the last.
  void keep(EvalPart chunk) {
    for (const auto& [task, by_path] : recorder_.usage()) {
      if (task.empty() || adapters_.empty()) continue;
      for (const auto& [path, usage] : by_path) chunk.routing[task][path] = usage.weight;
    }
    recorder_.clear();
    chunk.adapters = adapters_;
    progress_.advance(std::ssize(chunk.samples), "");
    journal_.append(std::move(chunk));
    throw_if_stopped("while evaluating; finished parts are kept");
  }

  std::vector<eval::SequenceScore> score(const methods::AdaptedModel& model, const EvalRows& task, std::size_t first, std::size_t end) {
    if (first == end) return {};  // empty texts
    const auto begin = task.sequences.begin();
    std::vector<forest::Sequence> sequences(begin + static_cast<std::ptrdiff_t>(first), begin + static_cast<std::ptrdiff_t>(end));
    const auto leases = model.assign_groups(sequences, quiet_);
    // Few-shot examples that all have are computed once a batch: a larger batch where they are long.
    const auto batch = std::min(kMostBatchRows, kBatchRows + 8 * common_prefix(sequences));
    const std::vector<std::string> names(task.names.begin() + static_cast<std::ptrdiff_t>(first),
                                         task.names.begin() + static_cast<std::ptrdiff_t>(end));
    recorder_.set_tag(task.task.name);
    return eval::score_sequences(model.lm, sequences, {.max_batch_rows = batch, .names = {name_of(model), names}}, quiet_);
  }

  static std::int64_t common_prefix(std::span<const forest::Sequence> sequences) {
    auto common = std::span(sequences.front().tokens);
    for (const auto& sequence : sequences) {
      const auto [end, other] = std::ranges::mismatch(common, sequence.tokens);
      common = common.first(static_cast<std::size_t>(end - common.begin()));
    }
    return std::ssize(common);
  }

  void run_likelihoods(const methods::AdaptedModel& model, std::span<const RowOf> rows) {
    for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
      const auto& task = *rows[begin].task;
      std::int64_t size = 0;
      for (end = begin; end < rows.size() && rows[end].task == &task && (end == begin || size < kChunkRows); ++end) {
        const auto row = rows[end].row;
        for (auto i = task.first_sequence[row]; i < task.first_sequence[row + 1]; ++i) size += std::ssize(task.sequences[i].tokens);
      }
      EvalPart chunk;
      if (task.sequences.empty()) {
        for (auto i = begin; i < end; ++i) add_sample(chunk, task, task.task.examples[rows[i].row].id);
      } else {
        const auto first = task.first_sequence[rows[begin].row], last = task.first_sequence[rows[end - 1].row + 1];
        add_scores(chunk, task, rows.subspan(begin, end - begin), score(model, task, first, last));
      }
      keep(std::move(chunk));
    }
  }

  void add_scores(EvalPart& chunk, const EvalRows& task, std::span<const RowOf> rows, std::span<const eval::SequenceScore> scores) const {
    const auto before = task.first_sequence[rows.front().row];
    for (const auto& [of, row] : rows) {
      const auto own = scores.subspan(task.first_sequence[row] - before, task.first_sequence[row + 1] - task.first_sequence[row]);
      if (task.task.kind == tasks::Kind::kChoice) {
        const auto& question = task.task.questions[row];
        add_question(add_sample(chunk, task, question.id), question, own);
      } else if (task.task.kind == tasks::Kind::kText) {
        add_text(add_sample(chunk, task, task.task.examples[row].id), task.task, row, own);
      } else {
        add_nll(add_sample(chunk, task, task.task.examples[row].id), own.front());
      }
    }
  }

  void add_question(results::Sample& sample, const data::Question& question, std::span<const eval::SequenceScore> scores) const {
    const auto hit = [&](std::int64_t choice) { return choice == question.label ? 1.0 : 0.0; };
    sample.label = question.label;
    if (setup_.rows.scoring == ChoiceScoring::kPaper) {
      std::vector<std::vector<double>> by_token;
      for (const auto& score : scores) {
        by_token.push_back(score.token_log_probs);
        sample.log_probs.push_back(score.mean_log_prob());
      }
      sample.metrics = {{"acc", hit(metrics::best_choice_per_token(by_token))}};
      return;
    }
    for (const auto& score : scores) {
      sample.log_probs.push_back(score.log_prob);
      sample.is_greedy.push_back(score.is_greedy ? 1 : 0);
    }
    sample.metrics = {{"acc", hit(metrics::best_choice(sample.log_probs))},
                      {"acc_norm", hit(metrics::best_choice_normalized(sample.log_probs, question.choices))},
                      {"acc_bytes", hit(metrics::best_choice_per_byte(sample.log_probs, question.choices))}};
  }

  /// The windows' likelihoods as that of the text.
  static void add_text(results::Sample& sample, const tasks::EvalTask& task, std::size_t row, std::span<const eval::SequenceScore> scores) {
    double log_likelihood = 0;
    for (const auto& score : scores) {
      log_likelihood += score.log_prob;
      sample.num_tokens = sample.num_tokens.value_or(0) + std::ssize(score.token_log_probs);
    }
    const auto text = metrics::text_score(task.examples[row].targets[0], log_likelihood);
    sample.log_likelihood = text.log_likelihood;
    sample.num_words = text.num_words;
    sample.num_bytes = text.num_bytes;
    for (const auto& metric : task.metrics) sample.metrics.emplace_back(metric, results::find_text_metric(metric)->value_of(sample));
  }

  static void add_nll(results::Sample& sample, const eval::SequenceScore& score) {
    sample.metrics.emplace_back("nll", -score.mean_log_prob());
    sample.num_tokens = std::ssize(score.token_log_probs);
  }

  void run_answers(const methods::AdaptedModel& model, std::span<const RowOf> rows) {
    const auto chunks = chunks_of(rows);
    std::int64_t cache_rows = 0;
    for (const auto& chunk : chunks) {
      std::vector<forest::Sequence> references;
      for (const auto& [task, row] : chunk) {
        if (task->task.scores_target) references.push_back(task->sequences[row]);
      }
      cache_rows = std::max(cache_rows, eval::cache_rows_for(model.lm, references, requests_of(chunk)));
    }
    eval::PromptCache cache(model.lm, cache_rows);
    for (const auto& chunk : chunks) {
      // Groups of a chooser are other ones; and rows of an earlier chunk would not be routed again, so that shares would tell where a run
      // was stopped.
      if (model.chooser != nullptr || !adapters_.empty()) cache.forget();
      keep(answer_chunk(model, cache, chunk));
    }
  }

  static std::vector<std::span<const RowOf>> chunks_of(std::span<const RowOf> rows) {
    std::vector<std::span<const RowOf>> chunks;
    for (std::size_t first = 0; first < rows.size(); first += kAnswersTogether)
      chunks.push_back(rows.subspan(first, std::min(kAnswersTogether, rows.size() - first)));
    return chunks;
  }

  std::int64_t num_samples(const EvalRows& task) const {
    return task.task.kind == tasks::Kind::kProgram ? task.task.answers.num_samples.value_or(setup_.sampling.num_samples) : 1;
  }

  /// The answers that the rows of a chunk want, row by row.
  std::vector<eval::AnswerRequest> requests_of(std::span<const RowOf> rows) const {
    std::vector<eval::AnswerRequest> requests;
    for (const auto& [task, row] : rows) {
      const auto& answers = task->task.answers;
      schedule::RequestOptions options{.max_new_tokens = answer_length(task->task, setup_.rows),
                                       .stop_ids = task->task.is_bare ? bare_stop_ids_ : stop_ids_};
      options.sampler = {.temperature = answers.temperature.value_or(setup_.sampling.temperature),
                         .top_p = answers.top_p.value_or(setup_.sampling.top_p),
                         .top_k = setup_.sampling.top_k,
                         .seed = setup_.seed};
      for (std::int64_t sample = 0; sample < num_samples(*task); ++sample) {
        options.sampler.stream = format("answer/{}/{}/{}", task->task.name, task->task.examples[row].id, sample);
        requests.push_back({task->prompts[row], options});
      }
    }
    return requests;
  }

  EvalPart answer_chunk(const methods::AdaptedModel& model, eval::PromptCache& cache, std::span<const RowOf> rows) {
    EvalPart chunk;
    for (const auto& [task, row] : rows) add_sample(chunk, *task, task->task.examples[row].id);
    for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {  // references, task by task
      const auto& task = *rows[begin].task;
      for (end = begin; end < rows.size() && rows[end].task == &task; ++end) {
      }
      if (!task.task.scores_target) continue;
      std::vector<forest::Sequence> references;
      std::vector<std::string> names;
      for (auto i = begin; i < end; ++i) {
        references.push_back(task.sequences[rows[i].row]);
        names.push_back(task.names[rows[i].row]);
      }
      const auto leases = model.assign_groups(references, quiet_);
      recorder_.set_tag(task.task.name);
      const auto scores = cache.score(references, leases, {name_of(model), names});
      for (auto i = begin; i < end; ++i) add_nll(chunk.samples[i], scores[i - begin]);
    }
    recorder_.set_tag("");  // what generation chooses is not of one task
    add_answers(chunk, rows, generate(model, cache, rows));
    return chunk;
  }

  /// The texts of all answers, row by row.
  std::vector<std::string> generate(const methods::AdaptedModel& model, eval::PromptCache& cache, std::span<const RowOf> rows) {
    auto requests = requests_of(rows);
    std::vector<const EvalRows*> task_of;
    model::PassNames names{name_of(model), {}};
    std::vector<std::vector<std::int32_t>> prompts;
    for (const auto& [task, row] : rows) {
      for (std::int64_t sample = 0; sample < num_samples(*task); ++sample) {
        task_of.push_back(task);
        names.inputs.push_back(task->names[row]);
        prompts.push_back(task->prompts[row]);
      }
    }
    const auto groups = model.groups_of(prompts, quiet_);
    for (std::size_t i = 0; i < groups.size(); ++i) requests[i].group = groups[i];
    const auto& tokenizer = setup_.base.tokenizer;
    const auto is_complete = [&](std::size_t request, std::span<const std::int32_t> answer) {
      const auto& until = task_of[request]->task.answers.until;
      if (until.empty()) return false;
      const auto text = tokenizer.decode({answer.begin(), answer.end()}, /*skip_special=*/true);
      return std::ranges::any_of(until, [&](const std::string& stop) { return text.find(stop) != std::string::npos; });
    };
    std::vector<std::string> texts;
    const auto answers = cache.answer(requests, names, is_complete);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto text = tokenizer.decode(answers[i], /*skip_special=*/true);
      texts.emplace_back(metrics::cut_at_stops(text, task_of[i]->task.answers.until));
    }
    return texts;
  }

  void add_answers(EvalPart& chunk, std::span<const RowOf> rows, std::vector<std::string> texts) const {
    std::vector<std::string> programs;
    std::size_t next = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& [task, row] = rows[i];
      auto& sample = chunk.samples[i];
      sample.targets = task->task.examples[row].targets;
      if (task->task.kind == tasks::Kind::kProgram) {
        const auto& test = task->task.programs[row];
        sample.prediction = texts[next];
        for (std::int64_t n = 0; n < num_samples(*task); ++n) programs.push_back(test.before + texts[next++] + test.after);
        continue;
      }
      auto prediction = texts[next++];
      prediction.erase(0, prediction.find_first_not_of(" \n"));
      judge_answer(sample, task->task, prediction);
      sample.prediction = std::move(prediction);
    }
    if (programs.empty()) return;
    const auto results = run_programs(setup_.programs, programs);
    next = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto count = num_samples(*rows[i].task);
      judge_programs(chunk.samples[i], std::span(results).subspan(next, static_cast<std::size_t>(count)));
      next += static_cast<std::size_t>(count);
    }
  }

  static void judge_answer(results::Sample& sample, const tasks::EvalTask& task, const std::string& prediction) {
    const auto wants = [&](const char* metric) { return std::ranges::find(task.metrics, metric) != task.metrics.end(); };
    if (wants("rouge_l")) sample.metrics.emplace_back("rouge_l", metrics::best_rouge_l(sample.targets, prediction));
    if (!wants("exact_match")) return;
    const auto end = prediction.find_last_not_of(" \n") + 1;
    const metrics::ExactMatch match(task.exact_match);
    sample.metrics.emplace_back("exact_match", match.matches_any(std::string_view(prediction).substr(0, end), sample.targets) ? 1.0 : 0.0);
  }

  static void judge_programs(results::Sample& sample, std::span<const ProgramResult> results) {
    const auto correct = std::ranges::count_if(results, &ProgramResult::has_passed);
    for (const std::int64_t k : {1, 10, 100}) {
      if (k <= std::ssize(results)) sample.metrics.emplace_back(format("pass@{}", k), metrics::pass_at_k(std::ssize(results), correct, k));
    }
    sample.outcome = results.front().reason;
  }

  const SectionSetup& setup_;
  const EvalMethod& method_;
  const std::string& section_;
  EvalJournal& journal_;
  Progress& progress_;
  std::vector<std::int32_t> stop_ids_, bare_stop_ids_;  // of the base's format, and of bare text
  NoProgress quiet_;                                    // for passes that only look at prompts
  routing::RoutingRecorder recorder_;
  std::vector<std::string> adapters_;
};

}  // namespace

void run_section(const SectionSetup& setup, const EvalMethod& method, const std::string& section, const std::vector<EvalRows>& tasks,
                 EvalJournal& journal, Progress& progress) {
  std::vector<std::pair<methods::AdapterUse, std::span<const EvalRows>>> uses;
  const auto found = setup.libraries.find(use_of(method, setup.given).source.library);
  const auto* library = found == setup.libraries.end() ? nullptr : &found->second;
  if (method.is_oracle()) {
    for (const auto& task : tasks) {
      if (auto use = use_for(method, setup.given, library, task.task.name)) uses.emplace_back(std::move(*use), std::span(&task, 1));
    }
  } else {
    uses.emplace_back(*use_for(method, setup.given, library, ""), std::span(tasks));
  }
  std::size_t total = 0;
  for (const auto& [use, some] : uses) {
    for (const auto& task : some) total += task.task.num_rows();
  }
  progress.begin(format("eval {} {}", method.name, section), static_cast<std::int64_t>(total), "rows");
  progress.resume(std::ssize(journal.part().samples));
  TaskRun run(setup, method, section, journal, progress);
  for (const auto& [use, some] : uses) run.run(use, some);
  progress.end();
}

}  // namespace quiver::recipes
