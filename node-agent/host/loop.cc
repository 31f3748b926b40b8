#include "node-agent/host/loop.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "node-agent/host/device_node.h"
#include "node-agent/host/sparse_files.h"
#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {
namespace {

constexpr char kSysBlock[] = "/sys/block";
// Every EBUSY of LOOP_CONFIGURE means that another caller took the number we were told is free.
constexpr int kMostLostRaces = 1000;

struct FileIdentity {
  dev_t device;
  ino_t inode;
};

Result<FileIdentity> IdentityOfFile(const std::string& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return FailErrno("stat " + file);
  return FileIdentity{status.st_dev, status.st_ino};
}

std::string SysPath(int index) {
  return std::string(kSysBlock) + "/loop" + std::to_string(index);
}

class KernelLoopDevices : public LoopDevices {
 public:
  KernelLoopDevices(UniqueFd control, std::string node_directory)
      : control_(std::move(control)), node_directory_(std::move(node_directory)) {}

  Result<LoopDevice> Attach(const std::string& file, const LoopOptions& options) override {
    if (!options.tag.starts_with(kLoopPrefix) || options.tag.size() >= LO_NAME_SIZE) {
      return Fail(ErrorCode::kInvalid, "loop tag '" + options.tag + "' is not one of ours");
    }
    DORMOUSE_ASSIGN(const UniqueFd backing, OpenFile(file, options.read_only ? O_RDONLY : O_RDWR));
    // Held by the loop from LOOP_CONFIGURE on: it refers to this open file, not to a copy.
    const bool locked = ::flock(backing.get(), LOCK_EX | LOCK_NB) == 0;
    DORMOUSE_ASSIGN(const auto existing, FindByFile(file));
    if (existing) {
      if (existing->tag == options.tag && existing->read_only == options.read_only)
        return *existing;
      return Fail(ErrorCode::kAlreadyExists, "attach " + file + ": loop" +
                                                 std::to_string(existing->index) + " (" +
                                                 existing->tag + ") is over it already");
    }
    if (!locked)
      return Fail(ErrorCode::kBusy, "attach " + file + ": it is locked by somebody else");
    return Configure(file, backing.get(), options);
  }

  Result<std::optional<LoopDevice>> FindByFile(const std::string& file) override {
    DORMOUSE_ASSIGN(const auto identity, IdentityOfFile(file));
    return FindKnown([&](const LoopDevice& loop) {
      return loop.file_device == identity.device && loop.file_inode == identity.inode;
    });
  }

  Result<std::optional<LoopDevice>> FindByTag(std::string_view tag) override {
    return FindKnown([&](const LoopDevice& loop) { return loop.tag == tag; });
  }

  Result<> Detach(const LoopDevice& loop) override {
    const std::unique_lock lock(no_opener_of_ours_);
    const std::string what = "detach loop" + std::to_string(loop.index) + " (" + loop.tag + ")";
    const auto is_same = [&](const std::optional<LoopDevice>& now) {
      return now && now->file_device == loop.file_device && now->file_inode == loop.file_inode;
    };
    DORMOUSE_ASSIGN(const auto before, Status(loop.index));
    if (!is_same(before)) return {};
    DORMOUSE_ASSIGN(const int holders, Holders(loop));
    if (holders > 0) return Fail(ErrorCode::kBusy, what + ": a device stands on it");
    {
      DORMOUSE_ASSIGN(const UniqueFd device, OpenNode(loop.index));
      if (::ioctl(device.get(), LOOP_CLR_FD, 0) != 0 && errno != ENXIO) return FailErrno(what);
    }
    // With another opener (udev's blkid) the kernel detaches when that one closes: not gone yet.
    DORMOUSE_ASSIGN(const auto after, Status(loop.index));
    if (is_same(after)) return Fail(ErrorCode::kBusy, what + ": it is open");
    const std::lock_guard known_lock(known_mutex_);
    if (known_) known_->erase(loop.index);
    return {};
  }

  Result<int> Holders(const LoopDevice& loop) override {
    DORMOUSE_ASSIGN(const auto holders, ListDirectory(SysPath(loop.index) + "/holders"));
    return static_cast<int>(holders.size());
  }

  Result<std::vector<LoopDevice>> List(std::string_view prefix) override {
    const std::shared_lock lock(no_opener_of_ours_);
    DORMOUSE_ASSIGN(auto loops, All());
    std::erase_if(loops, [&](const auto& loop) { return !loop.tag.starts_with(prefix); });
    return loops;
  }

 private:
  // Looks at all loops of the machine once, and then only at those that may be it: each look opens
  // a device, and a node has as many as sandboxes.
  template <typename IsIt>
  Result<std::optional<LoopDevice>> FindKnown(const IsIt& is_it) {
    const std::shared_lock lock(no_opener_of_ours_);
    const std::lock_guard known_lock(known_mutex_);
    if (!known_) {
      DORMOUSE_ASSIGN(const auto all, All());
      known_.emplace();
      for (const LoopDevice& loop : all) {
        if (loop.tag.starts_with(kLoopPrefix)) known_->emplace(loop.index, loop);
      }
    }
    for (auto it = known_->begin(); it != known_->end();) {
      if (!is_it(it->second)) {
        ++it;
        continue;
      }
      DORMOUSE_ASSIGN(const auto now, Status(it->first));
      if (now && is_it(*now)) return now;
      it = known_->erase(it);
    }
    return std::nullopt;
  }

