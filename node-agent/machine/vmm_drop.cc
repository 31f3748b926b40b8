#include "node-agent/machine/vmm_drop.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "node-agent/record/generation_files.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {
namespace {

// More than config.json and state.json take together.
constexpr uint64_t kRoomForState = uint64_t{1} << 20;

Result<> Clear(const std::string& drop) {
  DORMOUSE_ASSIGN(const auto left, ListDirectory(drop));
  for (const std::string& name : left) DORMOUSE_TRY(RemoveTree(drop + "/" + name));
  return {};
}

// A copy of what the VMM wrote, of bounded size.
Result<std::string> TakeOver(const std::string& from, const std::string& to, size_t max_bytes) {
  const UniqueFd file(::open(from.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0) return FailErrno("open " + from);
  if (!S_ISREG(info.st_mode)) return Fail(ErrorCode::kCorrupt, from + " is no regular file");
  DORMOUSE_ASSIGN(std::string text,
                  ReadFile("/proc/self/fd/" + std::to_string(file.get()), max_bytes));
  DORMOUSE_TRY(WriteFileAtomically(to, text));
  return text;
}

Result<HandedOver> Take(const vmm::ApiClient& api, const VmmDrop& drop, Handover handover,
                        const std::string& generation) {
  if (::chown(drop.directory.c_str(), drop.vmm, drop.vmm) != 0)
    return FailErrno("chown " + drop.directory);
  const auto written = handover == Handover::kWithMemory
                           ? api.Snapshot(drop.inner)
                           : api.SnapshotStateOnly(drop.inner, drop.directory);
  DORMOUSE_TRY(TakeBack(drop.directory));
  DORMOUSE_TRY(written);
  const auto take = [&](const char* name, size_t max_bytes) {
    return TakeOver(drop.directory + "/" + name, generation + "/" + name, max_bytes);
  };
  HandedOver handed;
  DORMOUSE_ASSIGN(handed.config, take(kConfigFile, vmm::kMaxConfigBytes));
  DORMOUSE_ASSIGN(const std::string state, take(kStateFile, vmm::kMaxStateBytes));
  // Whether or not anybody asks for it: config.json is whole.
  DORMOUSE_ASSIGN(handed.command_line, vmm::ReadCommandLine(handed.config));
  DORMOUSE_ASSIGN(handed.summary, vmm::ReadStateSummary(state));
  return handed;
}

// v53.0 writes each of the two in one go and does not look at how much was written (Vm::send,
// vmm/src/vm.rs): on a full disk a file may be cut short, and nobody say so.
bool MayHaveBeenCutShort(const Error& error, const std::string& drop) {
  struct statvfs space {};
  return error.code() == ErrorCode::kCorrupt && ::statvfs(drop.c_str(), &space) == 0 &&
         space.f_bavail * space.f_frsize < kRoomForState;
}

}  // namespace

Result<HandedOver> TakeSnapshot(const vmm::ApiClient& api, const VmmDrop& drop, Handover handover,
                                const std::string& generation) {
  DORMOUSE_TRY(Clear(drop.directory));
  auto handed = Take(api, drop, handover, generation);
  if (handed) return handed;
  Error error = handed.error();
  if (MayHaveBeenCutShort(error, drop.directory)) {
    error = Error(ErrorCode::kNoSpace, "No space left for what the VMM writes to " +
                                           drop.directory + ": " + error.message());
  }
  if (auto cleared = Clear(drop.directory); !cleared) {
    log::Warning("what a failed snapshot wrote stays until the next",
                 {{"drop", drop.directory}, {"error", cleared.error().message()}});
  }
  return Fail(std::move(error));
}

Result<> TakeBack(const std::string& drop) {
  if (::chown(drop.c_str(), 0, 0) != 0 && errno != ENOENT) return FailErrno("chown " + drop);
  return {};
}

std::string LeftMemory(const std::string& drop) {
  const std::string path = drop + "/" + kStockMemoryFile;
  struct stat info {};
  // Empty it is what keeps the VMM from writing its memory.
  return ::lstat(path.c_str(), &info) == 0 && info.st_size > 0 ? path : std::string();
}

}  // namespace dormouse
