// Device nodes, made from major:minor where no udev does.
//
// Thread-safe for different paths. The caller has CAP_MKNOD.
#pragma once

#include <sys/types.h>

#include <string>

#include "node-agent/host/device_number.h"
#include "src/common/base/result.h"

namespace dormouse::host {

enum class NodeKind { kBlock, kCharacter };

/// A node of mode 0600 owned by `owner` at `path`, whose directory is made. A node of another
/// device (or any file) there is replaced in one step; the same device is success.
Result<> MakeDeviceNode(const std::string& path, NodeKind kind, DeviceNumber number, uid_t owner);

}  // namespace dormouse::host
