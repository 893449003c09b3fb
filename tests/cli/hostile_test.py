"""A user who does the wrong thing: a row of the table is a command, its exit code, words of its message, and what must still be there afterwards.

A fault that was found becomes a row. {tmp} is a new folder, {base} a tiny model, {library} a library of two adapters, {data} its tasks.
"""

import json
import os
import shutil
import unittest

from test_support import ROOT, TINY, Case, main, make_tasks, run, write_jsonl

BASE = ["--base", str(TINY), "--dtype", "float32"]
SCORE = ["score", *BASE, "--input", "{tmp}/requests.jsonl"]
GENERATE = ["generate", *BASE, "--prompt", "a", "--max-new-tokens", "2"]
ADAPT = ["adapt", *BASE, "--data", "{data}", "--task", "alpha", "--method", "fresh", "--epochs", "1"]
EVAL = ["eval", *BASE, "--data", "{tmp}", "--tasks", "alpha", "--max-new-tokens", "2"]
SETS = ["eval", *BASE, "--data", "{tmp}/sets"]
FULL = ["train", *BASE, "--data", "{data}", "--tasks", "alpha", "--epochs", "1"]
TRAIN = [*FULL, "--library", "{tmp}/new"]
BUILD = ["build", *BASE, "--data", "{data}", "--library", "{tmp}/new", "--recipe"]
LEARN = ["adapt", *BASE, "--data", "{data}", "--task", "alpha", "--library", "{library}", "--output", "{tmp}/new", "--method"]
ROUTE = ["route", *BASE, "--library", "{library}", "--prompt", "a"]
EXPORT = ["export", *BASE, "--adapter", "{library}/adapters/alpha"]
MERGE = ["merge", *BASE, "--library", "{library}", "--output", "{tmp}/new"]

