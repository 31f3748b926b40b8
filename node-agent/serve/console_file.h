// The guest's serial console from the sandbox's console file, which outlives VMM and agent
// (vmm::CappedFile:
// "<path>" and, once that was full, "<path>.1"): its last lines, and what comes, for `ctl logs
// --console [-f]`. What the guest wrote is made printable.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "node-agent/serve/stream_socket.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {

/// Control characters but newline and tab, and bytes above ASCII that are no UTF-8, become '?':
/// what a guest writes must not steer the terminal of who looks at it.
[[nodiscard]] std::string Printable(std::string_view text);

/// The last `lines` lines of both files, printable and whole; empty when there are none. Reads 512
/// KiB at most.
[[nodiscard]] std::string LastConsoleLines(const std::string& path, uint64_t lines);

/// How much of the end of `text` its last `lines` lines are; a last line without its newline
/// counts.
[[nodiscard]] size_t LengthOfLastLines(std::string_view text, uint64_t lines);

/// One owner. It looks a few times a second: a person reads this.
class ConsoleFollower {
 public:
  ConsoleFollower() = default;
  /// From the file's present end; a file that is not there yet is waited for.
  explicit ConsoleFollower(std::string path);

  /// What was appended since the last call, 64 KiB at most.
  [[nodiscard]] std::string Read();
  /// Sends it as kStdout frames until the client hangs up (success) or `stop_fd` becomes readable
  /// (kCancelled).
  Result<> Run(StreamSocket& client, int stop_fd);

 private:
  [[nodiscard]] bool Rotated() const;

  std::string path_;
  UniqueFd file_;
};

}  // namespace dormouse
