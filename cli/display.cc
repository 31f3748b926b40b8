#include "cli/display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "cli/text.h"
#include "src/common/base/files.h"

namespace dormouse::cli {

std::string ProgressLine(const std::string& name, const Progress& progress,
                         std::chrono::nanoseconds elapsed) {
  std::string line = name;
  for (const std::string& part :
       {progress.phase, progress.amount, Elapsed(elapsed), progress.why}) {
    if (!part.empty()) line += "  " + part;
  }
  return line;
}

Display::Display(int fd, std::optional<TerminalSize> terminal, std::vector<std::string> names,
                 const Clock& clock)
    : fd_(fd), terminal_(terminal), clock_(clock), started_(clock.Now()) {
  for (std::string& name : names) rows_.push_back({std::move(name), std::nullopt, std::nullopt});
  if (terminal_ && rows_.size() >= terminal_->rows) terminal_.reset();
}

void Display::Show(std::size_t object, const Progress& progress) {
  const std::lock_guard lock(mutex_);
  Row& row = rows_.at(object);
  if (row.progress == progress) return;
  row.progress = progress;
  if (progress.standing != Standing::kWaiting) row.ended_after = clock_.Now() - started_;
  if (terminal_) {
    Redraw();
  } else {
    (void)WriteAll(fd_, Text(row) + "\n");
  }
}

void Display::Tick() {
  const std::lock_guard lock(mutex_);
  if (terminal_) Redraw();
}

std::string Display::Text(const Row& row) const {
  return ProgressLine(row.name, *row.progress, row.ended_after.value_or(clock_.Now() - started_));
}

void Display::Redraw() {
  // ECMA-48: CUU goes up, EL erases to the end of the line. A line that wrapped would be two to go
  // up.
  std::string frame = drawn_ > 0 ? "\x1b[" + std::to_string(drawn_) + "A" : "";
  drawn_ = 0;
  for (const Row& row : rows_) {
    if (!row.progress) continue;
    frame += "\r" + Shortened(Text(row), terminal_->columns) + "\x1b[K\n";
    ++drawn_;
  }
  (void)WriteAll(fd_, frame);
}

std::optional<TerminalSize> TerminalOf(int fd) {
  const char* kind = std::getenv("TERM");
  if (::isatty(fd) == 0 || kind == nullptr || *kind == '\0' || std::string_view(kind) == "dumb")
    return std::nullopt;
  TerminalSize size;
  winsize known{};
  if (::ioctl(fd, TIOCGWINSZ, &known) == 0 && known.ws_row > 0 && known.ws_col > 0) {
    size = {known.ws_row, known.ws_col};
  }
  return size;
}

}  // namespace dormouse::cli
