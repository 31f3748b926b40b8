// Holds reasons.h and docs/reasons.md together.
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <string>

#include "src/common/base/files.h"

namespace dormouse::api {
namespace {

std::multiset<std::string> Matches(const std::string& path, const std::string& pattern) {
  const auto text = ReadFile(std::string(DORMOUSE_SOURCE_DIR) + "/" + path, 1 << 20);
  std::multiset<std::string> found;
  if (!text) return found;
  const std::regex expression(pattern);
  for (std::sregex_iterator at(text->begin(), text->end(), expression), end; at != end; ++at) {
    found.insert((*at)[1].str());
  }
  return found;
}

TEST(ReasonsTest, EveryReasonIsExplainedOnceAndNoOtherIs) {
  const auto declared =
      Matches("src/common/api/reasons.h", "string_view k[A-Za-z]+ = \"([A-Za-z]+)\"");
  const auto explained = Matches("docs/reasons.md", "(?:^|\n)\\| `([A-Za-z]+)` \\|");
  EXPECT_GT(declared.size(), 30U);
  EXPECT_EQ(declared, explained);
}

}  // namespace
}  // namespace dormouse::api
