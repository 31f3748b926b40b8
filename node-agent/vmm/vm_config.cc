#include "node-agent/vmm/vm_config.h"

#include <nlohmann/json.hpp>

#include "node-agent/vmm/command_line.h"

namespace dormouse::vmm {
namespace {

constexpr size_t kMaxBody = 51'200;  // micro_http's limit for a request body, v53.0
constexpr uint32_t kMaxVcpus = 254;  // x86, xAPIC ids (vmm/src/config.rs, v53.0)

tl::unexpected<Error> Bad(const std::string& field, const std::string& why) {
  return Fail(ErrorCode::kInvalid, "VM config: " + field + " " + why);
}

Result<> CheckPath(const std::string& field, const std::string& path) {
  if (path.empty()) return Bad(field, "is missing");
  if (path.front() != '/') return Bad(field, "is not an absolute path: " + path);
  if (path.find('\0') != std::string::npos) return Bad(field, "holds a NUL");
  return {};
}

Result<> CheckSocket(const std::string& field, const std::string& path) {
  DORMOUSE_TRY(CheckPath(field, path));
  if (path.size() > kMaxUnixPath)
    return Bad(field, "is longer than a unix socket's 107 bytes: " + path);
  return {};
}

Result<> CheckId(const std::string& field, const std::string& id) {
  if (id.empty()) return Bad(field, "is missing");
  if (id.front() == '_')
    return Bad(field, "starts with '_', which the VMM keeps for itself: " + id);
  return {};
}

bool IsHex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool IsMac(const std::string& mac) {
  if (mac.size() != 17) return false;
  for (size_t i = 0; i < mac.size(); ++i) {
    if (i % 3 == 2 ? mac[i] != ':' : !IsHex(mac[i])) return false;
  }
  return true;
}

}  // namespace

std::string DefaultCmdline() {
  return "root=/dev/vda rw console=ttyS0 panic=-1 clocksource=kvm-clock tsc=nowatchdog "
         "net.ifnames=0 quiet "
         "ip=169.254.0.21::169.254.0.22:255.255.255.252:sandbox:eth0:off";
}

Result<> Validate(const VmConfig& config) {
  if (config.vcpus < 1 || config.vcpus > kMaxVcpus) {
    return Bad("vcpus", "is not within 1..254: " + std::to_string(config.vcpus));
  }
  if (config.memory_bytes < 64 * kMiB || config.memory_bytes % kMiB != 0) {
    return Bad("memory_bytes",
               "is not a whole number of MiB, 64 at least: " + std::to_string(config.memory_bytes));
  }
  DORMOUSE_TRY(CheckPath("payload.kernel", config.payload.kernel));
  DORMOUSE_TRY(CheckPath("payload.initramfs", config.payload.initramfs));
  DORMOUSE_TRY(CheckPath("disk.path", config.disk.path));
  DORMOUSE_TRY(CheckId("disk.id", config.disk.id));
  DORMOUSE_TRY(CheckId("net.id", config.net.id));
  if (config.net.tap.empty()) return Bad("net.tap", "is missing");
  if (config.net.tap.size() > 15)
    return Bad("net.tap", "is longer than 15 bytes: " + config.net.tap);
  if (!IsMac(config.net.mac)) return Bad("net.mac", "is not a MAC address: " + config.net.mac);
  DORMOUSE_TRY(CheckSocket("vsock.socket", config.vsock.socket));
  DORMOUSE_TRY(CheckId("vsock.id", config.vsock.id));
  if (config.vsock.cid < 3)
    return Bad("vsock.cid", "is reserved: " + std::to_string(config.vsock.cid));
  DORMOUSE_TRY(CheckSocket("serial_socket", config.serial_socket));
  if (config.disk.id == config.net.id || config.disk.id == config.vsock.id ||
      config.net.id == config.vsock.id) {
    return Bad("disk.id, net.id and vsock.id", "are not distinct");
  }
  return {};
}

Result<std::string> ToJson(const VmConfig& config) {
  DORMOUSE_TRY(Validate(config));
  const nlohmann::json body = {
      {"cpus", {{"boot_vcpus", config.vcpus}, {"max_vcpus", config.vcpus}}},
      {"memory", {{"size", config.memory_bytes}, {"shared", false}}},
      {"payload",
       {{"kernel", config.payload.kernel},
        {"initramfs", config.payload.initramfs},
        {"cmdline", config.payload.cmdline.empty() ? DefaultCmdline() : config.payload.cmdline}}},
      {"disks", nlohmann::json::array({{{"id", config.disk.id},
                                        {"path", config.disk.path},
                                        {"readonly", config.disk.readonly},
                                        {"image_type", "Raw"},
                                        {"sparse", false}}})},
      {"net", nlohmann::json::array(
                  {{{"id", config.net.id}, {"tap", config.net.tap}, {"mac", config.net.mac}}})},
      {"vsock",
       {{"id", config.vsock.id}, {"cid", config.vsock.cid}, {"socket", config.vsock.socket}}},
      {"serial", {{"mode", "Socket"}, {"socket", config.serial_socket}}},
      // The VMM's own default for the console is the tty.
      {"console", {{"mode", "Off"}}},
  };
  std::string text;
  try {
    text = body.dump();  // not JsonText: what is to boot is refused, not mended
  } catch (const nlohmann::json::exception&) {
    return Bad("a text", "is not UTF-8");
  }
  if (text.size() > kMaxBody) {
    return Bad("payload.cmdline", "makes the request larger than the VMM takes (51,200 bytes)");
  }
  return text;
}

}  // namespace dormouse::vmm
