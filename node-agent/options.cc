#include "node-agent/options.h"

#include <CLI/CLI.hpp>

namespace dormouse {

std::optional<AgentFlags> ParseAgentFlags(int argc, char** argv, int* exit_code) {
  AgentFlags flags;
  CLI::App app("Runs this node's sandboxes. `dormouse-agent ctl --help` for the person on call.",
               "dormouse-agent");
  app.set_version_flag("--version", DORMOUSE_VERSION);
  app.option_defaults()->multi_option_policy(
      CLI::MultiOptionPolicy::TakeLast);  // as every Kubernetes program does
  app.add_option("--kubeconfig", flags.kubeconfig,
                 "Path; else $KUBECONFIG, the pod's service account, ~/.kube/config");
  app.add_option("--node-name", flags.node_name, "This node, as Kubernetes calls it")
      ->required()
      ->envname("NODE_NAME");
  app.add_option("--node-ip", flags.node_ip, "Reported in status.network.nodeIP")
      ->envname("NODE_IP");
  app.add_option("--state-dir", flags.state_dir, "Records, stores, artifacts; XFS or btrfs")
      ->capture_default_str();
  app.add_option("--run-dir", flags.run_dir, "Sockets and namespaces; gone after a boot")
      ->capture_default_str();
  app.add_option("--images-dir", flags.images_dir, "Base images: <name>.img")
      ->capture_default_str();
  app.add_option("--vmm", flags.vmm, "cloud-hypervisor; else $CLOUD_HYPERVISOR, then PATH")
      ->envname("CLOUD_HYPERVISOR");
  app.add_option("--kernel", flags.kernel, "The guests' kernel")->capture_default_str();
  app.add_option("--initramfs", flags.initramfs, "The guests' initramfs, with dormouse-guest in it")
      ->capture_default_str();
  app.add_option("--launcher", flags.launcher, "dormouse-launch; else beside this program");
  app.add_option("--guest-cmdline", flags.guest_cmdline,
                 "Appended to the guest kernel's command line");
  app.add_option("--host-namespaces", flags.host_namespaces,
                 "The node's own namespaces; `self` outside a pod")
      ->capture_default_str();
  app.add_option("--cgroup-mount", flags.cgroup_mount, "Where cgroup v2 is mounted")
      ->capture_default_str();
  app.add_option("--cgroup-slice", flags.cgroup_slice, "The VMMs' slice")->capture_default_str();
  app.add_option("--host-address-range", flags.host_address_range,
                 "IPv4, at least a /20: one address a sandbox")
      ->capture_default_str();
  app.add_option("--netns-pool", flags.netns_pool, "Network namespaces made ahead; 0 = none")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  app.add_option("--resolver", flags.resolvers,
                 "DNS server of guests, which restricted ones may ask too; may be repeated. None: "
                 "those of --resolv-conf")
      ->take_all();
  app.add_option("--resolv-conf", flags.resolv_conf,
                 "Where the node's own DNS servers are listed; those of the loopback are left out")
      ->capture_default_str();
  app.add_option("--deny-always", flags.deny_always,
                 "CIDRs that no sandbox reaches, whatever its egress and allow say")
      ->delimiter(',')
      ->take_all();
  app.add_option("--allow-platform", flags.allow_platform,
                 "CIDRs of cloud metadata and platform addresses, which are denied always, that "
                 "egress and allow decide about")
      ->delimiter(',')
      ->take_all();
  app.add_option("--lease-namespace", flags.lease_namespace, "Where the node's Lease lives")
      ->capture_default_str();
  app.add_option("--health-address", flags.health_address, "/healthz, /readyz")
      ->capture_default_str();
  app.add_option("--metrics-address", flags.metrics_address, "/metrics")->capture_default_str();
  app.add_option("--log-level", flags.log_level)
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  app.add_option("--log-format", flags.log_format)
      ->check(CLI::IsMember({"json", "text"}))
      ->capture_default_str();
  app.add_option("--workers", flags.workers, "Sandboxes worked on at a time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--guest-timeout", flags.guest_timeout_s,
                 "Seconds from a VMM's start to its guest's answer")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--vmm-timeout", flags.vmm_timeout_s,
                 "Seconds that a VMM may answer nothing before it is ended; a second for each 64 "
                 "MiB of its guest is added")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--boot-snapshots", flags.boot_snapshots,
                 "who shares the snapshot that the first boot of a shape leaves: namespace, node "
                 "or off")
      ->check(CLI::IsMember({"namespace", "node", "off"}))
      ->capture_default_str();
  app.add_option("--boot-snapshot-space-mib", flags.boot_snapshot_space_mib,
                 "disk for all boot snapshots; the least recently used goes first")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--orphan-retention", flags.orphan_retention_s,
                 "Seconds for which the files of a sandbox are kept whose object is gone")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--digest-after", flags.digest_after_s,
                 "Seconds of sleep after which the digests of memory are computed")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--scrub-every", flags.scrub_every_s,
                 "Seconds after which memory that sleeps is read again and compared; 0 = never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--disk-reserve-mib", flags.disk_reserve_mib, "Below it nothing new starts")
      ->capture_default_str();
  app.add_option("--disk-pause-mib", flags.disk_pause_mib, "Below it guests stand still")
      ->capture_default_str();
  app.add_option("--disk-window-mib", flags.disk_window_mib,
                 "Allocated ahead of each disk's fill level")
      ->check(CLI::Range(4, 4096))
      ->capture_default_str();
  app.add_option("--reserve-memory-mib", flags.reserve_memory_mib, "Of the node, not for sandboxes")
      ->capture_default_str();
  app.add_option("--reserve-cpus", flags.reserve_cpus, "Of the node, not for sandboxes")
      ->capture_default_str();
  app.add_option("--cpu-overcommit", flags.cpu_overcommit, "vCPUs per processor")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--disk-overcommit", flags.disk_overcommit,
                 "Bytes of sandboxes' disks per byte of the state directory's file system")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    *exit_code = app.exit(error);
    return std::nullopt;
  }
  return flags;
}

}  // namespace dormouse