# Name, command, exit code, words of the message.
ROWS = [
    # What is not Quiver's is never deleted or replaced.
    ("adapt takes no folder for its own", [*ADAPT, "--output", "{tmp}/mine"], 2, ["mine.parts", "was not made for them"]),
    ("eval takes no folder of files", [*EVAL, "--output", "{tmp}/keep"], 2, ["/keep' holds files, and no run.json"]),
    ("eval takes no folder for its own", [*EVAL, "--output", "{tmp}/mine.json", "--work", "{tmp}/mine.parts"], 2, ["mine.parts", "was not made for them"]),
    ("results in no folder", [*EVAL, "--output", "{tmp}/none/new/"], 3, ["there is no folder", "create it first"]),
    ("a folder that is a file", [*EVAL, "--output", "{tmp}/requests.jsonl/"], 2, ["requests.jsonl' is a file; a folder was expected"]),
    ("samples of a document", [*EVAL, "--output", "{tmp}/new.json", "--log-samples"], 2, ["--log-samples", "a folder"]),
    ("train --full takes no folder for its own", [*FULL, "--full", "{tmp}/mine"], 2, ["mine.parts", "was not made for them"]),
    ("train --full replaces no library", [*FULL, "--full", "{library}", "--force"], 2, ["is no model that was made by --full or an export"]),
    ("train --full replaces no folder", [*FULL, "--full", "{tmp}/keep", "--force"], 2, ["is no model that was made by --full or an export"]),
    ("adapt replaces no folder with more in it", [*ADAPT, "--output", "{tmp}/adapter", "--force"], 2, ["holds 'notes.txt'"]),
    ("merge replaces no library", ["merge", *BASE, "--library", "{library}", "--output", "{library}", "--force"], 2, ["is no adapter folder"]),
    ("export replaces no folder", [*EXPORT, "--format", "hf", "--output", "{tmp}/keep", "--force"], 2, ["is no model that was made by"]),
    ("export replaces no library", [*EXPORT, "--format", "hf", "--output", "{library}", "--force"], 2, ["is no model that was made by"]),
    ("export replaces no adapter with more in it", [*EXPORT, "--output", "{tmp}/adapter", "--force"], 2, ["holds 'notes.txt'"]),
    ("export replaces no text", [*EXPORT, "--format", "gguf", "--output", "{tmp}/keep/thesis.tex", "--force"], 2, ["is no GGUF file"]),
    ("export writes into no library", [*EXPORT, "--output", "{library}/adapters/new"], 2, ["is a place for adapters of library"]),
    # What can be told at once is told at once.
    ("an export into no folder", [*EXPORT, "--format", "gguf-lora", "--output", "{tmp}/none/x.gguf"], 3, ["there is no folder"]),
    ("an export of nothing", ["export", *BASE, "--output", "{tmp}/new"], 2, ["--format peft is of an adapter: give --adapter or --library"]),
    ("an export of a router", ["export", *BASE, "--library", "{library}", "--method", "arrow", "--output", "{tmp}/new"], 2, ["it does not make one adapter"]),
    ("a form that there is not", [*EXPORT, "--format", "onnx", "--output", "{tmp}/new"], 2, ["--format 'onnx' is not one of peft, gguf-lora, hf, gguf"]),
    ("a type that safetensors lack", [*EXPORT, "--format", "hf", "--type", "q8_0", "--output", "{tmp}/new"], 2, ["safetensors files hold no Q8_0"]),
    ("a name that the cache lacks", ["score", "--base", "nobody/nothing", "--input", "{tmp}/requests.jsonl"], 3,
     ["model 'nobody/nothing' is neither a file or folder nor in the Hugging Face cache", "HF_HOME"]),
    ("pickled weights", ["score", "--base", "{tmp}/pickled", "--input", "{tmp}/requests.jsonl"], 3,
     ["pytorch_model.bin, a Python pickle", "python -c", "save_pretrained"]),
    ("a base beside random weights", ["bench", "train", *BASE, "--spec", "{tmp}/pickled/config.json"], 2, ["--base", "--spec", "exclude each other"]),
    ("a result in no folder", [*SCORE, "--output", "{tmp}/none/x"], 3, ["there is no folder"]),
    ("train keeps files that are not Quiver's", ["train", *BASE, "--data", "{data}", "--library", "{tmp}/noted", "--rank", "2", "--force"], 2,
     ["noted/adapters/alpha' holds 'notes.txt'", "neither replaced nor removed"]),
    ("remove keeps them", ["library", "remove", "--library", "{tmp}/noted", "alpha"], 2, ["holds 'notes.txt'"]),
    ("add keeps them", ["library", "add", *BASE, "--library", "{tmp}/noted", "--force", "--name", "alpha", "{library}/adapters/beta"], 2, ["holds 'notes.txt'"]),
    ("train keeps a folder that no catalogue names", ["train", *BASE, "--data", "{data}", "--tasks", "beta", "--epochs", "1", "--library", "{tmp}/bare"], 2,
     ["bare/adapters/beta' is there, but not in the catalogue"]),
    ("an adapter that is there", ["library", "add", *BASE, "--library", "{library}", "{library}/adapters/alpha"], 2, ["already: choose another name, or --force replaces it"]),
    ("a skill's name that another has", ["build", *BASE, "--library", "{tmp}/named", "--data", "{data}", "--recipe", "poly", "--epochs", "1"], 3,
     ["holds an adapter 'poly-0' of kind imported", "--force replaces it"]),
    ("a task's mixture of no skills", [*GENERATE, "--library", "{library}", "--method", "task=alpha"], 2, ["mixes the skills of --kind poly or --kind mhr"]),
    ("merge writes into no library", ["merge", *BASE, "--library", "{library}", "--output", "{library}/adapters/alpha", "--force"], 2,
     ["is a place for adapters of library '{tmp}/library'"]),
    ("adapt writes into no library", [*ADAPT, "--output", "{library}/adapters/new/"], 2, ["is a place for adapters of library"]),
    ("results over a catalogue", [*EVAL, "--output", "{library}/quiver.json", "--force"], 2, ["is not results of 'quiver eval'"]),
    ("scores over a text", [*SCORE, "--output", "{tmp}/keep/thesis.tex", "--force"], 2, ["is not a file of JSON lines"]),
    ("a page of no results", ["report", "{library}/quiver.json", "--output", "{tmp}/new"], 3, ["{tmp}/library/quiver.json is not a Quiver results file"]),
    ("a talk without a template", ["chat", *BASE], 2, ["has no chat template: it continues text"]),
    ("a base that is a pipe", ["generate", "--base", "{tmp}/pipe", "--prompt", "a"], 4, ["'{tmp}/pipe': it is a pipe"]),
    ("a page over results", ["route", *BASE, "--library", "{library}", "--prompt", "a", "--html", "{library}/quiver.json", "--force"], 2, ["is not an HTML page"]),
    ("a result that exists", [*SCORE, "--output", "{tmp}/requests.jsonl"], 2, ["exists already", "--force"]),
    ("a result with a final slash", [*SCORE, "--output", "{tmp}/new/"], 2, ["names a folder"]),
    ("K above the number of tasks", ["build", *BASE, "--library", "{tmp}/new", "--data", "{data}", "--num-clusters", "9"], 2, ["--num-clusters 9 for 2 tasks"]),
    ("a bad line in the last task", ["train", *BASE, "--library", "{tmp}/new", "--data", "{tmp}/bad"], 3, ["omega.jsonl:2"]),
    # An option that nothing reads is refused.
    ("a fallback that arrow lacks", ["route", *BASE, "--library", "{library}", "--prompt", "a", "--method", "arrow", "--fallback", "nonsense"], 2, ["--fallback", "arrow-mean"]),
    ("a method of no library", [*GENERATE, "--method", "arrow"], 2, ["--method", "--library"]),
    ("a kind of one adapter", [*GENERATE, "--adapter", "{library}/adapters/alpha", "--kind", "cluster"], 2, ["--kind", "--library"]),
    ("an adapter twice", [*GENERATE, "--library", "{library}", "--adapters", "alpha,alpha"], 2, ["--adapters names 'alpha' twice"]),
    ("an adapter used and subtracted", [*GENERATE, "--library", "{library}", "--adapters", "alpha,beta", "--general", "beta"], 2, ["'beta'", "--general"]),
    ("adapters and a kind", [*GENERATE, "--library", "{library}", "--adapters", "alpha", "--kind", "private"], 2, ["--kind"]),
    ("gates of another method", [*GENERATE, "--library", "{library}", "--gate-steps", "3"], 2, ["--gate-steps", "phatgoose"]),
    ("an option of no evaluated method", [*EVAL, "--library", "{library}", "--methods", "base,private-arrow", "--shortlist", "3"], 2, ["--shortlist", "lag"]),
    ("an adapter of no folder", [*EVAL, "--methods", "base,adapter"], 2, ["adapter@FOLDER"]),
    ("a library that is not there, of a method", [*EVAL, "--methods", "base,private-arrow@{tmp}/none"], 3, ["none"]),
    ("a base over a library", [*EVAL, "--methods", "base@{library}"], 2, ["'base' is over no library"]),
    ("a method named twice", [*EVAL, "--methods", "base,base", "--output", "{tmp}/mine"], 2, ["'base' is named twice"]),
    ("a method of no evaluated adapters", [*EVAL, "--library", "{library}", "--methods", "base,private-arrow", "--method", "lag"], 2, ["'given'"]),
    ("a LoRA of the whole model", [*FULL, "--full", "{tmp}/new", "--rank", "8"], 2, ["--rank", "not by --full"]),
    ("the targets of the whole model", [*FULL, "--full", "{tmp}/new", "--target-modules", "q_proj"], 2, ["--target-modules", "not by --full"]),
    ("LoRA+ of the whole model", [*FULL, "--full", "{tmp}/new", "--lora-plus", "4"], 2, ["--lora-plus", "not by --full"]),
    ("dropout of the whole model", [*FULL, "--full", "{tmp}/new", "--dropout", "0.1"], 2, ["--dropout", "not by --full"]),
    ("a shared adapter of the whole model", [*FULL, "--full", "{tmp}/new", "--shared", "all"], 2, ["--shared", "not by --full"]),
    ("a profile of the whole model", [*FULL, "--full", "{tmp}/new", "--profile"], 2, ["--profile", "not by --full"]),
    ("one adapter together", [*TRAIN, "--shared", "all", "--together", "2"], 2, ["--together", "not by --shared"]),
    ("a paper that sets nothing", [*TRAIN, "--paper", "--batch-size", "4", "--lr", "1e-3"], 2, ["--paper sets what"]),
    ("messages of bare text", [*TRAIN, "--no-chat", "--train-on", "all"], 2, ["--train-on", "--no-chat"]),
    ("a system of bare text", [*GENERATE, "--no-chat", "--system", "x"], 2, ["--system", "--no-chat"]),
    ("clusters of private adapters", [*BUILD, "private", "--num-clusters", "2"], 2, ["--num-clusters is read by --recipe mbc, hidden", "not by --recipe private"]),
    ("sparsity of words", [*BUILD, "tf-idf", "--sparsity", "0.5"], 2, ["--sparsity is read by --recipe mbc,"]),
    ("restarts of chance", [*BUILD, "random-tasks", "--restarts", "2"], 2, ["--restarts"]),
    ("epochs of no clusters", [*BUILD, "random-examples", "--cluster-epochs", "2"], 2, ["--cluster-epochs"]),
    ("epochs of nothing shared", [*BUILD, "mbc", "--shared-epochs", "2"], 2, ["--shared-epochs is read by --recipe shared"]),
    ("epochs beside a budget", [*BUILD, "mbc", "--budget-epochs", "5", "--epochs", "2"], 2, ["--epochs is read by", "not by --budget-epochs"]),
    ("cluster epochs beside a budget", [*BUILD, "mbc", "--budget-epochs", "5", "--cluster-epochs", "2"], 2, ["--cluster-epochs", "--budget-epochs"]),
    ("two numbers of epochs", [*BUILD, "shared", "--shared-epochs", "5", "--epochs", "2"], 2, ["--epochs is read by", "not by --shared-epochs"]),
    ("a budget of one", [*BUILD, "mbc", "--budget-epochs", "1"], 2, ["--budget-epochs: must be at least 2, not 1"]),
    ("samples of no grouping", [*BUILD, "private", "--group-samples", "3"], 2, ["--group-samples"]),
    ("skills of no mixture", [*BUILD, "private", "--num-skills", "3"], 2, ["--num-skills", "poly, mhr"]),
    ("heads of poly", [*BUILD, "poly", "--heads", "4"], 2, ["--heads is read by --recipe mhr, not by --recipe poly"]),
    ("tasks beside groups", [*BUILD, "clusters", "--tasks", "alpha"], 2, ["--tasks", "--recipe clusters"]),
    ("skills together", [*BUILD, "poly", "--together", "2"], 2, ["--together", "not by --recipe poly"]),
    ("clusters of DoRAs", [*BUILD, "mbc", "--dora"], 3, ["--dora", "--recipe mbc clusters or mixes"]),
    ("K above the number of tasks of hidden", [*BUILD, "hidden", "--num-clusters", "9"], 2, ["--num-clusters 9 for 2 tasks"]),
    ("evaluations of a mean", [*LEARN, "mean", "--evaluations", "3"], 2, ["--evaluations is read by lorahub, not by --method mean"]),
    ("a rank of a mean", [*LEARN, "mean", "--rank", "3"], 2, ["--rank", "not by --method mean"]),
    ("a rate of a search", [*LEARN, "lorahub", "--lr", "1e-3"], 2, ["--lr is read by trainings by gradient, not by --method lorahub"]),
    ("validation of a search", [*LEARN, "lorahub", "--validate", "3"], 2, ["--validate", "not by --method lorahub"]),
    ("answers of a search by loss", [*LEARN, "lorahub", "--objective", "loss", "--max-new-tokens", "3"], 2, ["--max-new-tokens", "--objective rouge"]),
    ("LoRA+ of frozen skills", [*LEARN, "polyz", "--lora-plus", "4"], 2, ["--lora-plus", "not by --method polyz"]),
    ("weights of a mean", [*LEARN, "mean", "--granularity", "model"], 2, ["--granularity", "not by --method mean"]),
    ("heads of a mean", [*LEARN, "mean", "--heads", "2"], 2, ["--heads is read by mhr, mhrz, not by --method mean"]),
    ("logits of a mean", [*LEARN, "mean", "--logit-lr", "0.1"], 2, ["--logit-lr"]),
    ("a library of a new LoRA", [*LEARN, "fresh"], 2, ["--library", "not by --method fresh"]),
    ("nearness of all", [*LEARN, "mean", "--retrieve-by", "random"], 2, ["--retrieve-by requires --retrieve"]),
    ("nearness of another kind", [*LEARN, "mean", "--retrieve", "1", "--retrieve-by", "looks"], 2, ["--retrieve-by", "looks"]),
    ("tasks of nearness by weights", [*LEARN, "mean", "--retrieve", "1", "--task-data", "{data}"], 2, ["--task-data", "fisher"]),
    ("one task together", [*LEARN, "mean", "--together", "2"], 2, ["--together"]),
    ("named adapters of a kind", [*LEARN, "mean", "--adapters", "alpha", "--kind", "private"], 2, ["--kind"]),
    ("named adapters of no library", ["cluster", "{library}/adapters/alpha", "--adapters", "beta"], 2, ["--adapters requires --library"]),
    ("a clustering of one adapter twice", ["cluster", "--library", "{library}", "--adapters", "alpha,alpha"], 2, ["--adapters names 'alpha' twice"]),
    ("a density of a mean", [*MERGE, "--density", "0.5"], 2, ["--density is read by ties", "not by mean"]),
    ("an adapter beside a library", [*MERGE, "--adapter", "{tmp}/adapter"], 2, ["--adapter"]),
    ("adapters of an oracle", [*MERGE, "--method", "oracle=alpha", "--adapters", "alpha,beta"], 2, ["--adapters", "not by oracle=alpha"]),
    ("a general adapter of an oracle", [*GENERATE, "--library", "{library}", "--method", "oracle=alpha", "--general", "beta"], 2, ["--general", "not by oracle=alpha"]),
    ("a rank of an oracle", [*MERGE, "--method", "oracle=alpha", "--merge-rank", "2"], 2, ["--merge-rank", "not by oracle=alpha"]),
    ("a calibration of nothing", [*ROUTE, "--method", "spectral", "--calibration-prompts", "8"], 2, ["--calibration-prompts requires --calibrated"]),
    ("an option in a name that the method lacks", [*ROUTE, "--method", "arrow(shortlist=3)"], 2, ["method 'arrow' has no option 'shortlist'", "quiver methods arrow"]),
    ("an option in a name that is out of range", [*ROUTE, "--method", "lag(shortlist=0)"], 2, ["--shortlist: must be at least 1, not 0"]),
    ("a name that does not end", [*ROUTE, "--method", "lag(shortlist=3"], 2, ["does not end with the bracket"]),
    ("two kinds", [*ROUTE, "--kind", "private", "--method", "cluster/arrow"], 2, ["--kind private", "cluster/arrow"]),
    ("a temperature by both names", [*ROUTE, "--method", "arrow", "--temperature", "1", "--routing-temperature", "1"], 2, ["--routing-temperature excludes --temperature"]),
    ("a temperature of nothing", [*ROUTE, "--method", "arrow", "--temperature", "0"], 2, ["--routing-temperature: must be above 0, not 0"]),
    ("weights in another order than the adapters", [*MERGE, "--method", "cat", "--adapters", "beta,alpha", "--weights", "1,0"], 2, ["--weights without names", "beta=1,alpha=0"]),
    ("a weight of no adapter", [*MERGE, "--method", "cat", "--weights", "alpha=1,beta=0,gama=1"], 2, ["gama"]),
    ("a method to describe that is none", ["methods", "arow"], 2, ["did you mean 'arrow'?"]),
    ("a tie of nothing", [*ROUTE, "--method", "arrow", "--tie-by", "sum"], 2, ["--tie-by requires --tie"]),
    ("one adapter and a library", [*GENERATE, "--library", "{library}", "--adapter", "{tmp}/adapter"], 2, ["exclude each other"]),
    ("routes by another method's options", ["analyse", "routing", *BASE, "--library", "{library}", "--method", "arrow", "--shortlist", "3"], 2, ["--shortlist", "lag"]),
    ("routes of a merge", ["route", "--base", "{tmp}/none", "--library", "{library}", "--prompt", "a", "--method", "ties"], 2, ["method 'ties' chooses nothing"]),
    ("routing of a merge", ["analyse", "routing", "--base", "{tmp}/none", "--library", "{library}", "--method", "mean"], 2, ["method 'mean' chooses nothing"]),
    ("a merge by a router", ["merge", "--base", "{tmp}/none", "--library", "{library}", "--output", "{tmp}/new", "--method", "arrow"], 2, ["does not make one adapter"]),
    ("norms by a method", ["analyse", "norms", *BASE, "--library", "{library}", "--method", "arrow"], 2, ["'--method'"]),
    ("pairs together", ["analyse", "transfer", *BASE, "--library", "{library}", "--work", "{tmp}/new", "--together", "2"], 2, ["--together"]),
    ("a limit of no task", [*EVAL, "--limit", "mc=3"], 2, ["limit mc=3: no task or group of this name is chosen"]),
    ("a limit that is no number", [*EVAL, "--limit", "alpha=x"], 2, ["limit 'alpha=x': expected a number of rows"]),
    ("a negative limit", [*EVAL, "--limit=-1"], 2, ["limit '-1': expected a number of rows"]),
    ("an unknown task", ["eval", *BASE, "--data", "{tmp}", "--tasks", "alhpa"], 3, ["no task 'alhpa'", "alpha"]),
    ("a task named twice", ["eval", *BASE, "--data", "{tmp}", "--tasks", "alpha,alpha"], 2, ["task 'upstream/alpha' is named twice"]),
    ("too many few-shot examples", [*EVAL, "--num-fewshot", "1000"], 2, ["1000 few-shot examples are wanted"]),
    ("answers of no task", ["eval", *BASE, "--data", "{tmp}/sets", "--tasks", "mc/long", "--no-generation"], 2, ["--no-generation", "tasks with answers"]),
    ("programs of no task", [*EVAL, "--unsafe-run-code"], 2, ["--unsafe-run-code", "humaneval"]),
    ("choices of no task", [*EVAL, "--scoring", "paper"], 2, ["--scoring", "multiple choice"]),
    ("an unknown scoring", ["eval", *BASE, "--data", "{tmp}/sets", "--tasks", "mc/long", "--scoring", "mean"], 2, ["--scoring 'mean' is not one of lm-eval, paper"]),
    ("force of no output", [*SCORE, "--force"], 2, ["--force requires --output"]),
    ("an output of one prompt", [*GENERATE, "--output", "{tmp}/new"], 2, ["--output requires --input"]),
    # A number that is not finite stops at its source.
    ("a threshold that is no number", [*GENERATE, "--library", "{library}", "--task-threshold", "nan"], 2, ["--task-threshold", "finite"]),
    ("a norm that is no number", [*FULL, "--library", "{tmp}/new", "--max-grad-norm", "nan"], 2, ["--max-grad-norm", "at least 0"]),
    ("a rate beyond floats", [*FULL, "--library", "{tmp}/new", "--lr", "1e31"], 2, ["--lr is 1e+31"]),
    # A library names fields, the program flags.
    ("no library to start from", [*ADAPT[:-3], "mean", "--epochs", "1", "--output", "{tmp}/new"], 2, ["--method mean starts from a library: give --library"]),
    ("two adapters for one", [*ADAPT[:-3], "shared", "--epochs", "1", "--library", "{library}", "--kind", "private", "--output", "{tmp}/new"], 2, ["--adapters NAME says which"]),
    ("skills of DoRA", ["build", *BASE, "--library", "{tmp}/new", "--data", "{data}", "--recipe", "poly", "--dora"], 3, ["--dora: a DoRA is used alone", "--recipe poly", "leave --dora out"]),
    ("a chat without a template", [*GENERATE, "--chat"], 2, ["--chat: the base", "leave --chat out"]),
    ("a system message of bare text", [*GENERATE, "--no-chat", "--system", "s"], 2, ["--no-chat excludes --system"]),
    ("validation without rows", ["train", *BASE, "--data", "{tmp}/one", "--library", "{tmp}/new", "--validate", "2"], 2, ["train it without --validate"]),
    ("a device that is none", [*GENERATE, "--device", "abacus"], 2, ["--device 'abacus' is not one of auto, cpu, cuda"]),
    ("an infinite rate", [*FULL, "--library", "{tmp}/new", "--lr", "inf"], 2, ["--lr", "above 0"]),
    ("a rank below one", [*FULL, "--library", "{tmp}/new", "--rank", "-1"], 2, ["--rank: must be at least 1, not -1"]),
    ("a batch beyond all integers", [*FULL, "--library", "{tmp}/new", "--batch-size", "99999999999999999999"], 2, ["--batch-size: must be at most 1000000000"]),
    ("more epochs than steps can be counted", [*FULL, "--library", "{tmp}/new", "--epochs", "9223372036854775807"], 2, ["--epochs: must be at most"]),
    ("a negative seed", [*GENERATE, "--seed", "-1"], 2, ["--seed: must be a whole number of 0 to"]),
    ("a seed beyond 64 bits", [*GENERATE, "--seed", "18446744073709551616"], 2, ["--seed: must be a whole number of 0 to"]),
    ("more threads than a machine has", [*GENERATE, "--threads", "100000"], 2, ["--threads: must be 0 to 1024"]),
    ("an adapter with NaN", [*GENERATE, "--adapter", "{tmp}/nan"], 3, ["lora_B.weight' holds nan at [0, 0]"]),
    ("adding an adapter with NaN", ["library", "add", "--library", "{library}", *BASE, "{tmp}/nan"], 3, ["lora_B.weight' holds nan at [0, 0]"]),
    ("an adapter that overflows", [*GENERATE, "--adapter", "{tmp}/huge"], 3, ["logits after the prompt are not finite", "with adapter '{tmp}/huge'"]),
    ("answers that overflow", ["generate", *BASE, "--input", "{tmp}/prompts.jsonl", "--output", "{tmp}/new", "--adapter", "{tmp}/huge"], 3,
     ["prompts.jsonl:1 (row 'p') are not finite", "with adapter '{tmp}/huge'"]),
    ("scores that overflow", [*SCORE, "--output", "{tmp}/new", "--adapter", "{tmp}/huge"], 3, ["requests.jsonl:1 (row 1) are not finite", "with adapter '{tmp}/huge'"]),
    ("an evaluation that overflows", [*EVAL, "--adapter", "{tmp}/huge"], 3, ["row 'alpha-", "task 'alpha'", "evaluation method 'given', the base with adapter '{tmp}/huge'"]),
    ("routes that overflow", ["route", *BASE, "--library", "{tmp}/overflows", "--prompt", "a", "--method", "arrow"], 3,
     ["after the prompt are not finite", "method 'arrow' over library '{tmp}/overflows'"]),
    ("routes that overflow for a task", ["analyse", "routing", *BASE, "--library", "{tmp}/overflows", "--data", "{data}", "--method", "arrow"], 3, ["row 'alpha-", "task 'alpha'"]),
    ("norms of a task without an adapter", ["analyse", "norms", *BASE, "--library", "{library}", "--data", "{tmp}/others", "--tasks", "gamma"], 2,
     ["no adapter of library '{tmp}/library' was trained on task 'gamma'"]),
    ("norms that overflow", ["analyse", "norms", *BASE, "--library", "{tmp}/overflows", "--data", "{data}"], 3, ["the test rows of task 'alpha' are not finite"]),
    ("a search that overflows", ["adapt", *BASE, "--data", "{data}", "--task", "alpha", "--library", "{tmp}/overflows", "--output", "{tmp}/none", "--method", "lorahub",
                                 "--objective", "loss"], 3, ["row 'alpha-", "are not finite: a mixture of 2 adapters overflows"]),
    # A configuration from elsewhere ends with a message.
    ("deeply nested targets", [*GENERATE, "--adapter", "{tmp}/deep"], 3, ["target_modules: a regular expression of 400000 bytes; at most 65536 are read"]),
    ("a key beyond Quiver", [*GENERATE, "--adapter", "{tmp}/condition"], 3, ["alpha_pattern: the regular expression '(q)?(?(2)a|b)' has a condition on a group"]),
    ("routing that overflows", ["route", *BASE, "--library", "{tmp}/overflows", "--method", "norm", "--prompt", "a"], 3, ["the score of all adapters at 'layers.", "not finite"]),
    ("adapters of other target modules", ["analyse", "norms", *BASE, "--library", "{tmp}/uneven", "--data", "{data}"], 3, ["adapter 'alpha' adapts 'layers.0.self_attn.k_proj' and adapter 'beta' does not"]),
    # A message names the thing.
    ("an over-long name", ["score", "--base", "x" * 5000, "--input", "{tmp}/requests.jsonl"], 4, ["cannot examine", "File name too long"]),
    ("a loop of links", ["score", "--base", "{tmp}/loop", "--input", "{tmp}/requests.jsonl"], 4, ["cannot examine", "loop"]),
    ("rows of another shape", [*FULL[:3], "--dtype", "float32", "--data", "{tmp}/shape", "--library", "{tmp}/new"], 3, ["t.jsonl:1", "'text'", "expected 'source'"]),
    ("a prompt longer than the context", ["generate", *BASE, "--input", "{tmp}/long.jsonl"], 2, ["long.jsonl:2", "leaves no room"]),
    # A row that fails is named: set or task, file, line, id.
    ("a choice longer than the context", [*SETS, "--tasks", "long"], 2, ["long.jsonl:2 (set 'long', row 'q2')", "the target alone has", "the model's context is 256"]),
    ("a choice without text", [*SETS, "--tasks", "empty"], 3, ["empty.jsonl:1 (set 'empty', row 'q1')", "label 0 is not one of the 0 choices"]),
    ("a prompt without text", ["eval", *BASE, "--data", "{tmp}/sets", "--tasks", "blank", "--max-new-tokens", "2"], 2, ["blank.jsonl:1 (task 'blank', row 'r1')", "no tokens"]),
    ("a row longer than a piece", [*FULL, "--library", "{tmp}/new", "--micro-batch-tokens", "1"], 2, ["alpha.jsonl:", "(task 'alpha', row 'alpha-", "raise --micro-batch-tokens or lower --max-length"]),
    # Statistics.
    ("two rows of one id", ["eval", *BASE, "--data", "{tmp}/twice", "--tasks", "t", "--max-new-tokens", "2"], 3, ["t.jsonl:2", "the id 'x' stands at"]),
    ("an answer as long as the context", ["eval", *BASE, "--data", "{tmp}", "--tasks", "alpha", "--max-new-tokens", "100000"], 2, ["leaves no room"]),
]


