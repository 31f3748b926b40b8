// Device-mapper and loop devices that need no kernel: for tests, and for benchmarks of the agent on
// machines without. What they "hold" is kept in files of a directory, so it outlives the process as
// the kernel's would. A fake dm device's node is a sparse regular file of the device's size; data
// does not pass between it and its store.
//
// They keep the kernel's rules: no two snapshots on one store, nothing removed while something
// stands on it, one loop per file. Each verb hits a failpoint with the name as subject
// ("fake.dm.create-snapshot@ dormouse-3f2a-root=error(ENOSPC)"), so that each can be made to fail.
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "node-agent/host/dm.h"
#include "node-agent/host/loop.h"

namespace dormouse::fakes {

class FakeBlock {
 public:
  /// State in `directory`, which is made.
  explicit FakeBlock(std::string directory);
  ~FakeBlock();

  host::DeviceMapper& dm();
  host::LoopDevices& loops();

  /// What Status() of `name` answers from now on: the kernel's words ("Invalid", "1600/20480 32").
  Result<> SetStatus(const std::string& name, const std::string& kernel_words);
  /// Somebody has it open (a VMM), or no longer.
  Result<> SetOpen(const std::string& name, bool open);

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::unique_ptr<host::DeviceMapper> dm_;
  std::unique_ptr<host::LoopDevices> loops_;
};

}  // namespace dormouse::fakes
