// The agent as a whole: what main does once the command line is read.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "node-agent/host/dm.h"
#include "node-agent/host/loop.h"
#include "node-agent/options.h"
#include "src/common/base/result.h"

namespace dormouse {

/// The part of a node that a machine without device-mapper cannot give: benchmarks on such a
/// machine stand in for it (tests/fakes), everything else of the agent being the same.
struct Hardware {
  std::function<Result<std::unique_ptr<host::DeviceMapper>>(const std::string& node_directory)>
      device_mapper;
  std::function<Result<std::unique_ptr<host::LoopDevices>>(const std::string& node_directory)>
      loop_devices;
  bool cgroup_controllers = true;  ///< memory and pids are limited
  bool kvm = true;                 ///< VMMs need /dev/kvm

  /// The kernel's own.
  static Hardware Node();
};

/// Until SIGTERM or SIGINT (success; VMs go on), or until it cannot begin. Called once, from main's
/// thread, before any other thread exists but those of kube::InitialiseProcess.
Result<> RunAgent(const AgentFlags& flags, const Hardware& hardware);

}  // namespace dormouse
