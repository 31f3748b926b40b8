#include "src/common/base/footprint.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "src/common/base/files.h"

namespace dormouse {
namespace {

constexpr size_t kLargestSmaps = 4 << 20;

struct Mapping {
  uintptr_t begin = 0, end = 0;
  bool droppable = false;
};

/// "7f12-7f34 r-xp 00001000 fe:00 1234   /usr/lib/libc.so.6"; false for the other lines of smaps.
bool ParseMapping(const std::string& line, Mapping* mapping) {
  unsigned long begin = 0, end = 0;
  char flags[5] = {};
  if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, flags) != 3 || flags[3] == '\0')
    return false;
  const bool of_a_file = line.find(" /") != std::string::npos;
  *mapping = {begin, end, of_a_file && flags[0] == 'r' && flags[1] == '-' && flags[3] == 'p'};
  return true;
}

}  // namespace

Result<> DropUnusedPages() {
  malloc_trim(0);
  DORMOUSE_ASSIGN(const std::string smaps, ReadFile("/proc/self/smaps", kLargestSmaps));
  std::istringstream lines(smaps);
  Mapping mapping;
  for (std::string line; std::getline(lines, line);) {
    if (ParseMapping(line, &mapping)) continue;
    unsigned long written_kib = 0;
    if (std::sscanf(line.c_str(), "Anonymous: %lu kB", &written_kib) != 1) continue;
    if (!mapping.droppable || written_kib > 0) continue;
    // The addresses are the kernel's own words about our mappings.
    void* const begin =
        reinterpret_cast<void*>(mapping.begin);  // NOLINT(performance-no-int-to-ptr)
    if (madvise(begin, mapping.end - mapping.begin, MADV_DONTNEED) != 0)
      return FailErrno("drop unused pages");
  }
  return {};
}

}  // namespace dormouse
