#include "quiver/tasks/python_literal.h"

#include <gtest/gtest.h>

#include <string>

namespace quiver::tasks {
namespace {

using nlohmann::json;

TEST(PythonLiteral, ReadsWhatPythonWrites) {
  EXPECT_EQ(python_literal("['a', \"it's\", 'x\\n\\'\\\\y', '\\xe9\\u65e5\\U0001F600']"), json({"a", "it's", "x\n'\\y", "é日😀"}));
  EXPECT_EQ(python_literal(" [1, -2, 1.5, 1e-07, True, False, None, [], ()] "),
            json({1, -2, 1.5, 1e-07, true, false, nullptr, json::array(), json::array()}));
  EXPECT_EQ(python_literal("('a',)"), json::array({"a"}));
  EXPECT_EQ(python_literal("('a')"), json("a"));
  EXPECT_EQ(python_literal("(1, 2,)"), json({1, 2}));
  EXPECT_EQ(python_literal("[['a', 'b'], ['c']]"), json({{"a", "b"}, json::array({"c"})}));
  EXPECT_EQ(python_literal("12"), json(12));
  EXPECT_EQ(python_literal("00"), json(0));
  EXPECT_EQ(python_literal("''"), json(""));
}

TEST(PythonLiteral, ReadsNothingElse) {
  for (const char* text :
       {"",      "a",     "[a]",      "['a'",    "'a",     "['a' 'b']", "['a',, 'b']", "[,]",       "007",     "9223372036854775808",
        "1.5.2", "Truer", "{'a': 1}", "['a'] x", "'a\nb'", "'\\q'",     "'\\xg1'",     "'\\ud800'", "'''a'''", "b'a'",
        "-",     "1 2"}) {
    EXPECT_EQ(python_literal(text), std::nullopt) << text;
  }
  EXPECT_EQ(python_literal(std::string(100'000, '[')), std::nullopt);
}

}  // namespace
}  // namespace quiver::tasks
