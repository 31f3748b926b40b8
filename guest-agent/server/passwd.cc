#include "guest-agent/server/passwd.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

constexpr size_t kMaxFile = 1024 * 1024;

std::string ReadBounded(const std::string& path) {
  std::string out;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return out;
  char buffer[4096];
  ssize_t got = 0;
  while (out.size() < kMaxFile && (got = ::read(fd.get(), buffer, sizeof(buffer))) > 0) {
    out.append(buffer, static_cast<size_t>(got));
  }
  return out;
}

std::vector<std::string_view> Split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// (uid_t)-1 means "unchanged" to the kernel, so it is nobody's id.
std::optional<uint32_t> ParseId(std::string_view text) {
  uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id == UINT32_MAX)
    return std::nullopt;
  return id;
}

struct PasswdEntry {
  std::string_view name;
  uid_t uid;
  gid_t gid;
  std::string_view home;
};

std::optional<PasswdEntry> ParsePasswdLine(std::string_view line) {
  const auto fields = Split(line, ':');
  if (fields.size() < 6 || fields[0].empty()) return std::nullopt;
  const auto uid = ParseId(fields[2]);
  const auto gid = ParseId(fields[3]);
  if (!uid || !gid) return std::nullopt;
  return PasswdEntry{fields[0], *uid, *gid, fields[5]};
}

/// By name first: a name may consist of digits.
std::optional<PasswdEntry> FindUser(std::string_view passwd, std::string_view wanted) {
  const auto id = ParseId(wanted);
  std::optional<PasswdEntry> by_id;
  for (const auto line : Split(passwd, '\n')) {
    const auto entry = ParsePasswdLine(line);
    if (!entry) continue;
    if (entry->name == wanted) return entry;
    if (id && entry->uid == *id && !by_id) by_id = entry;
  }
  return by_id;
}

struct GroupEntry {
  std::string_view name;
  gid_t gid;
  std::vector<std::string_view> members;
};

std::optional<GroupEntry> ParseGroupLine(std::string_view line) {
  const auto fields = Split(line, ':');
  if (fields.size() < 3 || fields[0].empty()) return std::nullopt;
  const auto gid = ParseId(fields[2]);
  if (!gid) return std::nullopt;
  return GroupEntry{fields[0], *gid,
                    fields.size() > 3 ? Split(fields[3], ',') : std::vector<std::string_view>{}};
}

Result<gid_t> FindGroup(std::string_view group, std::string_view wanted) {
  for (const auto line : Split(group, '\n')) {
    const auto entry = ParseGroupLine(line);
    if (entry && entry->name == wanted) return entry->gid;
  }
  if (const auto id = ParseId(wanted)) return *id;
  return Fail(ErrorCode::kNotFound, "no group \"" + std::string(wanted) + "\" in /etc/group");
}

std::vector<gid_t> GroupsOf(std::string_view group, std::string_view user, gid_t primary) {
  std::vector<gid_t> groups{primary};
  for (const auto line : Split(group, '\n')) {
    const auto entry = ParseGroupLine(line);
    if (!entry || entry->gid == primary) continue;
    if (std::find(entry->members.begin(), entry->members.end(), user) != entry->members.end()) {
      groups.push_back(entry->gid);
    }
  }
  return groups;
}

}  // namespace

IdentityFiles ReadIdentityFiles(const std::string& root) {
  return {ReadBounded(root + "/etc/passwd"), ReadBounded(root + "/etc/group")};
}

Result<UserIdentity> ResolveUser(std::string_view spec, const IdentityFiles& files) {
  const size_t colon = spec.find(':');
  std::string_view user = spec.substr(0, colon);
  if (user.empty() && colon == std::string_view::npos) user = "0";
  const auto entry = FindUser(files.passwd, user);
  UserIdentity identity;
  if (entry) {
    identity.uid = entry->uid;
    identity.gid = entry->gid;
    identity.name = entry->name;
    if (!entry->home.empty()) identity.home = entry->home;
  } else if (const auto id = ParseId(user)) {
    identity.uid = *id;
  } else {
    return Fail(ErrorCode::kNotFound, "no user \"" + std::string(user) + "\" in /etc/passwd");
  }
  if (colon != std::string_view::npos) {
    DORMOUSE_ASSIGN(identity.gid, FindGroup(files.group, spec.substr(colon + 1)));
    identity.groups = {identity.gid};
  } else {
    identity.groups = identity.name.empty() ? std::vector<gid_t>{identity.gid}
                                            : GroupsOf(files.group, identity.name, identity.gid);
  }
  return identity;
}

}  // namespace dormouse::guest
