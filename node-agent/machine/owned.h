// What of this node has a name of ours. Values.
#pragma once

#include <string>

namespace dormouse {

/// Something that is ours in the kernel or on disk and that no sandbox accounts for.
struct Leak {
  std::string kind;  ///< dm, loop, netns, veth, cgroup, process, vmdir, files
  std::string name;
  std::string detail;
};

/// Something with a name of ours, and the sandbox that the name tells.
struct OwnedObject {
  Leak object;
  std::string short_id;  ///< empty: shared by sandboxes
};

}  // namespace dormouse