  Result<LoopDevice> Configure(const std::string& file, int backing, const LoopOptions& options) {
    const std::shared_lock lock(no_opener_of_ours_);
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing);
    config.block_size = kSectorBytes;
    options.tag.copy(reinterpret_cast<char*>(config.info.lo_file_name), LO_NAME_SIZE - 1);
    if (options.read_only) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
    if (options.direct_io) config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
    for (int attempt = 0; attempt < kMostLostRaces; ++attempt) {
      const int index = ::ioctl(control_.get(), LOOP_CTL_GET_FREE);
      if (index < 0) return FailErrno("attach " + file + ": free loop device");
      DORMOUSE_ASSIGN(const UniqueFd device, OpenNode(index));
      if (::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) {
        DORMOUSE_ASSIGN(const auto loop, StatusOf(device.get(), index));
        if (loop) {
          const std::lock_guard known_lock(known_mutex_);
          if (known_) (*known_)[index] = *loop;
          return *loop;
        }
        return Fail(ErrorCode::kUnavailable,
                    "attach " + file + ": the loop was detached by somebody else");
      }
      if (errno != EBUSY) return FailErrno("attach " + file + ": LOOP_CONFIGURE");
    }
    return Fail(ErrorCode::kBusy,
                "attach " + file + ": every free loop device was taken by others");
  }

  Result<UniqueFd> OpenNode(int index) {
    DORMOUSE_ASSIGN(const std::string text, ReadFile(SysPath(index) + "/dev", 64));
    DeviceNumber number;
    const char* end = text.data() + text.size();
    const auto major = std::from_chars(text.data(), end, number.major);
    if (major.ec != std::errc() || major.ptr == end ||
        std::from_chars(major.ptr + 1, end, number.minor).ec != std::errc()) {
      return Fail(ErrorCode::kInternal,
                  "loop" + std::to_string(index) + ": bad device number in sysfs");
    }
    const std::string node = node_directory_ + "/loop" + std::to_string(index);
    DORMOUSE_TRY(MakeDeviceNode(node, NodeKind::kBlock, number, 0));
    return OpenFile(node, O_RDWR);
  }

  // Nothing for a loop device without a file.
  Result<std::optional<LoopDevice>> Status(int index) {
    if (!PathExists(SysPath(index) + "/loop")) return std::nullopt;
    DORMOUSE_ASSIGN(const UniqueFd device, OpenNode(index));
    return StatusOf(device.get(), index);
  }

  static Result<std::optional<LoopDevice>> StatusOf(int device, int index) {
    loop_info64 info{};
    if (::ioctl(device, LOOP_GET_STATUS64, &info) != 0) {
      if (errno == ENXIO) return std::nullopt;
      return FailErrno("status of loop" + std::to_string(index));
    }
    struct stat node {};
    if (::fstat(device, &node) != 0) return FailErrno("stat loop" + std::to_string(index));
    LoopDevice loop;
    loop.index = index;
    loop.number = DeviceNumber::FromDev(node.st_rdev);
    const char* name = reinterpret_cast<const char*>(info.lo_file_name);
    loop.tag.assign(name, ::strnlen(name, LO_NAME_SIZE));
    // huge_encode_dev() of the kernel and the C library's dev_t agree in the 32 bits that are used.
    loop.file_device = info.lo_device;
    loop.file_inode = info.lo_inode;
    loop.read_only = (info.lo_flags & LO_FLAGS_READ_ONLY) != 0;
    loop.direct_io = (info.lo_flags & LO_FLAGS_DIRECT_IO) != 0;
    return loop;
  }

  // no_opener_of_ours_ is held.
  Result<std::vector<LoopDevice>> All() {
    DORMOUSE_ASSIGN(const auto names, ListDirectory(kSysBlock));
    std::vector<LoopDevice> loops;
    for (const auto& name : names) {
      int index = -1;
      if (!name.starts_with("loop") ||
          std::from_chars(name.data() + 4, name.data() + name.size(), index).ec != std::errc()) {
        continue;
      }
      DORMOUSE_ASSIGN(const auto loop, Status(index));
      if (loop) loops.push_back(*loop);
    }
    std::sort(loops.begin(), loops.end(),
              [](const auto& a, const auto& b) { return a.index < b.index; });
    return loops;
  }

  const UniqueFd control_;
  const std::string node_directory_;
  std::shared_mutex
      no_opener_of_ours_;   ///< exclusive while detaching, as an opener turns that into "later"
  std::mutex known_mutex_;  ///< taken last
  std::optional<std::map<int, LoopDevice>> known_;  ///< all of ours by index, or more
};

}  // namespace

Result<std::unique_ptr<LoopDevices>> OpenLoopDevices(const std::string& node_directory) {
  DORMOUSE_TRY(MakeDirectories(node_directory, 0700));
  UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) {
    const std::string node = node_directory + "/loop-control";
    DORMOUSE_TRY(MakeDeviceNode(node, NodeKind::kCharacter, {10, 237}, 0));  // LOOP_CTRL_MINOR
    DORMOUSE_ASSIGN(control, OpenFile(node, O_RDWR));
  }
  return std::make_unique<KernelLoopDevices>(std::move(control), node_directory);
}

}  // namespace dormouse::host
