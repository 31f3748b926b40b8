#include "node-agent/node/node_facts.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {
namespace {

// Not in linux/magic.h of the kernels that we build with.
constexpr uint64_t kXfsMagic = 0x58465342;
constexpr uint64_t kZfsMagic = 0x2fc12fc1;
constexpr size_t kLongestModel = 256;  // the schema's
constexpr int kKvmApiVersion = 12;     // Documentation/virt/kvm/api.rst, 4.1

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// The value of the first line "<key> : <value>".
std::string_view ValueOf(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || Trimmed(line.substr(0, colon)) != key) continue;
    return Trimmed(line.substr(colon + 1));
  }
  return {};
}

bool SpeaksKvm() {
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  return kvm && ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0) == kKvmApiVersion;
}

/// Tries a reflink of one block in `directory`.
Result<bool> SharesBlocks(const std::string& directory) {
  const std::string from = directory + "/.reflink-probe";
  const std::string to = from + "-clone";
  DORMOUSE_TRY(RemoveFile(to));
  DORMOUSE_TRY(WriteFileAtomically(from, std::string(4096, 'x')));
  const Result<> cloned = host::Reflink(from, to);
  (void)RemoveFile(to);
  (void)RemoveFile(from);
  if (cloned) return true;
  if (cloned.error().code() == ErrorCode::kUnsupported) return false;
  return Fail(cloned.error().Wrap("try a reflink in " + directory));
}

}  // namespace

std::string CpuModelOf(std::string_view cpuinfo) {
  std::string_view model;
  // x86, then what ARM, POWER and RISC-V call it.
  for (const std::string_view key : {"model name", "Model", "cpu", "uarch", "CPU part"}) {
    model = ValueOf(cpuinfo, key);
    if (!model.empty()) break;
  }
  if (model.empty()) return "unknown";
  std::string printable(model.substr(0, kLongestModel));
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  return printable;
}

Result<int64_t> MemTotalOf(std::string_view meminfo) {
  const std::string_view value = ValueOf(meminfo, "MemTotal");
  int64_t kibibytes = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), kibibytes);
  if (error != std::errc() || !std::string_view(end, value.data() + value.size()).ends_with("kB")) {
    return Fail(ErrorCode::kInvalid, "/proc/meminfo has no MemTotal");
  }
  return kibibytes * 1024;
}

std::string FileSystemName(uint64_t magic) {
  switch (magic) {
    case kXfsMagic:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case EXT4_SUPER_MAGIC:
      return "ext4";  // ext2 and ext3 share the number, and this driver
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlay";
    case F2FS_SUPER_MAGIC:
      return "f2fs";
    case NFS_SUPER_MAGIC:
      return "nfs";
    case kZfsMagic:
      return "zfs";
    default:
      break;
  }
  char hex[17];
  const auto [end, error] = std::to_chars(hex, hex + sizeof(hex), magic, 16);
  return "0x" + std::string(hex, error == std::errc() ? end : hex);
}

Result<NodeFacts> ReadNodeFacts(const std::string& state_dir) {
  NodeFacts facts;
  facts.cpus = static_cast<int>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  DORMOUSE_ASSIGN(const std::string meminfo, ReadFile("/proc/meminfo", 64 * 1024));
  DORMOUSE_ASSIGN(facts.memory_bytes, MemTotalOf(meminfo));
  // One processor's block suffices, and a large machine's file is large.
  const UniqueFd cpuinfo(::open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC));
  char head[4096];
  const ssize_t got = cpuinfo ? ::read(cpuinfo.get(), head, sizeof(head)) : 0;
  facts.cpu_model = CpuModelOf({head, got > 0 ? static_cast<size_t>(got) : 0});
  utsname name{};
  if (::uname(&name) == 0) facts.kernel_version = name.release;
  struct statfs file_system {};
  if (::statfs(state_dir.c_str(), &file_system) != 0) return FailErrno("statfs " + state_dir);
  facts.file_system = FileSystemName(static_cast<uint64_t>(file_system.f_type));
  DORMOUSE_ASSIGN(facts.reflink, SharesBlocks(state_dir));
  facts.kvm = SpeaksKvm();
  return facts;
}

}  // namespace dormouse
