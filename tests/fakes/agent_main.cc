// The agent with device-mapper and loop devices stood in for, and cgroups without limits: for
// benchmarks of the agent's own work on a machine whose kernel has no device-mapper. All else is
// the product's.
//
// $DORMOUSE_FAKE_DISK ("major:minor") is a block device that VMMs may open in place of their disk.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "node-agent/run.h"
#include "src/common/base/log.h"
#include "src/common/kube/cpprest_transport.h"
#include "tests/fakes/fake_block.h"

namespace {

using dormouse::Result;
namespace host = dormouse::host;

// Forwards to a FakeBlock that lives as long as the process.
dormouse::fakes::FakeBlock& Block(const std::string& directory) {
  static auto* block = new dormouse::fakes::FakeBlock(directory + "/fake-block");
  return *block;
}

class Mapper : public host::DeviceMapper {
 public:
  explicit Mapper(host::DeviceMapper& to) : to_(to) {}
  Result<host::DeviceNumber> CreateSnapshot(const host::DmName& name,
                                            const host::SnapshotTable& table) override {
    return to_.CreateSnapshot(name, table);
  }
  Result<host::DeviceNumber> CreateLinearZero(const host::DmName& name,
                                              const host::LinearZeroTable& table) override {
    return to_.CreateLinearZero(name, table);
  }
  Result<> Remove(const host::DmName& name) override { return to_.Remove(name); }
  Result<> Suspend(const host::DmName& name) override { return to_.Suspend(name); }
  Result<> Resume(const host::DmName& name) override { return to_.Resume(name); }
  Result<host::DmDevice> Find(const host::DmName& name) override {
    DORMOUSE_ASSIGN(host::DmDevice device, to_.Find(name));
    const char* disk = std::getenv("DORMOUSE_FAKE_DISK");
    if (disk != nullptr) std::sscanf(disk, "%u:%u", &device.number.major, &device.number.minor);
    return device;
  }
  Result<host::SnapshotStatus> Status(const host::DmName& name) override {
    return to_.Status(name);
  }
  Result<std::vector<host::DmDevice>> List(std::string_view prefix) override {
    return to_.List(prefix);
  }
  Result<> MakeNode(const host::DmName& name, const std::string& path, uid_t owner) override {
    return to_.MakeNode(name, path, owner);
  }

 private:
  host::DeviceMapper& to_;
};

class Loops : public host::LoopDevices {
 public:
  explicit Loops(host::LoopDevices& to) : to_(to) {}
  Result<host::LoopDevice> Attach(const std::string& file,
                                  const host::LoopOptions& options) override {
    return to_.Attach(file, options);
  }
  Result<std::optional<host::LoopDevice>> FindByFile(const std::string& file) override {
    return to_.FindByFile(file);
  }
  Result<std::optional<host::LoopDevice>> FindByTag(std::string_view tag) override {
    return to_.FindByTag(tag);
  }
  Result<> Detach(const host::LoopDevice& loop) override { return to_.Detach(loop); }
  Result<int> Holders(const host::LoopDevice& loop) override { return to_.Holders(loop); }
  Result<std::vector<host::LoopDevice>> List(std::string_view prefix) override {
    return to_.List(prefix);
  }

 private:
  host::LoopDevices& to_;
};

}  // namespace

int main(int argc, char** argv) {
  dormouse::kube::InitialiseProcess();
  int exit_code = 0;
  const auto flags = dormouse::ParseAgentFlags(argc, argv, &exit_code);
  if (!flags) return exit_code;
  dormouse::log::Level level = dormouse::log::Level::kInfo;
  (void)dormouse::log::ParseLevel(flags->log_level, &level);
  dormouse::log::Configure(level, flags->log_format == "json");
  dormouse::Hardware hardware;
  hardware.device_mapper =
      [](const std::string& directory) -> Result<std::unique_ptr<host::DeviceMapper>> {
    return std::make_unique<Mapper>(Block(directory).dm());
  };
  hardware.loop_devices =
      [](const std::string& directory) -> Result<std::unique_ptr<host::LoopDevices>> {
    return std::make_unique<Loops>(Block(directory).loops());
  };
  hardware.cgroup_controllers = false;
  hardware.kvm = false;
  if (auto run = dormouse::RunAgent(*flags, hardware); !run) {
    dormouse::log::Error("the agent ends", {{"error", run.error().message()}});
    return 1;
  }
  return 0;
}
