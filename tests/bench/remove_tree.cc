// How long a hostile tree takes to remove, and how much memory:
//
//     bench-remove-tree FOLDER wide|deep COUNT
//
// Makes FOLDER/tree, of COUNT names of 255 bytes side by side or COUNT directories in each other,
// removes it as the agent does, and prints seconds and by how many KiB resident memory grew.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"

namespace {

using dormouse::UniqueFd;

void Wide(const UniqueFd& tree, int count) {
  for (int i = 0; i < count; ++i) {
    std::string name = std::to_string(i);
    name.append(255 - name.size(), 'n');
    if (::mknodat(tree.get(), name.c_str(), S_IFREG | 0600, 0) != 0) std::abort();
  }
}

void Deep(const UniqueFd& tree, int count) {
  UniqueFd inside(::dup(tree.get()));
  for (int i = 0; i < count; ++i) {
    if (::mkdirat(inside.get(), "d", 0700) != 0) std::abort();
    inside.Reset(::openat(inside.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!inside) std::abort();
  }
}

// "VmRSS", "VmHWM": of /proc/self/status, proc(5).
long Kib(const char* what) {
  const std::string status = dormouse::ReadFile("/proc/self/status", 1 << 16).value();
  return std::atol(status.c_str() + status.find(what) + std::string(what).size() + 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string path = std::string(argv[1]) + "/tree";
  if (::mkdir(path.c_str(), 0700) != 0) return 1;
  {
    const UniqueFd tree(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    (std::string(argv[2]) == "deep" ? Deep : Wide)(tree, std::atoi(argv[3]));
  }
  ::sync();
  if (!dormouse::WriteKernelFile("/proc/self/clear_refs", "5")) return 1;  // VmHWM begins anew
  const long before = Kib("VmRSS:");
  const auto began = std::chrono::steady_clock::now();
  const auto removed = dormouse::RemoveTree(path);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  if (!removed) std::fprintf(stderr, "%s\n", removed.error().message().c_str());
  std::printf("%.3f %ld\n", took.count(), Kib("VmHWM:") - before);
  return removed ? 0 : 1;
}
