#include "node-agent/serve/console_follower.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace dormouse {
namespace {

class ConsoleFollowerTest : public testing::Test {
 protected:
  ConsoleFollowerTest() { (void)::mkdtemp(directory_.data()); }
  ~ConsoleFollowerTest() override { std::filesystem::remove_all(directory_); }
  void Append(const std::string& text) { std::ofstream(path(), std::ios::app) << text; }
  [[nodiscard]] std::string path() const { return directory_ + "/console.log"; }

 private:
  std::string directory_ = "/tmp/console-follower-XXXXXX";
};

TEST_F(ConsoleFollowerTest, OnlyWhatComesIsRead) {
  Append("old\n");
  ConsoleFollower follower(path());
  EXPECT_EQ(follower.Read(), "");
  Append("new\n");
  EXPECT_EQ(follower.Read(), "new\n");
  EXPECT_EQ(follower.Read(), "");
}

TEST_F(ConsoleFollowerTest, ARotationLosesNothing) {
  Append("old\n");
  ConsoleFollower follower(path());
  Append("before\n");
  std::filesystem::rename(path(), path() + ".1");
  Append("after\n");
  EXPECT_EQ(follower.Read(), "before\n");
  EXPECT_EQ(follower.Read(), "after\n");
}

TEST_F(ConsoleFollowerTest, AFileThatIsNotThereYetIsWaitedFor) {
  ConsoleFollower follower(path());
  EXPECT_EQ(follower.Read(), "");
  Append("hello\n");
  EXPECT_EQ(follower.Read(), "hello\n");
}

TEST(PrintableTest, TerminalsAreNotSteered) {
  EXPECT_EQ(Printable("a\tb\r\nc"), "a\tb\nc");
  EXPECT_EQ(Printable("\x1b[2J\x07\x7f"), "?[2J??");
  EXPECT_EQ(Printable("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xad"), "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xad");
  EXPECT_EQ(Printable("\xc2\x9b" "31m"), "??31m") << "C1 controls";
  EXPECT_EQ(Printable("\xe2\x82"), "??") << "torn";
  EXPECT_EQ(Printable("\xc0\xaf\xed\xa0\x80"), "?????") << "overlong, surrogate";
}

}  // namespace
}  // namespace dormouse
