#include "guest-agent/init/stillness.h"

#include <unistd.h>

#include "guest-agent/init/files.h"

namespace dormouse::guest {

Result<void> KeepStill(const std::string& sysctls) {
  struct Setting {
    const char* name;
    const char* value;
  };
  // Documentation/admin-guide/sysctl/vm.rst
  for (const Setting& setting :
       {Setting{"/vm/compaction_proactiveness", "0"}, Setting{"/vm/stat_interval", "60"}}) {
    const std::string file = sysctls + setting.name;
    if (::access(file.c_str(), F_OK) == 0) DORMOUSE_TRY(WriteSmallFile(file, setting.value));
  }
  return {};
}

}  // namespace dormouse::guest
