// What the handlers of one server share. On the EventLoop's thread.
#pragma once

#include "guest-agent/server/cgroup.h"
#include "guest-agent/server/event_loop.h"
#include "guest-agent/server/freezer.h"
#include "guest-agent/server/machine.h"
#include "guest-agent/server/process_table.h"
#include "guest-agent/server/server.h"
#include "guest-agent/server/thawer.h"
#include "guest-agent/server/workload.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

struct Context {
  EventLoop& loop;
  Machine& machine;
  const ServerOptions& options;
  ProcessTable& processes;
  Workload& workload;
  const Cgroup& exec_cgroup;
  Freezer& freezer;
  Thawer& thawer;
  ConfigureRequest defaults;  ///< the last one's env, working directory and user
  bool configured = false;
  std::function<void()> changed;  ///< configured has
};

}  // namespace dormouse::guest
