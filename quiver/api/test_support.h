// What tests of the API share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "quiver/api/error.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

/// "status code param: message" of the ApiError that `action` throws ("-" for a code of null and for no param); "ok" if it throws none.
inline std::string refusal_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ApiError& error) {
    const char* code = error_row(error.reason()).code;
    return std::to_string(error.status()) + " " + (code == nullptr ? "-" : code) + " " + (error.param().empty() ? "-" : error.param()) +
           ": " + error.what();
  }
  return "ok";
}

/// A tokenizer of tests/golden/tokenizer.
inline text::Tokenizer golden_tokenizer(const std::string& name) {
  return text::load_tokenizer("tests/golden/tokenizer/" + name + ".json");
}

}  // namespace quiver::api
