// Users and groups of the guest's root disk, read from /etc/passwd and /etc/group themselves: a
// static program has no name service. Formats: passwd(5), group(5). Lines that do not parse are
// skipped, as libc does. Pure but for ReadIdentityFiles; thread-safe.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Whom a process runs as.
struct UserIdentity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< supplementary, the primary one included
  std::string name;           ///< empty for a uid without an entry
  std::string home = "/";
};

struct IdentityFiles {
  std::string passwd;
  std::string group;
};

/// `root` is a directory, "" for "/". Absent files are empty; at most 1 MiB of each is read.
[[nodiscard]] IdentityFiles ReadIdentityFiles(const std::string& root);

/// `spec` is "", "name", "uid", "name:group", "uid:gid" (or mixed); "" is uid 0. A number needs no
/// entry; a name without one is kNotFound. With a group given, it is the only one; without, the
/// primary group of the entry (0 where there is none) and those that list the user.
[[nodiscard]] Result<UserIdentity> ResolveUser(std::string_view spec, const IdentityFiles& files);

}  // namespace dormouse::guest
