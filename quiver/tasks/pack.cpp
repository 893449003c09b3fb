#include "quiver/tasks/pack.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/tasks/paper_prompts.h"
#include "quiver/tasks/rows.h"

namespace quiver::tasks {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A row of a JSON lines file, and where it stands.
struct Row {
  json values;
  std::string where;
};

std::vector<Row> read_rows(const fs::path& path) {
  io::JsonLinesReader reader(path);
  std::vector<Row> rows;
  while (auto row = reader.next()) {
    const auto id = io::find_string(*row, "id", reader.where());
    rows.push_back({std::move(*row), id ? format("{} (row '{}')", reader.where(), *id) : reader.where()});
  }
  if (rows.empty()) fail(ErrorKind::kBadFormat, "'{}' holds no rows", path.string());
  return rows;
}

fs::path file_of(const fs::path& folder, const std::string& stem) {
  const auto packed = folder / (stem + ".jsonl.zst");
  return fs::exists(packed) ? packed : folder / (stem + ".jsonl");
}

EvalTask load_examples(const Group& group, const fs::path& pack, const std::string& name, const RowChoice& rows) {
  EvalTask task{.name = name, .group = group.name, .section = group.section, .kind = group.kind, .metrics = {"nll", "rouge_l"}};
  auto loaded = data::load_task(pack / group.folder, name);
  if (loaded.test.empty()) fail(ErrorKind::kUsage, "task '{}' has no test rows in '{}'", name, (pack / group.folder).string());
  if (has_labels(loaded.test)) task.metrics.push_back("exact_match");
  task.num_fewshot = checked_shots(name, rows.num_fewshot.value_or(0), std::ssize(loaded.train), "training rows");
  std::string before;
  if (task.num_fewshot > 0) {
    for (const auto& shot : data::sample(loaded.train, task.num_fewshot, rows.seed, name + "/few-shot")) {
      if (!shot.messages.empty()) fail(ErrorKind::kUsage, "{}: a conversation cannot be a few-shot example: ask for none", shot.where);
      before += solved(shot.source, shot.targets[0]) + kBetween;
    }
  }
  task.num_available = std::ssize(loaded.test);
  task.examples = data::sample(std::move(loaded.test), rows.limit, rows.seed, name);
  for (auto& example : task.examples) example.source.insert(0, before);
  task.config = {{"dataset_path", group.folder + "/" + name},
                 {"test_split", "test"},
                 {"output_type", "generate_until"},
                 {"doc_to_text", "{{source}}"},
                 {"doc_to_target", "{{targets}}"}};
  return task;
}

EvalTask load_choices(const Group& group, const fs::path& pack, const std::string& name, const RowChoice& rows) {
  EvalTask task{
      .name = name, .group = group.name, .section = group.section, .kind = group.kind, .metrics = {"acc", "acc_norm", "acc_bytes"}};
  task.num_fewshot = rows.num_fewshot.value_or(0);
  set_questions(task, data::load_questions(pack / group.folder, name), {}, rows);
  task.config = {{"dataset_path", group.folder + "/" + name},
                 {"output_type", "multiple_choice"},
                 {"doc_to_text", "{{context}}"},
                 {"doc_to_choice", "{{choices}}"},
                 {"doc_to_target", "{{label}}"},
                 {"target_delimiter", " "}};
  return task;
}

/// What stands before the questions of a task of Big-Bench Hard: its description and demonstrations.
std::string bbh_beginning(EvalTask& task, const json& row, const std::string& where, const RowChoice& rows) {
  const auto& shots = io::require_array(row, "demonstrations", where);
  task.num_fewshot = checked_shots(task.name, rows.num_fewshot.value_or(3), std::ssize(shots), "demonstrations");
  auto before = io::require_string(row, "description", where) + kBetween;
  for (std::int64_t i = 0; i < task.num_fewshot; ++i) {
    const auto& shot = shots[static_cast<std::size_t>(i)];
    before += "Q: " + io::require_string(shot, "input", where) + "\nA: " + io::require_string(shot, "target", where) + kBetween;
  }
  return before;
}

/// The paper's form: the first rows of a task are examples, and the rest is asked.
void set_paper_bbh(EvalTask& task, const RowChoice& rows) {
  const auto most = std::max<std::int64_t>(std::ssize(task.examples) - 1, 0);
  task.num_fewshot = checked_shots(task.name, rows.num_fewshot.value_or(kPaperBbhShots), most, "rows beside one that is asked");
  std::string before;
  for (const auto& shot : std::span(task.examples).first(static_cast<std::size_t>(task.num_fewshot)))
    before += solved(paper_bbh_prompt(shot.source), shot.targets[0]) + kBetween;
  task.examples.erase(task.examples.begin(), task.examples.begin() + task.num_fewshot);
  for (auto& example : task.examples) example.source = before + paper_bbh_prompt(example.source);
  task.answers = paper_bbh_answers();
  task.config["description"] = before;
  mark_paper(task, paper_bbh_prompt("{{input}}"));
}

/// The benchmark's form: its description and demonstrations, then the question.
void set_benchmark_bbh(EvalTask& task, const std::vector<Row>& shots, const std::string& origin, const std::string& name,
                       const RowChoice& rows) {
  std::string before;
  for (const auto& [row, where] : shots) {
    if (io::require_string(row, "task", where) == name) before = bbh_beginning(task, row, where, rows);
  }
  if (before.empty()) fail(ErrorKind::kBadFormat, "'{}' has no row of task '{}'", origin, name);
  for (auto& example : task.examples) example.source = before + "Q: " + example.source + "\nA:";
  task.answers = {.max_new_tokens = 128, .until = {"\n\n", "Q:"}, .temperature = 0};
  task.config["description"] = before;
  task.config["doc_to_text"] = "Q: {{input}}\nA:";
}

/// Big-Bench Hard without reasoning (Suzgun et al. 2022): the benchmark's prompt, exact match of what comes before a blank line or "Q:".
std::vector<EvalTask> load_bbh(const Group& group, const fs::path& pack, const std::vector<PackTask>& chosen) {
  const auto folder = pack / group.folder;
  const bool wants_shots = std::ranges::any_of(chosen, [](const PackTask& task) { return task.rows.prompts == Prompts::kBenchmark; });
  const auto shots = wants_shots ? read_rows(file_of(folder, "bbh_fewshot")) : std::vector<Row>();
  const auto questions = read_rows(file_of(folder, group.file));
  std::vector<EvalTask> tasks;
  for (const auto& [name, choice] : chosen) {
    EvalTask task{.name = group.name + "/" + name,
                  .group = group.name,
                  .section = group.section,
                  .kind = group.kind,
                  .scores_target = false,
                  .metrics = {"exact_match"}};
    for (const auto& [row, where] : questions) {
      if (io::require_string(row, "task", where) != name) continue;
      task.examples.push_back({.id = io::require_string(row, "id", where),
                               .source = io::require_string(row, "input", where),
                               .targets = {io::require_string(row, "target", where)},
                               .where = where});
    }
    task.config = {{"dataset_path", group.folder + "/bbh"},
                   {"dataset_name", name},
                   {"output_type", "generate_until"},
                   {"doc_to_target", "{{target}}"}};
    if (choice.prompts == Prompts::kPaper) {
      set_paper_bbh(task, choice);
    } else {
      set_benchmark_bbh(task, shots, file_of(folder, "bbh_fewshot").string(), name, choice);
    }
    task.num_available = std::ssize(task.examples);
    task.examples = data::sample(std::move(task.examples), choice.limit, choice.seed, task.name);
    tasks.push_back(std::move(task));
  }
  return tasks;
}

/// A task of programs without its rows.
EvalTask program_task(const Group& group, const std::string& name) {
  return {.name = name,
          .group = group.name,
          .section = group.section,
          .kind = group.kind,
          .is_bare = true,
          .scores_target = false,
          .metrics = {"pass@1"}};
}

data::Example program_example(const json& row, const std::string& where) {
  return {.id = io::require_string(row, "id", where),
          .source = io::require_string(row, "prompt", where),
          .targets = {io::require_string(row, "canonical_solution", where)},
          .where = where};
}

/// HumanEval (Chen et al. 2021): the answer continues a function's head; `check` of the row's tests judges it.
EvalTask load_humaneval(const Group& group, const fs::path& pack, const std::string& name, const RowChoice& rows) {
  auto task = program_task(group, name);
  task.num_fewshot = checked_shots(name, rows.num_fewshot.value_or(0), 0, "solved examples");
  task.answers = {.max_new_tokens = 300, .until = {"\nclass", "\ndef", "\n#", "\nif", "\nprint"}};
  const bool is_paper = rows.prompts == Prompts::kPaper;
  if (is_paper) task.answers = paper_program_answers();
  std::vector<data::Example> examples;
  std::map<std::string, ProgramTest> tests;
  for (const auto& [row, where] : read_rows(file_of(pack / group.folder, group.file))) {
    auto example = program_example(row, where);
    if (is_paper) example.source = paper_humaneval_prompt(example.source);
    tests[example.id] = {
        example.source, "\n" + io::require_string(row, "test", where) + "\ncheck(" + io::require_string(row, "entry_point", where) + ")\n"};
    examples.push_back(std::move(example));
  }
  task.num_available = std::ssize(examples);
  task.examples = data::sample(std::move(examples), rows.limit, rows.seed, name);
  for (const auto& example : task.examples) task.programs.push_back(tests.at(example.id));
  task.config = {{"dataset_path", group.folder + "/humaneval"},
                 {"output_type", "generate_until"},
                 {"doc_to_text", "{{prompt}}"},
                 {"doc_to_target", "{{test}}\ncheck({{entry_point}})"}};
  if (is_paper) mark_paper(task, "{{prompt.lstrip()}}");
  return task;
}

std::vector<std::string> mbpp_tests(const json& row, const std::string& where) {
  std::vector<std::string> tests;
  for (const auto& test : io::require_array(row, "tests", where)) {
    if (!test.is_string()) fail(ErrorKind::kBadFormat, "{}: 'tests' holds something other than strings", where);
    tests.push_back(test.get<std::string>());
  }
  return tests;
}

/// The paper's form of a row: the answer goes on with a function whose head is given.
void set_paper_mbpp(data::Example& example, ProgramTest& test, const json& row, const std::string& where) {
  const auto prompt = paper_mbpp_prompt(io::require_string(row, "text", where), mbpp_tests(row, where), example.targets[0],
                                        io::require_string(row, "entry_point", where));
  if (!prompt) return;
  example.source = *prompt;
  test.before = *prompt;
}

/// MBPP (Austin et al. 2021): the answer is a whole function, which assertions judge.
EvalTask load_mbpp(const Group& group, const fs::path& pack, const std::string& name, const RowChoice& rows) {
  auto task = program_task(group, name);
  const bool is_paper = rows.prompts == Prompts::kPaper;
  task.answers = is_paper ? paper_program_answers() : AnswerSettings{.max_new_tokens = 300, .until = {"[DONE]"}};
  constexpr const char* kShots[] = {"MBPP/2", "MBPP/3", "MBPP/4"};
  task.num_fewshot = checked_shots(name, rows.num_fewshot.value_or(is_paper ? 0 : 3), is_paper ? 0 : std::ssize(kShots),
                                   is_paper ? "solved examples in the paper's form" : "solved examples");
  std::map<std::string, std::string> shots;
  std::vector<data::Example> examples;
  std::map<std::string, ProgramTest> tests;
  for (const auto& [row, where] : read_rows(file_of(pack / group.folder, group.file))) {
    auto example = program_example(row, where);
    if (std::ranges::find(kShots, example.id) != std::end(kShots))
      shots[example.id] = example.source + example.targets[0] + "\n[DONE]" + kBetween;
    if (io::require_string(row, "split", where) != "test") continue;
    auto after = "\n" + io::require_string(row, "setup", where) + "\n";
    for (const auto& test : mbpp_tests(row, where)) after += test + "\n";
    auto& program = tests[example.id] = {"", after};
    if (is_paper) set_paper_mbpp(example, program, row, where);
    examples.push_back(std::move(example));
  }
  std::string before;
  for (const auto* shot : std::span(kShots).first(static_cast<std::size_t>(task.num_fewshot))) before += shots[shot];
  task.num_available = std::ssize(examples);
  task.examples = data::sample(std::move(examples), rows.limit, rows.seed, name);
  for (auto& example : task.examples) {
    task.programs.push_back(tests.at(example.id));
    example.source.insert(0, before);
  }
  task.config = {{"dataset_path", group.folder + "/mbpp"},
                 {"test_split", "test"},
                 {"output_type", "generate_until"},
                 {"doc_to_text", "{{prompt}}"},
                 {"doc_to_target", "{{setup}}\n{{tests}}"}};
  if (is_paper) mark_paper(task, "{{head}}\n\t\"\"\"\n\t{{text}}\n\t{{tests | join('\n\t')}}\n\t\"\"\"\n");
  return task;
}

}  // namespace

