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

Result<> GiveTo(uid_t owner, const host::Directory& drop) {
  if (::fchown(drop.fd(), owner, owner) != 0) return FailErrno("chown " + drop.path());
  return {};
}

Result<HandedOver> Take(const vmm::ApiClient& api, const VmmDrop& drop, Handover handover,
                        const std::string& generation) {
  DORMOUSE_TRY(GiveTo(drop.vmm, drop.directory));
  const auto written = handover == Handover::kWithMemory
                           ? api.Snapshot(drop.inner)
                           : api.SnapshotStateOnly(drop.inner, drop.directory);
  DORMOUSE_TRY(GiveTo(0, drop.directory));
  DORMOUSE_TRY(written);
  const auto take = [&](const char* name, size_t max_bytes) -> Result<std::string> {
    DORMOUSE_ASSIGN(std::string text,
                    host::ReadBeneath(drop.directory, name, {drop.vmm, max_bytes}));
    DORMOUSE_TRY(WriteFileAtomically(generation + "/" + name, text));
    return text;
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
bool MayHaveBeenCutShort(const Error& error, const host::Directory& drop) {
  struct statvfs space {};
  return error.code() == ErrorCode::kCorrupt && ::fstatvfs(drop.fd(), &space) == 0 &&
         space.f_bavail * space.f_frsize < kRoomForState;
}

void EmptyAfterwards(const host::Directory& drop) {
  if (auto emptied = EmptyDirectory(drop.path()); !emptied) {
    log::Warning("what a VMM wrote stays until the next capture",
                 {{"drop", drop.path()}, {"error", emptied.error().message()}});
  }
}

}  // namespace

Result<HandedOver> TakeSnapshot(const vmm::ApiClient& api, const VmmDrop& drop, Handover handover,
                                const std::string& generation) {
  DORMOUSE_TRY(EmptyDirectory(drop.directory.path()));
  auto handed = Take(api, drop, handover, generation);
  if (handed) return handed;
  Error error = handed.error();
  if (MayHaveBeenCutShort(error, drop.directory)) {
    error = Error(ErrorCode::kNoSpace, "No space left for what the VMM writes to " +
                                           drop.directory.path() + ": " + error.message());
  }
  EmptyAfterwards(drop.directory);
  return Fail(std::move(error));
}

Result<> TakeMemory(const VmmDrop& drop, uint64_t bytes, const std::string& to) {
  DORMOUSE_TRY(RemoveFile(to));
  const auto copied =
      host::CopyBeneath(drop.directory, kStockMemoryFile, {drop.vmm, bytes, bytes}, to);
  EmptyAfterwards(drop.directory);
  return copied.map([](bool) {});
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
