// All that a program needs to use the library: include this one header. No source of the library includes it.
#pragma once

// Errors, and progress of long work.
#include "quiver/base/error.h"
#include "quiver/base/progress.h"

// A base model with its tokenizer and format of prompts.
#include "quiver/methods/base_model.h"

// Task files, and text to tokens.
#include "quiver/data/encode.h"
#include "quiver/data/prompt_format.h"
#include "quiver/data/tasks.h"

// Adapters as values, as PEFT folders, and on a model.
#include "quiver/adapters/init.h"
#include "quiver/adapters/lora.h"
#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"

// Generation, request by request or all at once, and log-likelihoods.
#include "quiver/eval/score.h"
#include "quiver/model/cached_pass.h"
#include "quiver/model/generate.h"
#include "quiver/schedule/scheduler.h"

// Training.
#include "quiver/train/trainer.h"

// Routing: a router of one's own, Arrow, what routers chose.
#include "quiver/routing/arrow.h"
#include "quiver/routing/attach.h"
#include "quiver/routing/checks.h"
#include "quiver/routing/recorder.h"
#include "quiver/routing/router.h"

// Many adapters as one, and adapters in groups.
#include "quiver/cluster/mbc.h"
#include "quiver/merge/compress.h"
#include "quiver/merge/dare.h"
#include "quiver/merge/knots.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/peft_merge.h"
#include "quiver/merge/subtract.h"
#include "quiver/merge/ties.h"
#include "quiver/merge/wudi.h"

// A library on disk, and every way of using it by name ("arrow", "ties").
#include "quiver/library/library.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/merges.h"
#include "quiver/methods/table.h"