class Hostile(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        import pathlib
        import tempfile
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="quiver-hostile-"))
        cls.data = make_tasks(cls.shared / "data", names=("alpha", "beta"))
        cls.library = cls.shared / "library"
        train = ["train", *BASE, "--data", cls.data, "--batch-size", 4, "--lr", "1e-2", "--epochs", 1]
        run(*train, "--library", cls.library)
        cls.uneven = cls.shared / "uneven"  # adapters of different target modules
        run(*train, "--library", cls.uneven, "--tasks", "alpha")
        run(*train, "--library", cls.uneven, "--tasks", "beta", "--target-modules", "q_proj")
        cls.overflows = cls.shared / "overflows"  # its adapters are scaled until the logits overflow float32
        shutil.copytree(cls.library, cls.overflows)
        for name in ("alpha", "beta"):
            path = cls.overflows / "adapters" / name / "adapter_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 1e38}))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared, ignore_errors=True)

    def make_folder(self):
        """What stands around: files of the user's, and inputs that are wrong."""
        write_jsonl(self.tmp / "requests.jsonl", [{"id": 1, "context": "a", "continuation": " b"}])
        write_jsonl(self.tmp / "prompts.jsonl", [{"id": "p", "prompt": "a"}])
        for name in ("mine.parts", "keep"):
            (self.tmp / name).mkdir()
            (self.tmp / name / "thesis.tex").write_text("mine")
        for folder in (self.library, self.uneven, self.overflows):
            shutil.copytree(folder, self.tmp / folder.name)
        shutil.copytree(self.library / "adapters/alpha", self.tmp / "adapter")
        (self.tmp / "adapter/notes.txt").write_text("mine")
        shutil.copytree(self.data, self.tmp / "train")
        make_tasks(self.tmp / "others", names=("gamma",))
        make_tasks(self.tmp / "bad", names=("alpha", "omega"))
        (self.tmp / "bad/omega.jsonl").write_text('{"source": "a", "target": "b"}\n{"source":\n')
        (self.tmp / "shape").mkdir()
        write_jsonl(self.tmp / "shape/t.jsonl", [{"text": "a", "label": 1}])
        (self.tmp / "twice/train").mkdir(parents=True)
        write_jsonl(self.tmp / "twice/train/t.jsonl", [{"id": "x", "source": "a", "target": "b", "split": "test"}] * 2)
        (self.tmp / "one").mkdir()
        write_jsonl(self.tmp / "one/t.jsonl", [{"source": "a", "target": "b"}])
        for folder in ("train", "heldout_mc"):
            (self.tmp / "sets" / folder).mkdir(parents=True)
        question = {"id": "q1", "context": "a", "choices": ["b", "c"], "label": 0}
        write_jsonl(self.tmp / "sets/heldout_mc/long.jsonl", [question, {**question, "id": "q2", "choices": ["a b " * 500, "c"]}])
        write_jsonl(self.tmp / "sets/heldout_mc/empty.jsonl", [{**question, "choices": []}])
        write_jsonl(self.tmp / "sets/train/blank.jsonl", [{"id": "r1", "source": "", "target": "b", "split": "test"}])
        write_jsonl(self.tmp / "long.jsonl", [{"prompt": "a"}, {"prompt": "a b " * 5000}])
        for folder in ("noted", "bare", "named"):
            shutil.copytree(self.library, self.tmp / folder)
        (self.tmp / "noted/adapters/alpha/notes.txt").write_text("mine")
        run("library", "remove", "--library", self.tmp / "bare", "beta")
        shutil.copytree(self.library / "adapters/alpha", self.tmp / "bare/adapters/beta")
        run("library", "add", *BASE, "--library", self.tmp / "named", "--name", "poly-0", self.library / "adapters/alpha")
        os.mkfifo(self.tmp / "pipe")
        shutil.copytree(TINY, self.tmp / "pickled")
        (self.tmp / "pickled/model.safetensors").rename(self.tmp / "pickled/pytorch_model.bin")
        (self.tmp / "loop").symlink_to("loop")
        shutil.copytree(self.library / "adapters/alpha", self.tmp / "huge")
        config = json.loads((self.tmp / "huge/adapter_config.json").read_text())
        (self.tmp / "huge/adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1e38}))
        for name, change in (("deep", {"target_modules": "(" * 200_000 + ")" * 200_000}), ("condition", {"alpha_pattern": {"(q)?(?(2)a|b)": 3}})):
            shutil.copytree(self.library / "adapters/alpha", self.tmp / name)
            (self.tmp / name / "adapter_config.json").write_text(json.dumps({**config, **change}))
        shutil.copytree(self.library / "adapters/alpha", self.tmp / "nan")
        tensors = self.tmp / "nan/adapter_model.safetensors"
        raw = bytearray(tensors.read_bytes())
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:8 + size])
        name = next(n for n in header if n.endswith("lora_B.weight"))
        begin = 8 + size + header[name]["data_offsets"][0]
        raw[begin:begin + 4] = b"\x00\x00\xc0\x7f"
        tensors.write_bytes(raw)

    def snapshot(self):
        return {path.relative_to(self.tmp): path.read_bytes() for path in sorted(self.tmp.rglob("*")) if path.is_file() and not path.name.startswith(".lock")}

    def test_rows(self):
        self.make_folder()
        before = self.snapshot()
        for name, command, code, words in ROWS:
            with self.subTest(name):
                def fill(part):
                    return part.replace("{tmp}", str(self.tmp)).replace("{library}", str(self.tmp / "library")).replace("{data}", str(self.data))
                self.expect_error([fill(part) for part in command], code, *(fill(part) for part in words))
                after = self.snapshot()
                self.assertEqual({path: after.get(path) for path in before}, before)
                self.assertFalse((self.tmp / "new.parts").exists())
                shutil.rmtree(self.tmp / "new", ignore_errors=True)
                self.assertFalse((self.tmp / "mine").exists())

    def test_force_replaces_results_of_any_length(self):
        results = self.tmp / "results.json"
        results.write_text(json.dumps({"a": "x" * 200_000, "quiver_results": 1}))
        make = ["eval", *BASE, "--data", self.tmp / "none", "--output", results, "--methods", "base", "--tasks", "t"]
        self.expect_error(make, 2, "exists already; --force overwrites it")
        self.expect_error([*make, "--force"], 3, "no task 't'")  # past the check of the output

    def test_streams_are_written_to(self):
        self.make_folder()
        scored = run(*[part.replace("{tmp}", str(self.tmp)) for part in SCORE], "--output", "/dev/stdout").stdout
        self.assertEqual(json.loads(scored)["id"], 1)
        run(*[part.replace("{tmp}", str(self.tmp)) for part in SCORE], "--output", "/dev/null")
        run(*[part.replace("{tmp}", str(self.tmp)) for part in SCORE], "--output", "/dev/null", "--force")
        self.assertTrue((ROOT / "/dev/null").is_char_device())

    def test_a_name_alone_that_differs_is_a_warning(self):
        self.make_folder()
        folder = self.tmp / "adapter"
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "org/another-model"
        (folder / "adapter_config.json").write_text(json.dumps(config))
        raw = (folder / "adapter_model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:8 + size])
        header["__metadata__"].pop("quiver.base_fingerprint")
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size:])
        done = run(*GENERATE, "--adapter", folder)
        self.assertIn("names base 'org/another-model'", done.stderr)


if __name__ == "__main__":
    main()
