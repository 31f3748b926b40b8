#include "node-agent/serve/console_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "src/common/base/files.h"
#include "src/common/base/utf8.h"

namespace dormouse {
namespace {

constexpr int kLookEveryMs = 200;
constexpr size_t kFileReadBytes = 64 * 1024;
constexpr size_t kMostFileBytes = 256 * 1024;  // twice what SerialOptions gives a file
constexpr std::chrono::seconds kSendTime{10};

/// C1 controls steer terminals as escape sequences do.
bool IsC1(std::string_view character) {
  return character.size() == 2 && character[0] == '\xc2' &&
         static_cast<unsigned char>(character[1]) < 0xa0;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string printable;
  printable.reserve(text.size());
  while (!text.empty()) {
    const char first = text.front();
    size_t length = 1;
    if (first == '\r') {  // ends a line of a serial terminal, before the newline
    } else if (first == '\n' || first == '\t' || (first >= ' ' && first <= '~')) {
      printable.push_back(first);
    } else if (length = Utf8Length(text); length > 1 && !IsC1(text.substr(0, length))) {
      printable.append(text.substr(0, length));
    } else {
      printable.push_back('?');
      length = 1;
    }
    text.remove_prefix(length);
  }
  return printable;
}

size_t LengthOfLastLines(std::string_view text, uint64_t lines) {
  size_t start = text.size();
  if (lines == 0) return 0;
  if (start > 0 && text.back() == '\n') --start;
  for (uint64_t found = 0; start > 0; --start) {
    if (text[start - 1] == '\n' && ++found == lines) break;
  }
  return text.size() - start;
}

std::string LastConsoleLines(const std::string& path, uint64_t lines) {
  // A rotation in between loses or doubles lines at worst.
  std::string text = ReadFile(path + ".1", kMostFileBytes).value_or("") +
                     ReadFile(path, kMostFileBytes).value_or("");
  text = Printable(text);
  if (!text.empty() && text.back() != '\n') text.push_back('\n');
  return text.substr(text.size() - LengthOfLastLines(text, lines));
}

ConsoleFollower::ConsoleFollower(std::string path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) {
  if (file_) (void)::lseek(file_.get(), 0, SEEK_END);
}

bool ConsoleFollower::Rotated() const {
  struct stat opened {};
  struct stat named {};
  if (::stat(path_.c_str(), &named) != 0) return false;
  return !file_ || ::fstat(file_.get(), &opened) != 0 || opened.st_ino != named.st_ino ||
         opened.st_dev != named.st_dev;
}

std::string ConsoleFollower::Read() {
  std::string text(kFileReadBytes, '\0');
  // The rest of a file that was rotated away is read before the new one is opened.
  const bool rotated = Rotated();
  ssize_t got = file_ ? ::read(file_.get(), text.data(), text.size()) : 0;
  if (got <= 0 && rotated) {
    file_.Reset(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    got = file_ ? ::read(file_.get(), text.data(), text.size()) : 0;
  }
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

Result<> ConsoleFollower::Run(StreamSocket& client, int stop_fd) {
  for (;;) {
    for (std::string text = Read(); !text.empty(); text = Read()) {
      const std::string printable = Printable(text);
      if (!printable.empty())
        client.Queue(guest::EncodeFrame(guest::FrameType::kStdout, printable));
      DORMOUSE_TRY(client.FlushAll(std::chrono::steady_clock::now() + kSendTime, stop_fd));
    }
    pollfd polled[2] = {{client.fd(), POLLIN, 0}, {stop_fd, POLLIN, 0}};
    if (::poll(polled, 2, kLookEveryMs) < 0 && errno != EINTR) return FailErrno("poll");
    if (polled[1].revents != 0) return Fail(ErrorCode::kCancelled, "the agent is stopping");
    if (polled[0].revents == 0) continue;
    const Result<bool> there = client.Fill();
    if (!there || !*there) return {};
    return Fail(ErrorCode::kInvalid, "bytes where none are expected");
  }
}

}  // namespace dormouse