const std::vector<Group>& groups() {
  static const std::vector<Group> all = {{"upstream", "train", "train", Kind::kAnswer},
                                         {"sni", "heldout_sni", "instruction", Kind::kAnswer},
                                         {"mc", "heldout_mc", "choice", Kind::kChoice},
                                         {"bbh", "heldout_gen", "answer", Kind::kAnswer, "bbh"},
                                         {"humaneval", "heldout_gen", "program", Kind::kProgram, "humaneval"},
                                         {"mbpp", "heldout_gen", "program", Kind::kProgram, "mbpp"}};
  return all;
}

std::vector<std::string> task_names(const Group& group, const fs::path& pack) {
  const auto folder = pack / group.folder;
  if (group.file.empty()) return fs::is_directory(folder) ? data::list_tasks(folder) : std::vector<std::string>();
  if (!fs::exists(file_of(folder, group.file))) return {};
  if (group.name != "bbh") return {group.name};
  std::set<std::string> names;
  io::JsonLinesReader rows(file_of(folder, group.file));
  while (const auto row = rows.next()) names.insert(io::require_string(*row, "task", rows.where()));
  return {names.begin(), names.end()};
}

std::vector<EvalTask> load_pack_tasks(const Group& group, const fs::path& pack, const std::vector<PackTask>& tasks) {
  if (group.name == "bbh") return load_bbh(group, pack, tasks);
  const auto load = group.name == "humaneval" ? load_humaneval
                    : group.name == "mbpp"    ? load_mbpp
                                              : (group.kind == Kind::kChoice ? load_choices : load_examples);
  std::vector<EvalTask> loaded;
  for (const auto& [name, rows] : tasks) loaded.push_back(load(group, pack, name, rows));
  return loaded;
}

bool has_labels(const std::vector<data::Example>& examples) {
  std::set<std::string> references;
  for (const auto& example : examples) references.insert(example.targets[0]);
  return examples.size() >= 20 && 10 * references.size() <= examples.size();
}

}  // namespace quiver::tasks
