// A process that has guest RAM as the VMM has it, and stands still. For tests only.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/host/test_support.h"
#include "node-agent/memory/ram_map.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::memory {

class FakeVmm {
 public:
  using Guest = std::function<void(const std::vector<char*>& ranges)>;
  enum class Layout {
    kApart,    ///< each range in a mapping of its own
    kRising,   ///< one after the other, in one mapping where they are anonymous
    kFalling,  ///< so, and the first highest, as the kernel gives out addresses
  };

  /// Maps `ranges` in a child, from `file` one after the other or anonymous, lets `guest` write to
  /// them there, and returns when the child stands still. Aborts where it cannot.
  FakeVmm(const std::vector<GuestRange>& ranges, const std::optional<std::string>& file,
          const Guest& guest, Layout layout = Layout::kApart) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) std::abort();
    const UniqueFd in(ready[0]);
    UniqueFd out(ready[1]);
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      guest(MapAll(ranges, file, layout));
      if (::write(out.get(), "r", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    out.Reset();
    char byte = 0;
    if (::read(in.get(), &byte, 1) != 1) std::abort();
    process_ = *host::Process::Open(*host::IdentityOf(pid_), host::OwnJail());
  }
  ~FakeVmm() { Kill(); }
  FakeVmm(const FakeVmm&) = delete;
  FakeVmm& operator=(const FakeVmm&) = delete;

  /// Of use after Kill, too: as one that has exited.
  [[nodiscard]] const host::Process& process() const { return *process_; }
  void Kill() {
    if (pid_ <= 0) return;
    (void)::kill(pid_, SIGKILL);
    (void)::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

  /// All of its RAM, read densely: what the VMM's own snapshot would write.
  [[nodiscard]] std::string DenseImage(const RamMap& map) const {
    const UniqueFd memory(::open(process_->ProcFile("mem").c_str(), O_RDONLY | O_CLOEXEC));
    std::string image(map.bytes, '\0');
    for (const RamSegment& segment : map.segments) {
      for (uint64_t done = 0; done < segment.length;) {
        const ssize_t got =
            ::pread(memory.get(), image.data() + segment.file_offset + done, segment.length - done,
                    static_cast<off_t>(segment.address + done));
        if (got <= 0) std::abort();
        done += static_cast<uint64_t>(got);
      }
    }
    return image;
  }

 private:
  // A page of nothing on either side, so that the kernel merges it with no neighbour.
  static char* Reserve(uint64_t length) {
    void* whole = ::mmap(nullptr, length + 2 * kPageBytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED) ::_exit(1);
    return static_cast<char*>(whole) + kPageBytes;
  }

  static std::vector<char*> MapAll(const std::vector<GuestRange>& ranges,
                                   const std::optional<std::string>& file, Layout layout) {
    int fd = -1;
    if (file) fd = ::open(file->c_str(), O_RDONLY | O_CLOEXEC);
    if (file && fd < 0) ::_exit(1);
    char* together = layout == Layout::kApart ? nullptr : Reserve(TotalBytes(ranges));
    char* end = layout == Layout::kApart ? nullptr : together + TotalBytes(ranges);
    std::vector<char*> bases;
    off_t offset = 0;
    for (const GuestRange& range : ranges) {
      char* base = layout == Layout::kApart    ? Reserve(range.length)
                   : layout == Layout::kRising ? together
                                               : end - range.length;
      if (layout == Layout::kRising) together += range.length;
      if (layout == Layout::kFalling) end = base;
      const int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0);
      if (::mmap(base, range.length, PROT_READ | PROT_WRITE, flags, fd, offset) == MAP_FAILED) {
        ::_exit(1);
      }
      if (fd >= 0) offset += static_cast<off_t>(range.length);
      bases.push_back(base);
    }
    if (fd >= 0) ::close(fd);
    return bases;
  }

  pid_t pid_ = 0;
  std::optional<host::Process> process_;
};

}  // namespace dormouse::memory
