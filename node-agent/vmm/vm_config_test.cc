#include "node-agent/vmm/vm_config.h"

#include <gtest/gtest.h>

#include <functional>

namespace dormouse::vmm {
namespace {

VmConfig WholeMachine() {
  VmConfig config;
  config.payload.kernel = "/a/vmlinuz";
  config.payload.initramfs = "/a/initrd";
  config.disk.path = "/dev/mapper/dormouse-x-root";
  config.vsock.socket = "/run/x/vsock.sock";
  config.serial_socket = "/run/x/serial.sock";
  return config;
}

TEST(VmConfigTest, TheDefaultMachineIsThis) {
  EXPECT_EQ(
      *ToJson(WholeMachine()),
      R"({"console":{"mode":"Off"},"cpus":{"boot_vcpus":1,"max_vcpus":1},)"
      R"("disks":[{"id":"disk0","image_type":"Raw","path":"/dev/mapper/dormouse-x-root",)"
      R"("readonly":false,"sparse":false}],"memory":{"shared":false,"size":536870912},)"
      R"("net":[{"id":"net0","mac":"02:FC:00:00:00:05","tap":"tap0"}],)"
      R"("payload":{"cmdline":"root=/dev/vda rw console=ttyS0 panic=-1 clocksource=kvm-clock )"
      R"(tsc=nowatchdog net.ifnames=0 quiet ip=169.254.0.21::169.254.0.22:255.255.255.252:sandbox:eth0:off",)"
      R"("initramfs":"/a/initrd","kernel":"/a/vmlinuz"},)"
      R"("serial":{"mode":"Socket","socket":"/run/x/serial.sock"},)"
      R"("vsock":{"cid":3,"id":"vsock0","socket":"/run/x/vsock.sock"}})");
}

TEST(VmConfigTest, WhatIsAskedForIsWhatIsSent) {
  VmConfig config = WholeMachine();
  config.vcpus = 4;
  config.memory_bytes = 4096 * kMiB;
  config.payload.cmdline = "quoted \"x\" y";
  const std::string body = *ToJson(config);
  EXPECT_NE(body.find(R"("boot_vcpus":4,"max_vcpus":4)"), std::string::npos);
  EXPECT_NE(body.find(R"("size":4294967296)"), std::string::npos);
  EXPECT_NE(body.find(R"("cmdline":"quoted \"x\" y")"), std::string::npos);
}

TEST(VmConfigTest, EachMissingOrWrongFieldIsNamed) {
  const struct {
    const char* named;
    std::function<void(VmConfig&)> spoil;
  } cases[] = {
      {"vcpus", [](VmConfig& c) { c.vcpus = 0; }},
      {"vcpus", [](VmConfig& c) { c.vcpus = 255; }},
      {"memory_bytes", [](VmConfig& c) { c.memory_bytes = 0; }},
      {"memory_bytes", [](VmConfig& c) { c.memory_bytes += 1; }},
      {"payload.kernel is missing", [](VmConfig& c) { c.payload.kernel.clear(); }},
      {"payload.kernel is not an absolute path", [](VmConfig& c) { c.payload.kernel = "vmlinuz"; }},
      {"payload.initramfs is missing", [](VmConfig& c) { c.payload.initramfs.clear(); }},
      {"payload.cmdline", [](VmConfig& c) { c.payload.cmdline = std::string(60'000, 'x'); }},
      {"UTF-8", [](VmConfig& c) { c.payload.cmdline = "\xff"; }},
      {"disk.path is missing", [](VmConfig& c) { c.disk.path.clear(); }},
      {"disk.id starts with '_'", [](VmConfig& c) { c.disk.id = "_disk0"; }},
      {"distinct", [](VmConfig& c) { c.disk.id = "net0"; }},
      {"net.tap is missing", [](VmConfig& c) { c.net.tap.clear(); }},
      {"net.tap is longer", [](VmConfig& c) { c.net.tap = "a234567890123456"; }},
      {"net.mac", [](VmConfig& c) { c.net.mac = "02:FC:00:00:00"; }},
      {"net.mac", [](VmConfig& c) { c.net.mac = "02:FC:00:00:00:0g"; }},
      {"vsock.socket is missing", [](VmConfig& c) { c.vsock.socket.clear(); }},
      {"vsock.socket is longer", [](VmConfig& c) { c.vsock.socket = "/" + std::string(107, 'x'); }},
      {"vsock.cid", [](VmConfig& c) { c.vsock.cid = 2; }},
      {"serial_socket is missing", [](VmConfig& c) { c.serial_socket.clear(); }},
  };
  for (const auto& c : cases) {
    VmConfig config = WholeMachine();
    c.spoil(config);
    const auto body = ToJson(config);
    ASSERT_FALSE(body) << c.named;
    EXPECT_EQ(body.error().code(), ErrorCode::kInvalid);
    EXPECT_NE(body.error().message().find(c.named), std::string::npos) << body.error().message();
  }
}

}  // namespace
}  // namespace dormouse::vmm
