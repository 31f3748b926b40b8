// Cells: VMMs that LinuxMachine launches before their sandboxes are known, and how one becomes a
// sandbox's. What could not be known then comes without a mount in its namespace, through
// directories that it sees from the start and can never write:
//
//   disk      a device node of its uid's alone, in CellDevices
//   memory    a hard link to the generation's file, in CellMemory: the same inode, so that all VMs
//             of one file share its pages
//   drop      CellDrop, root's but during a capture
//   network   the namespace that it was launched into becomes the sandbox's
//
// Its uid is told by the last four digits of its name, and free again when no directory has a name
// that ends so: they are removed last, and those on the state file system survive a boot as long as
// a record may name them.
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstdio>
#include <set>

#include "node-agent/host/device_node.h"
#include "node-agent/machine/inner_paths.h"
#include "node-agent/machine/machine_linux.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

// Above the uids of all slots that the largest address range has.
constexpr uid_t kFirstCellUid = 1U << 24;
constexpr size_t kUidDigits = 4;

}  // namespace

uid_t LinuxMachine::UidOfCell(const std::string& cell) const {
  return config_.vmm_uid_base + kFirstCellUid +
         static_cast<uid_t>(std::stoul(cell.substr(cell.size() - kUidDigits), nullptr, 16));
}

Result<std::string> LinuxMachine::NameCell() {
  std::set<std::string> taken;
  for (const std::string& directory : {config_.paths.VmDirectories(), config_.paths.CellFiles()}) {
    DORMOUSE_ASSIGN(const auto names, ListDirectory(directory));
    for (const std::string& name : names) {
      if (name.size() > kUidDigits) taken.insert(name.substr(name.size() - kUidDigits));
    }
  }
  uint32_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) != static_cast<ssize_t>(sizeof(number)))
    return FailErrno("getrandom");
  for (int tries = 0; tries <= UINT16_MAX; ++tries) {
    char digits[sizeof("0123456789ab")];
    std::snprintf(digits, sizeof(digits), "%08x%04x", number, unsigned{++last_cell_});
    const std::string cell = digits;
    if (!taken.contains(cell.substr(cell.size() - kUidDigits))) return cell;
  }
  return Fail(ErrorCode::kInternal, "all uids of cells are taken");
}

Result<> LinuxMachine::MakeCellDirectories(const std::string& cell) {
  // Root's, and never writable to the VMM: what it sees of them is what we put there.
  DORMOUSE_TRY(MakeDirectories(config_.paths.CellFiles(cell), 0700));
  DORMOUSE_TRY(MakeDirectories(config_.paths.CellMemory(cell), 0755));
  DORMOUSE_TRY(MakeDirectories(config_.paths.CellDrop(cell), 0700));
  DORMOUSE_TRY(MakeDirectories(config_.paths.CellDevices(cell), 0755));
  return MakeVmDirectory(cell, UidOfCell(cell));
}

Result<ReadyVmm> LinuxMachine::MakeCell(const std::string& cell) {
  DORMOUSE_TRY(MakeCellDirectories(cell));
  DORMOUSE_TRY(cgroups_.Create(cell, LimitsOf(0)));
  DORMOUSE_ASSIGN(net::FurnishedNet net, nets_.MakeAhead());
  Launching launching{cell, 0, UidOfCell(cell), vmm_artifact_, kernel_, initramfs_, {}};
  launching.spec.netns = net.netns.get();
  launching.spec.binds = {
      {config_.paths.CellDrop(cell), kInnerDrop, /*writable=*/true},
      {config_.paths.CellMemory(cell), kCellMemory},
      {config_.paths.CellDevices(cell), kCellDevices, false, false, /*devices=*/true}};
  DORMOUSE_ASSIGN(const auto launched, LaunchVmm(std::move(launching)));
  DORMOUSE_ASSIGN(auto process, host::Process::Open(launched.identity));
  DORMOUSE_TRY(AwaitVmm(vmm::ApiClient(config_.paths.ApiSocket(cell, 0)), process.pidfd()));
  return ReadyVmm{std::move(process), std::move(net)};
}

Result<> LinuxMachine::RemoveCell(const std::string& cell) {
  DORMOUSE_TRY(Kill(cell));
  return RemoveVmm(cell);
}

std::shared_ptr<const void> LinuxMachine::Starting() {
  struct Work {
    Work(VmmPool* vmm_pool, net::NetPool* net_pool) : vmms(vmm_pool), nets(net_pool) {}
    VmmPool::Work vmms;
    net::NetPool::Work nets;
  };
  return std::make_shared<const Work>(&cells_, &nets_.pool());
}

void LinuxMachine::TakeCell(const api::SandboxSpec& spec, Record* record) {
  // One that runs on what the node has now, with the network that most want.
  if (record->vmm_digest != vmm_artifact_.sha256 || record->kernel_digest != kernel_.sha256 ||
      record->initramfs_digest != initramfs_.sha256 ||
      !nets_.IsDefault(NetSpec(spec, *record).policy)) {
    return;
  }
  if (const auto id = cells_.Take()) record->cell = Cell{*id, record->incarnation};
}

void LinuxMachine::DropCell(Record* record) {
  if (!record->cell) return;
  if (auto removed = RemoveCell(record->cell->id); !removed) {
    log::Warning("a cell is left to the next sweep",
                 {{"cell", record->cell->id}, {"error", removed.error().message()}});
  }
  record->cell.reset();
}

std::optional<Cell> LinuxMachine::CellInUse(const api::SandboxUid& uid) const {
  char target[64];
  const ssize_t length = ::readlink(config_.paths.VmLink(uid).c_str(), target, sizeof(target));
  if (length <= 0) return std::nullopt;
  const std::string_view cell(target, static_cast<size_t>(length));
  if (!IsCellId(cell)) return std::nullopt;
  return Cell{std::string(cell), 0};
}

Result<> LinuxMachine::LinkCell(const Record& record) {
  const auto linked = CellInUse(record.uid);
  if (linked && linked->id == record.cell->id) return {};
  const std::string link = config_.paths.VmLink(record.uid);
  DORMOUSE_TRY(RemoveFile(link));
  if (::symlink(record.cell->id.c_str(), link.c_str()) != 0) return FailErrno("symlink " + link);
  return {};
}

Result<> LinuxMachine::Adopt(const host::ProcessIdentity& process, Record* record) {
  const std::string& cell = record->cell->id;
  DORMOUSE_ASSIGN(const auto disk, dm_.Find(host::DmName::RootOf(record->uid.short_id())));
  DORMOUSE_TRY(host::MakeDeviceNode(config_.paths.CellDevices(cell) + "/" + kCellDisk,
                                    host::NodeKind::kBlock, disk.number, UidOf(*record)));
  if (record->sleeping) {
    const std::string memory =
        GenerationOf(config_.paths, *record, *record->sleeping) + "/" + kMemoryFile;
    const std::string link = config_.paths.CellMemory(cell) + "/" + kMemoryFile;
    if (::link(memory.c_str(), link.c_str()) != 0) return FailErrno("link " + memory);
  }
  record->vmm = ProcessHint{process.pid, process.start_time, process.boot_id};
  return {};
}

}  // namespace dormouse
