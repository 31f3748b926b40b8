// The guest's serial console: the last bytes of it in memory, some more in a file, and no more than
// that however much the guest writes.
//
// The line comes by socket, as a file of the VMM would grow as the guest likes. The VMM buffers 1
// MiB while nobody is connected and drops the oldest (serial_buffer, v53.0), so an agent that was
// restarted connects again and reads what it missed. Text is the guest's: hostile, never
// interpreted. Not thread-safe; Watch drives it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "node-agent/host/vmm_socket.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::vmm {

/// The last `capacity` bytes of a stream.
class SerialRing {
 public:
  explicit SerialRing(size_t capacity = 4096) : capacity_(capacity) {}
  void Append(std::string_view bytes);
  /// The last `count` lines that hold anything, printable: no control characters but tab, no
  /// invalid UTF-8, each cut to 200 bytes. A last line without its newline counts.
  [[nodiscard]] std::string LastLines(size_t count) const;
  [[nodiscard]] std::string Contents() const;

 private:
  size_t capacity_;
  size_t start_ = 0;  ///< of the oldest byte, once full
  std::string bytes_;
};

/// A log that never takes more than 2 x `cap` bytes: a full file becomes "<path>.1", whose
/// predecessor goes.
class CappedFile {
 public:
  /// Opens for appending, 0600; what an earlier agent wrote stays.
  static Result<CappedFile> Open(const std::string& path, size_t cap);
  Result<> Append(std::string_view bytes);

 private:
  CappedFile(std::string path, size_t cap, UniqueFd fd, size_t size)
      : path_(std::move(path)), cap_(cap), fd_(std::move(fd)), size_(size) {}
  std::string path_;
  size_t cap_;
  UniqueFd fd_;
  size_t size_;
};

/// SerialRing::LastLines of a log file: a CappedFile's, for a VM that is gone, or one that a VMM
/// wrote. Empty when `path` is no file of user `writer`.
[[nodiscard]] std::string LastLinesOfLog(const std::string& path, uid_t writer, size_t count);

struct SerialOptions {
  size_t ring_bytes = 4096;
  size_t file_bytes = 128 * 1024;
  size_t bytes_per_second =
      64 * 1024;  ///< what is read at most; beyond it the VMM's own buffer drops
  size_t burst_bytes = 128 * 1024;
};

/// One VM's serial line: connected, read within its rate, kept.
class SerialReader {
 public:
  /// Connects without waiting: host::ConnectVmm.
  static Result<SerialReader> Connect(const host::VmmSocket& socket, const std::string& log_path,
                                      SerialOptions options, const Clock& clock);

  enum class State { kIdle, kThrottled, kClosed };
  /// Reads what there is and what the rate allows. A failing log file is told once and then done
  /// without: a full disk does not stop the console.
  State OnReadable();
  /// When a throttled line may be read again.
  [[nodiscard]] std::optional<MonotonicTime> throttled_until() const { return throttled_until_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const SerialRing& ring() const { return ring_; }

 private:
  SerialReader(UniqueFd fd, SerialOptions options, const Clock& clock);

  UniqueFd fd_;
  SerialOptions options_;
  const Clock* clock_;
  SerialRing ring_;
  std::optional<CappedFile> file_;
  size_t tokens_;
  MonotonicTime refilled_;
  std::optional<MonotonicTime> throttled_until_;
};

}  // namespace dormouse::vmm
