#include "cli/display.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "src/common/base/unique_fd.h"

namespace dormouse::cli {
namespace {

using namespace std::chrono_literals;

/// What was written to its end.
class Pipe {
 public:
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    reader_ = UniqueFd(ends[0]);
    writer_ = UniqueFd(ends[1]);
  }
  [[nodiscard]] int fd() const { return writer_.get(); }
  std::string Take() {
    std::array<char, 4096> block{};
    const ssize_t count = ::read(reader_.get(), block.data(), block.size());
    return count > 0 ? std::string(block.data(), static_cast<std::size_t>(count)) : "";
  }

 private:
  UniqueFd reader_, writer_;
};

const Progress kSuspending{Standing::kWaiting, "Suspending", "512 MiB RAM", ""};
const Progress kSuspended{Standing::kDone, "Suspended", "2 MiB written, 96 MiB kept", ""};

TEST(DisplayTest, ElsewhereEachChangeIsALine) {
  Pipe pipe;
  FakeClock clock;
  Display display(pipe.fd(), std::nullopt, {"s1"}, clock);
  display.Show(0, kSuspending);
  clock.Advance(1s);
  display.Show(0, kSuspending);
  display.Tick();
  EXPECT_EQ(pipe.Take(), "s1  Suspending  512 MiB RAM  0.0s\n");
  display.Show(0, kSuspended);
  EXPECT_EQ(pipe.Take(), "s1  Suspended  2 MiB written, 96 MiB kept  1.0s\n");
}

TEST(DisplayTest, OnATerminalEachObjectKeepsItsLine) {
  Pipe pipe;
  FakeClock clock;
  Display display(pipe.fd(), TerminalSize{24, 80}, {"s1", "s2"}, clock);
  display.Show(1, kSuspending);
  EXPECT_EQ(pipe.Take(), "\rs2  Suspending  512 MiB RAM  0.0s\x1b[K\n");
  clock.Advance(1s);
  display.Show(0, kSuspended);
  EXPECT_EQ(pipe.Take(),
            "\x1b[1A\rs1  Suspended  2 MiB written, 96 MiB kept  1.0s\x1b[K\n"
            "\rs2  Suspending  512 MiB RAM  1.0s\x1b[K\n");
  clock.Advance(1s);
  display.Tick();
  EXPECT_EQ(pipe.Take(),
            "\x1b[2A\rs1  Suspended  2 MiB written, 96 MiB kept  1.0s\x1b[K\n"
            "\rs2  Suspending  512 MiB RAM  2.0s\x1b[K\n")
      << "the clock of what has ended stands still";
}

TEST(DisplayTest, ALineNeverWraps) {
  Pipe pipe;
  FakeClock clock;
  Display display(pipe.fd(), TerminalSize{24, 12}, {"s1"}, clock);
  display.Show(0, kSuspending);
  EXPECT_EQ(pipe.Take(), "\rs1  Suspend…\x1b[K\n");
}

TEST(DisplayTest, MoreObjectsThanTheTerminalHasLinesAreShownByChange) {
  Pipe pipe;
  FakeClock clock;
  Display display(pipe.fd(), TerminalSize{2, 80}, {"s1", "s2"}, clock);
  display.Show(0, kSuspending);
  display.Tick();
  EXPECT_EQ(pipe.Take(), "s1  Suspending  512 MiB RAM  0.0s\n");
}

TEST(DisplayTest, AnObstacleEndsTheLine) {
  EXPECT_EQ(
      ProgressLine("s1", {Standing::kWaiting, "Suspended", "", "NoCapacity: node-a is full"}, 65s),
      "s1  Suspended  1m05s  NoCapacity: node-a is full");
}

}  // namespace
}  // namespace dormouse::cli
