#include "guest-agent/init/stillness.h"

#include "guest-agent/init/files.h"

namespace dormouse::guest {

Result<void> KeepStill(const std::string& root) {
  struct Setting {
    const char* file;
    const char* value;
  };
  Result<void> all;
  // Documentation/admin-guide/sysctl/{vm,kernel}.rst, kernel-parameters.txt
  for (const Setting& setting :
       {Setting{"/proc/sys/vm/compaction_proactiveness", "0"},
        Setting{"/proc/sys/vm/stat_interval", "60"}, Setting{"/proc/sys/kernel/soft_watchdog", "0"},
        Setting{"/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress", "1"}}) {
    auto written = WriteSetting(root + setting.file, setting.value);
    if (all && !written) all = written;
  }
  return all;
}

}  // namespace dormouse::guest
