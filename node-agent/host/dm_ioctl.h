// One device-mapper ioctl: its header, its variable part, and the buffer that grows until it fits
// (include/uapi/linux/dm-ioctl.h). Internal to host/.
//
// Not thread-safe; one request is one object.
#pragma once

#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/device_number.h"
#include "src/common/base/result.h"

namespace dormouse::host {

/// One line of a table: "0 409600 snapshot 7:1 7:2 PO 8".
struct DmTarget {
  uint64_t start_sector = 0;
  uint64_t sectors = 0;
  std::string type;
  std::string parameters;
  bool operator==(const DmTarget&) const = default;
};

struct DmListEntry {
  std::string name;
  DeviceNumber number;
};

class DmRequest {
 public:
  /// `name` and `uuid` may be empty where the command takes none.
  DmRequest(std::string_view name, std::string_view uuid, uint32_t flags);

  /// Adds targets for DM_TABLE_LOAD.
  void SetTargets(const std::vector<DmTarget>& targets);
  /// Tells udev's rules to leave the device alone; for DM_DEV_SUSPEND (resume) and DM_DEV_REMOVE.
  void DisableUdevRules();

  /// Issues `command`; errno's failure, with `what` in front.
  Result<> Issue(int control, unsigned long command, std::string_view what);

  [[nodiscard]] const dm_ioctl& header() const;
  /// What DM_TABLE_STATUS answered.
  Result<std::vector<DmTarget>> Targets() const;
  /// What DM_LIST_DEVICES answered.
  Result<std::vector<DmListEntry>> List() const;

 private:
  dm_ioctl* mutable_header();
  std::vector<uint64_t> buffer_;  ///< of uint64_t, so that it is aligned
};

}  // namespace dormouse::host
