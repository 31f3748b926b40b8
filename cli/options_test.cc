#include "cli/options.h"

#include <gmock/gmock.h>

namespace dormouse::cli {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

ParsedOptions Parse(std::vector<const char*> words) {
  words.insert(words.begin(), "kubectl-dormouse");
  return ParseOptions(static_cast<int>(words.size()), words.data());
}

TEST(OptionsTest, SeveralSandboxesAreNamedBetweenFlags) {
  const auto parsed =
      Parse({"suspend", "a", "-n", "team", "b", "--wait", "--timeout", "1m30s", "c"});
  ASSERT_TRUE(parsed.run);
  EXPECT_EQ(parsed.options.verb, Verb::kSuspend);
  EXPECT_THAT(parsed.options.sandboxes, ElementsAre("a", "b", "c"));
  EXPECT_EQ(parsed.options.ns, "team");
  EXPECT_TRUE(parsed.options.wait);
  EXPECT_EQ(parsed.options.timeout, 90s);
}

TEST(OptionsTest, FlagsStandBeforeTheVerbToo) {
  const auto parsed = Parse({"--context", "c", "--kubeconfig=f", "-n", "team", "resume", "a"});
  ASSERT_TRUE(parsed.run);
  EXPECT_EQ(parsed.options.verb, Verb::kResume);
  EXPECT_EQ(parsed.options.context, "c");
  EXPECT_EQ(parsed.options.kubeconfig, "f");
  EXPECT_EQ(parsed.options.ns, "team");
  EXPECT_FALSE(parsed.options.wait);
  EXPECT_EQ(parsed.options.timeout, 5min);
}

TEST(OptionsTest, WaitTakesAValueAsKubectlsDoes) {
  EXPECT_TRUE(Parse({"suspend", "a", "--wait=true"}).options.wait);
  EXPECT_FALSE(Parse({"suspend", "a", "--wait=false"}).options.wait);
}

TEST(OptionsTest, ATemplateIsMadeFromOneSandboxAndStartsSeveral) {
  const auto snapshot = Parse({"snapshot", "s1", "--to", "t1"});
  ASSERT_TRUE(snapshot.run);
  EXPECT_EQ(snapshot.options.verb, Verb::kSnapshot);
  EXPECT_THAT(snapshot.options.sandboxes, ElementsAre("s1"));
  EXPECT_EQ(snapshot.options.snapshot_template, "t1");
  const auto clone = Parse({"clone", "t1", "a", "b"});
  ASSERT_TRUE(clone.run);
  EXPECT_EQ(clone.options.verb, Verb::kClone);
  EXPECT_EQ(clone.options.snapshot_template, "t1");
  EXPECT_THAT(clone.options.sandboxes, ElementsAre("a", "b"));
}

TEST(OptionsTest, AMistakeSaysWhatToWriteInstead) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "subcommand is required"},
      {{"suspend"}, "NAME is required"},
      {{"snapshot", "s1"}, "--to is required"},
      {{"snapshot", "s1", "s2", "--to", "t"}, "NAME"},
      {{"clone", "t1"}, "NAME is required"},
      {{"suspend", "../x"}, "lower case letters"},
      {{"suspend", ""}, "lower case letters"},
      {{"suspend", "s1", "--timeout", "soon"}, "such as 90s or 5m"},
      {{"hibernate", "s1"}, "subcommand is required"},
  };
  for (const auto& [words, says] : cases) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const auto parsed = Parse(words);
    const std::string said =
        testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
    EXPECT_FALSE(parsed.run) << says;
    EXPECT_EQ(parsed.exit_code, 1) << says;
    EXPECT_THAT(said, HasSubstr(says));
  }
}

}  // namespace
}  // namespace dormouse::cli
