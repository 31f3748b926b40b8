#include "node-agent/serve/console_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "node-agent/host/test_support.h"

namespace dormouse {
namespace {

class ConsoleFileTest : public testing::Test {
 protected:
  void Append(const std::string& text) { std::ofstream(path(), std::ios::app) << text; }
  [[nodiscard]] std::string path() const { return directory_ / "console.log"; }

 private:
  const host::ScratchDirectory directory_;
};

TEST_F(ConsoleFileTest, OnlyWhatComesIsRead) {
  Append("old\n");
  ConsoleFollower follower(path());
  EXPECT_EQ(follower.Read(), "");
  Append("new\n");
  EXPECT_EQ(follower.Read(), "new\n");
  EXPECT_EQ(follower.Read(), "");
}

TEST_F(ConsoleFileTest, ARotationLosesNothing) {
  Append("old\n");
  ConsoleFollower follower(path());
  Append("before\n");
  std::filesystem::rename(path(), path() + ".1");
  Append("after\n");
  EXPECT_EQ(follower.Read(), "before\n");
  EXPECT_EQ(follower.Read(), "after\n");
}

TEST_F(ConsoleFileTest, AFileThatIsNotThereYetIsWaitedFor) {
  ConsoleFollower follower(path());
  EXPECT_EQ(follower.Read(), "");
  Append("hello\n");
  EXPECT_EQ(follower.Read(), "hello\n");
}

TEST_F(ConsoleFileTest, TheLastLinesComeOfBothFiles) {
  EXPECT_EQ(LastConsoleLines(path(), 5), "");
  Append("one\ntwo\n");
  std::filesystem::rename(path(), path() + ".1");
  Append("three\nfo\x1bur");
  EXPECT_EQ(LastConsoleLines(path(), 2), "three\nfo?ur\n");
  EXPECT_EQ(LastConsoleLines(path(), 3), "two\nthree\nfo?ur\n");
  EXPECT_EQ(LastConsoleLines(path(), UINT64_MAX), "one\ntwo\nthree\nfo?ur\n");
  EXPECT_EQ(LastConsoleLines(path(), 0), "");
}

TEST(PrintableTest, TerminalsAreNotSteered) {
  EXPECT_EQ(Printable("a\tb\r\nc"), "a\tb\nc");
  EXPECT_EQ(Printable("\x1b[2J\x07\x7f"), "?[2J??");
  EXPECT_EQ(Printable("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xad"),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xad");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "??31m")
      << "C1 controls";
  EXPECT_EQ(Printable("\xe2\x82"), "??") << "torn";
  EXPECT_EQ(Printable("\xc0\xaf\xed\xa0\x80"), "?????") << "overlong, surrogate";
}

}  // namespace
}  // namespace dormouse
