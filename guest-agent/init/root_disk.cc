#include "guest-agent/init/root_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace dormouse::guest {
namespace {

constexpr char kNewRoot[] = "/newroot";

Result<void> Mount(const char* source, const std::string& target, const char* type,
                   unsigned long flags, const char* data = nullptr) {
  if (::mkdir(target.c_str(), 0755) != 0 && errno != EEXIST && errno != EROFS) {
    return FailErrno("make " + target);
  }
  if (::mount(source, target.c_str(), type, flags, data) != 0 && errno != EBUSY) {
    return FailErrno(std::string("mount ") + type + " at " + target);
  }
  return {};
}

/// Deletes what is on this file system below `fd`, as it is never seen again.
void DeleteTree(int fd, dev_t device) {
  DIR* dir = ::fdopendir(fd);
  if (dir == nullptr) return;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name(entry->d_name);
    struct stat info {};
    if (name == "." || name == ".." ||
        ::fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || info.st_dev != device) {
      continue;
    }
    if (S_ISDIR(info.st_mode)) {
      const int child =
          ::openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
      if (child >= 0) DeleteTree(child, device);
      (void)::unlinkat(fd, entry->d_name, AT_REMOVEDIR);
    } else {
      (void)::unlinkat(fd, entry->d_name, 0);
    }
  }
  ::closedir(dir);
}

/// A disk appears while its driver probes; there is no udev to tell.
Result<UniqueFd> OpenWhenThere(const std::string& path, std::chrono::milliseconds wait) {
  const auto deadline = std::chrono::steady_clock::now() + wait;
  for (;;) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd) return fd;
    const int errnum = errno;
    if ((errnum != ENOENT && errnum != ENXIO) || std::chrono::steady_clock::now() > deadline) {
      return FailErrno("open root disk " + path, errnum);
    }
    const timespec pause{0, 2'000'000};
    (void)::nanosleep(&pause, nullptr);
  }
}

Result<std::string> DetectType(const std::string& device, int fd) {
  std::string head(kSuperblockBytes, '\0');
  if (::pread(fd, head.data(), head.size(), 0) < 4096) return FailErrno("read " + device);
  std::string type = DetectFileSystem(head);
  if (type.empty()) {
    return Fail(ErrorCode::kUnsupported, device + " holds none of ext4, xfs, btrfs");
  }
  return type;
}

}  // namespace

Result<void> MountKernelFileSystems() {
  DORMOUSE_TRY(Mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755"));
  DORMOUSE_TRY(Mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC));
  return Mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

std::string DetectFileSystem(std::string_view first_bytes) {
  // ext2/3/4: magic 0xEF53 at 0x38 of the superblock at 1024. btrfs: its superblock is at 64 KiB.
  if (first_bytes.substr(0, 4) == "XFSB") return "xfs";
  if (first_bytes.size() >= kSuperblockBytes && first_bytes.substr(0x10040, 8) == "_BHRfS_M") {
    return "btrfs";
  }
  if (first_bytes.size() >= 1082 && first_bytes.substr(1080, 2) == "\x53\xef") return "ext4";
  return {};
}

Result<std::string> MountRoot(const KernelArgs& args, ModuleSet& modules,
                              std::chrono::milliseconds wait) {
  std::string type = args.root_fstype;
  {
    DORMOUSE_ASSIGN(const UniqueFd fd, OpenWhenThere(args.root, wait));
    if (type.empty()) {
      DORMOUSE_ASSIGN(type, DetectType(args.root, fd.get()));
    }
  }
  DORMOUSE_TRY(modules.Load("fs-" + type));
  if (::mkdir(kNewRoot, 0755) != 0 && errno != EEXIST) return FailErrno("make /newroot");
  const unsigned long flags = args.read_only ? MS_RDONLY : 0;
  if (::mount(args.root.c_str(), kNewRoot, type.c_str(), flags, args.root_flags.c_str()) != 0) {
    return FailErrno("mount root disk " + args.root + " as " + type);
  }
  return type;
}

Result<void> SwitchToRoot() {
  const int old_root = ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat old_info {};
  if (old_root < 0 || ::fstat(old_root, &old_info) != 0) return FailErrno("open the initramfs");
  for (const char* name : {"/dev", "/proc", "/sys"}) {
    const std::string target = std::string(kNewRoot) + name;
    if (::mkdir(target.c_str(), 0755) != 0 && errno != EEXIST) return FailErrno("make " + target);
    if (::mount(name, target.c_str(), nullptr, MS_MOVE, nullptr) != 0) {
      return FailErrno(std::string("move ") + name);
    }
  }
  if (::chdir(kNewRoot) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 ||
      ::chroot(".") != 0 || ::chdir("/") != 0) {
    return FailErrno("switch to the root disk");
  }
  DeleteTree(old_root, old_info.st_dev);
  DORMOUSE_TRY(Mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"));
  DORMOUSE_TRY(Mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
                     "mode=0620,gid=5,ptmxmode=0666"));
  DORMOUSE_TRY(Mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"));
  DORMOUSE_TRY(Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC));
  return {};
}

}  // namespace dormouse::guest
