// Progress for people: on a terminal one line an object, rewritten in place each moment; elsewhere,
// and where the terminal has fewer lines than there are objects, one line for each change.
//
// Thread-safe. Writes to a descriptor that it does not own; what cannot be written is left out.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cli/wish.h"
#include "src/common/base/clock.h"

namespace dormouse::cli {

struct TerminalSize {
  std::size_t rows = 24, columns = 80;
};

/// "s1  Suspending  512 MiB RAM  3s  NoCapacity: ...".
[[nodiscard]] std::string ProgressLine(const std::string& name, const Progress& progress,
                                       std::chrono::nanoseconds elapsed);

class Display {
 public:
  /// `terminal`: its size, or nothing where `fd` is none. The time starts now.
  Display(int fd, std::optional<TerminalSize> terminal, std::vector<std::string> names,
          const Clock& clock = Clock::System());
  /// Its clock stops when it is done or has failed.
  void Show(std::size_t object, const Progress& progress);
  /// Lets the time go on, on a terminal.
  void Tick();

 private:
  struct Row {
    std::string name;
    std::optional<Progress> progress;
    std::optional<std::chrono::nanoseconds> ended_after;
  };
  [[nodiscard]] std::string Text(const Row& row) const;
  void Redraw();

  const int fd_;
  std::optional<TerminalSize> terminal_;
  const Clock& clock_;
  const MonotonicTime started_;
  std::mutex mutex_;
  std::vector<Row> rows_;
  std::size_t drawn_ = 0;  ///< lines of ours above the cursor
};

/// Nothing when `fd` is no terminal that can rewrite a line ($TERM unset or "dumb").
[[nodiscard]] std::optional<TerminalSize> TerminalOf(int fd);

}  // namespace dormouse::cli
