// Snapshot block devices made by the kernel's device-mapper
// (Documentation/admin-guide/device-mapper/{snapshot,linear,zero}.rst), driven by ioctls on the dm
// control device (include/uapi/linux/dm-ioctl.h): no udev, no dmsetup, no cookie to wait for.
// udev's rules are told to leave our devices alone, as a hostile guest writes what they would
// probe.
//
// Thread-safe: every call is one ioctl, or a create that undoes itself when a later ioctl of it
// fails. Names are ours ("dormouse-<id>-root"), so a leak can be listed by prefix.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/device_number.h"
#include "src/common/base/result.h"

namespace dormouse::host {

inline constexpr std::string_view kDmPrefix = "dormouse-";

/// A name of ours: kDmPrefix, then [a-z0-9-], at most 127 characters. It is also the device's
/// DM_UUID
/// ("DORMOUSE-<name>"), by which blkid, LVM and multipath know to leave it alone.
class DmName {
 public:
  static Result<DmName> Parse(std::string_view text);
  /// "dormouse-<short_id>-root"; aborts when `short_id` is not lower-case hex.
  static DmName RootOf(std::string_view short_id);
  /// "dormouse-base-<first 12 of digest>-<sectors>".
  static DmName OriginOf(std::string_view digest_hex, uint64_t sectors);

  [[nodiscard]] const std::string& str() const { return name_; }
  auto operator<=>(const DmName&) const = default;

 private:
  explicit DmName(std::string name) : name_(std::move(name)) {}
  std::string name_;
};

/// A share of the origin's blocks plus a private store for what differs. Persistent, with overflow
/// reported ("PO"): the exceptions are in the store, and the same store brings the same disk back.
struct SnapshotTable {
  DeviceNumber origin;   ///< opened by the kernel; read-only; may serve any number of snapshots
  DeviceNumber store;    ///< holds the differing chunks; full or failing => invalid for good
  uint64_t sectors = 0;  ///< of 512 bytes; exactly the origin's
  uint32_t chunk_sectors = 8;  ///< a power of two; must stay what the store was made with
};

/// A read-only origin larger than its base: the base, then zeros.
struct LinearZeroTable {
  DeviceNumber base;
  uint64_t base_sectors = 0;
  uint64_t sectors = 0;  ///< > base_sectors
};

struct SnapshotStatus {
  enum class State {
    kValid,
    kInvalid,   ///< a write to the store failed, or it was full: this disk is lost (invariant 12)
    kOverflow,  ///< the store is full; becomes kInvalid when the device is made anew
    kMergeFailed,
    kUnknown,  ///< the kernel says something else ("Unknown")
  };
  State state = State::kUnknown;
  uint64_t used_sectors = 0;   ///< metadata included; 0 unless kValid
  uint64_t total_sectors = 0;  ///< of the store
  uint64_t metadata_sectors = 0;
};

/// The parameters of a snapshot's status line ("16/10240 16", "Invalid", "Overflow", "Merge
/// failed"). kInvalid for anything else. Pure.
Result<SnapshotStatus> ParseSnapshotStatus(std::string_view parameters);

struct DmDevice {
  std::string name;
  DeviceNumber number;
  uint32_t open_count = 0;  ///< openers of the device itself, dm devices above it included
  bool suspended = false;
  bool active = false;  ///< has a live table; false = a create that was cut short
};

class DeviceMapper {
 public:
  virtual ~DeviceMapper() = default;

  /// Creates, loads and resumes in one go. A device of that name with the same table is success;
  /// with another table kAlreadyExists. One without a live table (a crash between the ioctls) is
  /// completed. kBusy when the store is in use by another snapshot; kNotFound when origin or store
  /// is gone.
  virtual Result<DeviceNumber> CreateSnapshot(const DmName& name, const SnapshotTable& table) = 0;
  virtual Result<DeviceNumber> CreateLinearZero(const DmName& name,
                                                const LinearZeroTable& table) = 0;
  /// Success when it is not there. kBusy while it is held: ask again when the holder has gone.
  virtual Result<> Remove(const DmName& name) = 0;

  /// Flushes and holds back I/O (no file system is frozen: there is none of ours above).
  /// Idempotent.
  virtual Result<> Suspend(const DmName& name) = 0;
  virtual Result<> Resume(const DmName& name) = 0;

  /// kNotFound when there is no such device.
  virtual Result<DmDevice> Find(const DmName& name) = 0;
  virtual Result<SnapshotStatus> Status(const DmName& name) = 0;
  /// Devices whose name begins with `prefix`, sorted by name.
  virtual Result<std::vector<DmDevice>> List(std::string_view prefix = kDmPrefix) = 0;

  /// A device node at `path`, mode 0600, owned by `owner`, on a file system mounted without nodev.
  /// A stale node of another device is replaced; the same one is success.
  virtual Result<> MakeNode(const DmName& name, const std::string& path, uid_t owner) = 0;
};

/// The kernel's, or kUnsupported where it has no device-mapper. Needs CAP_SYS_ADMIN. A control node
/// is made in `node_directory` (mounted without nodev) where /dev/mapper/control is missing.
Result<std::unique_ptr<DeviceMapper>> OpenDeviceMapper(const std::string& node_directory);

}  // namespace dormouse::host
