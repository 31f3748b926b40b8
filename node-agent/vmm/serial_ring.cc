#include "node-agent/vmm/serial_ring.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "node-agent/host/beneath.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse::vmm {
namespace {

constexpr size_t kMaxLineBytes = 200;
constexpr size_t kConsoleReadBytes = 16 * 1024;

// Printable ASCII and tabs; of anything else a dot, so that no terminal and no JSON is hurt.
std::string Printable(std::string_view line) {
  std::string clean;
  for (const char c : line.substr(0, kMaxLineBytes)) {
    if (c == '\r') continue;
    clean += (c >= 0x20 && c < 0x7f) || c == '\t' ? c : '.';
  }
  return clean;
}

}  // namespace

void SerialRing::Append(std::string_view bytes) {
  if (bytes.size() > capacity_) bytes.remove_prefix(bytes.size() - capacity_);
  const size_t fresh = std::min(bytes.size(), capacity_ - bytes_.size());
  bytes_.append(bytes.substr(0, fresh));
  for (const char c : bytes.substr(fresh)) {
    bytes_[start_] = c;
    start_ = (start_ + 1) % capacity_;
  }
}

std::string SerialRing::Contents() const {
  return bytes_.substr(start_) + bytes_.substr(0, start_);
}

std::string SerialRing::LastLines(size_t count) const {
  const std::string all = Contents();
  std::vector<std::string> lines;
  for (size_t end = all.size(); lines.size() < count;) {
    const size_t newline = end == 0 ? std::string::npos : all.rfind('\n', end - 1);
    const size_t begin = newline == std::string::npos ? 0 : newline + 1;
    std::string line = Printable(std::string_view(all).substr(begin, end - begin));
    if (line.find_first_not_of(" \t") != std::string::npos) lines.push_back(std::move(line));
    if (newline == std::string::npos) break;
    end = newline;
  }
  std::string text;
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    if (!text.empty()) text += '\n';
    text += *line;
  }
  return text;
}

std::string LastLinesOfLog(const std::string& path, uid_t writer, size_t count) {
  const auto opened = host::OpenBeneath(path, O_RDONLY, {writer, host::kAnySize});
  struct stat info {};
  if (!opened || ::fstat(opened->get(), &info) != 0) return {};
  std::string tail(std::min<size_t>(kConsoleReadBytes, static_cast<size_t>(info.st_size)), '\0');
  const ssize_t got = ::pread(opened->get(), tail.data(), tail.size(),
                              info.st_size - static_cast<off_t>(tail.size()));
  if (got <= 0) return {};
  SerialRing ring(tail.size());
  ring.Append(std::string_view(tail).substr(0, static_cast<size_t>(got)));
  return ring.LastLines(count);
}

Result<CappedFile> CappedFile::Open(const std::string& path, size_t cap) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return FailErrno("open " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("stat " + path);
  return CappedFile(path, cap, std::move(fd), static_cast<size_t>(info.st_size));
}

Result<> CappedFile::Append(std::string_view bytes) {
  if (bytes.size() > cap_) bytes.remove_prefix(bytes.size() - cap_);
  if (size_ + bytes.size() > cap_) {
    const std::string older = path_ + ".1";
    if (::rename(path_.c_str(), older.c_str()) != 0) return FailErrno("rename " + path_);
    fd_.Reset(::open(path_.c_str(),
                     O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd_) return FailErrno("open " + path_);
    size_ = 0;
  }
  DORMOUSE_TRY(WriteAll(fd_.get(), bytes));
  size_ += bytes.size();
  return {};
}

SerialReader::SerialReader(UniqueFd fd, SerialOptions options, const Clock& clock)
    : fd_(std::move(fd)),
      options_(options),
      clock_(&clock),
      ring_(options.ring_bytes),
      tokens_(options.burst_bytes),
      refilled_(clock.Now()) {}

Result<SerialReader> SerialReader::Connect(const host::VmmSocket& socket,
                                           const std::string& log_path, SerialOptions options,
                                           const Clock& clock) {
  DORMOUSE_ASSIGN(UniqueFd fd, host::ConnectVmm(socket));
  SerialReader reader(std::move(fd), options, clock);
  if (!log_path.empty()) {
    auto file = CappedFile::Open(log_path, options.file_bytes);
    if (file) {
      reader.file_ = std::move(*file);
    } else {
      log::Warning("guest console is kept in memory only", {{"cause", file.error().message()}});
    }
  }
  return reader;
}

SerialReader::State SerialReader::OnReadable() {
  const MonotonicTime now = clock_->Now();
  const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now - refilled_);
  const auto earned = static_cast<size_t>(std::min<int64_t>(elapsed.count(), 60'000)) *
                      options_.bytes_per_second / 1000;
  if (earned > 0) {
    tokens_ = std::min(options_.burst_bytes, tokens_ + earned);
    refilled_ = now;
  }
  throttled_until_.reset();

  std::array<char, kConsoleReadBytes> block;
  while (tokens_ > 0) {
    const ssize_t got = ::read(fd_.get(), block.data(), std::min(block.size(), tokens_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return State::kIdle;
    if (got <= 0) return State::kClosed;
    tokens_ -= static_cast<size_t>(got);
    const std::string_view bytes(block.data(), static_cast<size_t>(got));
    ring_.Append(bytes);
    if (file_) {
      if (auto kept = file_->Append(bytes); !kept) {
        log::Warning("guest console is kept in memory only", {{"cause", kept.error().message()}});
        file_.reset();
      }
    }
  }
  // A quarter of a second of bytes at once: a guest that writes for ever wakes us four times a
  // second.
  throttled_until_ = now + std::chrono::milliseconds(250);
  return State::kThrottled;
}

}  // namespace dormouse::vmm
