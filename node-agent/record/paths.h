// Where everything of a node lies. The only place that builds a path.
//
// clang-format off
//   <state>/                        /var/lib/dormouse; XFS or btrfs where pauses shall be cheap
//     agent.json                    which cluster this node belongs to
//     images/<name>.img             base images, put there by an administrator
//     bases/<sha256>.img            the content of images in use, whatever the operator does
//     bases/<sha256>.img.checked    which file it was whose content was last found to be that
//     digests.json                  what was computed of the images, by inode, size and mtime
//     artifacts/<sha256>/<name>     VMM, kernel, initramfs: kept for as long as a record names them
//     sandboxes/<uid>/
//       record.json                 the sandbox's record: the one commit point (record.h)
//       store.cow                   its disk's differing blocks (disk/store.h)
//       gen-<n>/                    a generation (memory/manifest.h): memory, config.json,
//                                   state.json, store.cow, manifest.json, memory.digests (until
//                                   they are computed its parent's: parent.digests); once it was
//                                   consumed only what its VM maps, with its digests
//       drop/                       where the VMM writes its memory, if it must do so itself: its
//                                   own only during such a capture, else root's
//       console.log{,.1}            the guest's serial line, capped
//     templates/<uid>/              a template: the files of a generation, and
//       template.json               its record: the one commit point (template_record.h)
//     condemned/<n>/                what was a template, while it is being removed
//     quarantine/<uid>.json         records that failed their checks, kept for a person to look at
//   <run>/                          /run/dormouse; gone after a boot
//     agent.sock                    `dormouse-agent ctl`, root only
//     netns/<short>                 the sandbox's network namespace, bind-mounted
//     dev/                          device nodes of our own: dm control, loops
//     root/                         empty; each VMM's private root is mounted over it, in its own
//                                   namespace
//     verified/<uid>/<n>            this generation's memory is as captured: known since the boot
//     vm/<short>/                   the VMM's own directory, owned by its uid: a file system of its
//                                   own and of bounded size. Nothing below it is followed or
//                                   believed (host/beneath.h):
//       api-<n>.sock  vsock.sock  serial.sock  events-<n>.json  vmm-<n>.log
//       restore/                    config and state of what it is woken from
//       capture/                    where it writes config and state
// clang-format on
//
// <uid> is metadata.uid; <short> its 12 hex digits (api::SandboxUid::short_id); <n> at a VMM's
// files is Record::incarnation. Pure values; thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "src/common/api/ids.h"

namespace dormouse {

struct Paths {
  static constexpr char kGenerationPrefix[] = "gen-";

  std::string state = "/var/lib/dormouse";
  std::string run = "/run/dormouse";

  [[nodiscard]] std::string AgentFile() const { return state + "/agent.json"; }
  [[nodiscard]] std::string Images() const { return state + "/images"; }
  [[nodiscard]] std::string Bases() const { return state + "/bases"; }
  [[nodiscard]] std::string DigestCache() const { return state + "/digests.json"; }
  [[nodiscard]] std::string Artifacts() const { return state + "/artifacts"; }
  [[nodiscard]] std::string Sandboxes() const { return state + "/sandboxes"; }
  [[nodiscard]] std::string Quarantine() const { return state + "/quarantine"; }
  [[nodiscard]] std::string Sandbox(const api::SandboxUid& uid) const {
    return Sandboxes() + "/" + uid.text();
  }
  [[nodiscard]] std::string Record(const api::SandboxUid& uid) const {
    return Sandbox(uid) + "/record.json";
  }
  [[nodiscard]] std::string Store(const api::SandboxUid& uid) const {
    return Sandbox(uid) + "/store.cow";
  }
  [[nodiscard]] std::string Console(const api::SandboxUid& uid) const {
    return Sandbox(uid) + "/console.log";
  }

  [[nodiscard]] std::string Generation(const api::SandboxUid& uid, uint64_t number) const {
    return Sandbox(uid) + "/" + kGenerationPrefix + std::to_string(number);
  }
  [[nodiscard]] std::string Drop(const api::SandboxUid& uid) const {
    return Sandbox(uid) + "/drop";
  }

  [[nodiscard]] std::string Templates() const { return state + "/templates"; }
  [[nodiscard]] std::string Template(const api::SandboxUid& uid) const {
    return Templates() + "/" + uid.text();
  }
  [[nodiscard]] std::string Condemned() const { return state + "/condemned"; }
  [[nodiscard]] std::string TemplateRecord(const api::SandboxUid& uid) const {
    return Template(uid) + "/template.json";
  }

  [[nodiscard]] std::string ControlSocket() const { return run + "/agent.sock"; }
  [[nodiscard]] std::string NetworkNamespaces() const { return run + "/netns"; }
  [[nodiscard]] std::string DeviceNodes() const { return run + "/dev"; }
  [[nodiscard]] std::string LaunchRoot() const { return run + "/root"; }
  /// Of a sandbox's generations; of a template, whose one generation is 0.
  [[nodiscard]] std::string Verified(const api::SandboxUid& uid) const {
    return run + "/verified/" + uid.text();
  }
  [[nodiscard]] std::string Verified(const api::SandboxUid& uid, uint64_t generation) const {
    return Verified(uid) + "/" + std::to_string(generation);
  }
  [[nodiscard]] std::string VmDirectories() const { return run + "/vm"; }
  [[nodiscard]] std::string VmDirectory(const std::string& short_id) const {
    return VmDirectories() + "/" + short_id;
  }
  [[nodiscard]] std::string VsockSocket(const std::string& short_id) const {
    return VmDirectory(short_id) + "/vsock.sock";
  }
  [[nodiscard]] std::string SerialSocket(const std::string& short_id) const {
    return VmDirectory(short_id) + "/serial.sock";
  }
  [[nodiscard]] std::string ApiSocket(const std::string& short_id, uint64_t number) const {
    return VmDirectory(short_id) + "/api-" + std::to_string(number) + ".sock";
  }
  [[nodiscard]] std::string EventFile(const std::string& short_id, uint64_t number) const {
    return VmDirectory(short_id) + "/events-" + std::to_string(number) + ".json";
  }
  [[nodiscard]] std::string RestoreDirectory(const std::string& short_id) const {
    return VmDirectory(short_id) + "/restore";
  }
  [[nodiscard]] std::string VmmCapture(const std::string& short_id) const {
    return VmDirectory(short_id) + "/capture";
  }
  [[nodiscard]] std::string VmmLog(const std::string& short_id, uint64_t number) const {
    return VmDirectory(short_id) + "/vmm-" + std::to_string(number) + ".log";
  }
};

}  // namespace dormouse
