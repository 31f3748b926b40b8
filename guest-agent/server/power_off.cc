#include "guest-agent/server/power_off.h"

#include <memory>

namespace dormouse::guest {

void PowerOffMachine(Context& context, std::chrono::milliseconds grace, bool reboot) {
  context.workload.Stop(grace);
  // Its end and the limit both come here, and a stand-in's PowerOff returns.
  const auto power_off = std::make_shared<std::function<void()>>(
      [&machine = context.machine, reboot, done = false]() mutable {
        if (!done) machine.PowerOff(reboot);
        done = true;
      });
  if (context.workload.status().state != WorkloadState::kRunning) {
    (void)context.loop.After(std::chrono::milliseconds(0), [power_off] { (*power_off)(); });
    return;
  }
  (void)context.workload.Observe([power_off, &workload = context.workload] {
    if (workload.status().state != WorkloadState::kRunning) (*power_off)();
  });
  (void)context.loop.After(grace + kKillMargin, [power_off] { (*power_off)(); });
}

}  // namespace dormouse::guest
