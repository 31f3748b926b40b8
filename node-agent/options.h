// The agent's command line. Parsed once, at the start of main.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse {

struct AgentFlags {
  std::string kubeconfig;
  std::string node_name;
  std::string node_ip;
  std::string state_dir = "/var/lib/dormouse";
  std::string run_dir = "/run/dormouse";
  std::string images_dir = "/var/lib/dormouse/images";
  std::string vmm;  ///< empty: $CLOUD_HYPERVISOR, then PATH
  std::string kernel = "/usr/lib/dormouse/vmlinuz";
  std::string initramfs = "/usr/lib/dormouse/initramfs";
  std::string launcher;  ///< empty: dormouse-launch beside the agent's own program
  std::string guest_cmdline;
  std::string host_namespaces = "/proc/1/ns";
  std::string cgroup_mount = "/sys/fs/cgroup";
  std::string cgroup_slice = "dormouse.slice";
  std::string host_address_range = "10.201.0.0/16";
  int netns_pool = 4;
  std::vector<std::string> resolvers;
  std::string resolv_conf = "/proc/1/root/etc/resolv.conf";  ///< the node's, from within a pod
  std::vector<std::string> deny_always, allow_platform;      ///< CIDRs
  std::string lease_namespace = "dormouse-system";
  std::string health_address = "127.0.0.1:8083";
  std::string metrics_address = ":8084";
  std::string log_level = "info";
  std::string log_format = "json";
  int workers = 8;
  int guest_timeout_s = 120;
  int vmm_timeout_s = 120;
  std::string boot_snapshots = "namespace";
  int64_t boot_snapshot_space_mib = 8192;
  int orphan_retention_s = 24 * 3600;
  int digest_after_s = 60;
  int scrub_every_s = 7 * 24 * 3600;
  int64_t disk_reserve_mib = 2048;
  int64_t disk_pause_mib = 512;
  int64_t disk_window_mib = 256;
  int64_t reserve_memory_mib = 512;
  int reserve_cpus = 0;
  int cpu_overcommit = 8;
  int disk_overcommit = 10;
};

/// Nothing when the process shall end at once with `exit_code` (help, or a mistake that was
/// explained).
[[nodiscard]] std::optional<AgentFlags> ParseAgentFlags(int argc, char** argv, int* exit_code);

}  // namespace dormouse
