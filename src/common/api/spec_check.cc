#include "src/common/api/spec_check.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace dormouse::api {
namespace {

using namespace std::literals;

constexpr size_t kMaxWords = 256;
constexpr size_t kMaxWord = 16384;
constexpr size_t kMaxName = 253;

bool IsLower(char c) {
  return c >= 'a' && c <= 'z';
}
bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsLetter(char c) {
  return IsLower(c) || (c >= 'A' && c <= 'Z');
}
bool IsLowerOrDigit(char c) {
  return IsLower(c) || IsDigit(c);
}
bool IsAlphanumeric(char c) {
  return IsLetter(c) || IsDigit(c);
}

template <typename Is>
bool All(std::string_view text, Is is) {
  return std::all_of(text.begin(), text.end(), is);
}

/// As the schema's maxLength counts.
size_t Characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

bool HasNul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

/// Begins and ends with `edge`, and has `edge` or one of `inner` between.
template <typename Edge>
bool IsName(std::string_view name, Edge edge, std::string_view inner) {
  return !name.empty() && edge(name.front()) && edge(name.back()) &&
         All(name, [&](char c) { return edge(c) || inner.find(c) != std::string_view::npos; });
}

bool IsVariable(std::string_view name) {
  const auto first = [](char c) { return IsLetter(c) || c == '-' || c == '.' || c == '_'; };
  return !name.empty() && name.size() <= kMaxName && first(name.front()) &&
         All(name, [&](char c) { return first(c) || IsDigit(c); });
}

bool IsUserOrGroup(std::string_view text) {
  if (!text.empty() && text.size() <= 10 && All(text, IsDigit)) return true;
  const auto first = [](char c) { return IsLower(c) || c == '_'; };
  return !text.empty() && text.size() <= 32 && first(text.front()) &&
         All(text, [&](char c) { return first(c) || IsDigit(c) || c == '-' || c == '.'; });
}

bool IsUser(std::string_view text) {
  const size_t colon = text.find(':');
  return IsUserOrGroup(text.substr(0, colon)) &&
         (colon == std::string_view::npos || IsUserOrGroup(text.substr(colon + 1)));
}

bool IsDomain(std::string_view text) {
  if (text.empty() || text.size() > kMaxName) return false;
  if (text.back() == '.') text.remove_suffix(1);
  const auto edge = [](char c) { return IsAlphanumeric(c) || c == '_'; };
  for (;;) {
    const size_t dot = text.find('.');
    const std::string_view label = text.substr(0, dot);
    if (label.size() > 63 || !IsName(label, edge, "-")) return false;
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool IsDnsOption(std::string_view text) {
  if (text.size() > 64) return false;
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const auto part = [](char c) { return IsLowerOrDigit(c) || c == '-'; };
  if (name.empty() || !All(name, part)) return false;
  if (colon == std::string_view::npos) return true;
  const std::string_view value = text.substr(colon + 1);
  return !value.empty() && All(value, IsDigit);
}

struct Address {
  std::array<uint8_t, 16> bytes{};
  int bits = 0;
};

std::optional<Address> ParseAddress(const std::string& text) {
  Address address;
  if (HasNul(text)) return std::nullopt;
  if (::inet_pton(AF_INET, text.c_str(), address.bytes.data()) == 1) {
    address.bits = 32;
    return address;
  }
  if (::inet_pton(AF_INET6, text.c_str(), address.bytes.data()) != 1) return std::nullopt;
  address.bits = 128;
  constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  const bool mapped = std::equal(kMapped.begin(), kMapped.end(), address.bytes.begin());
  return mapped ? std::nullopt : std::optional(address);
}

/// The first address of a range, with its prefix length.
bool IsRange(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos || text.size() > 49) return false;
  const auto address = ParseAddress(text.substr(0, slash));
  const std::string_view length = std::string_view(text).substr(slash + 1);
  int prefix = -1;
  const auto parsed = std::from_chars(length.data(), length.data() + length.size(), prefix);
  const bool plain = !length.empty() && All(length, IsDigit) &&
                     (length.size() == 1 || length.front() != '0') && parsed.ec == std::errc();
  if (!address || !plain || prefix > address->bits) return false;
  for (int bit = prefix; bit < address->bits; ++bit) {
    const auto byte = address->bytes[static_cast<size_t>(bit / 8)];
    if ((byte >> (7 - bit % 8) & 1) != 0) return false;
  }
  return true;
}

Result<> Refuse(const std::string& field, std::string_view must) {
  return Fail(ErrorCode::kInvalid, "spec." + field + ": must " + std::string(must));
}

std::string At(const char* list, size_t index, const char* field = "") {
  return std::string(list) + "[" + std::to_string(index) + "]" + field;
}

template <typename List>
Result<> CheckCount(const char* list, const List& items, size_t most) {
  if (items.size() <= most) return {};
  return Refuse(list, "have at most " + std::to_string(most) + " entries");
}

Result<> CheckWords(const char* field, const std::vector<std::string>& words) {
  DORMOUSE_TRY(CheckCount(field, words, kMaxWords));
  for (size_t i = 0; i < words.size(); ++i) {
    if (Characters(words[i]) > kMaxWord) return Refuse(At(field, i), "be at most 16384 characters");
    if (HasNul(words[i])) return Refuse(field, "not contain a NUL character: leave it out");
  }
  return {};
}

size_t WeightOfAll(const std::vector<std::string>& words) {
  size_t weight = 0;
  for (const std::string& word : words) weight += WeightOf(word);
  return weight;
}

Result<> CheckWorkload(const Workload& workload) {
  DORMOUSE_TRY(CheckWords("command", workload.command));
  DORMOUSE_TRY(CheckWords("args", workload.args));
  if (!workload.command.empty() && workload.command.front().empty())
    return Refuse("command", "begin with the program's name or path, such as /usr/bin/python3");
  if (workload.command.empty() && !workload.args.empty())
    return Refuse("args", "not be there without command, which names the program");
  if (WeightOfAll(workload.command) + WeightOfAll(workload.args) > kMaxWordsBytes)
    return Refuse("args", "be at most 24 KiB, together with command");
  DORMOUSE_TRY(CheckCount("env", workload.env, kMaxWords));
  std::set<std::string> names;
  size_t weight = 0;
  for (size_t i = 0; i < workload.env.size(); ++i) {
    const auto& [name, value] = workload.env[i];
    if (!IsVariable(name)) return Refuse(At("env", i, ".name"), "be the name of a variable");
    if (Characters(value) > kMaxWord || HasNul(value))
      return Refuse(At("env", i, ".value"), "be at most 16384 characters, and none of them NUL");
    if (!names.insert(name).second) return Refuse(At("env", i, ".name"), "be unique");
    weight += WeightOf(name) + WeightOf(value);
  }
  if (weight > kMaxWordsBytes) return Refuse("env", "be at most 24 KiB in all");
  const std::string& directory = workload.working_dir;
  if (!directory.empty() &&
      (directory.front() != '/' || HasNul(directory) || Characters(directory) > 4096))
    return Refuse("workingDir", "be an absolute path in the guest, such as /srv");
  if (!workload.user.empty() && !IsUser(workload.user))
    return Refuse("user", "be a user, or a user and a group, by name or number, such as 1000:1000");
  return {};
}

Result<> CheckDns(const DnsSpec& dns) {
  DORMOUSE_TRY(CheckCount("dns.nameservers", dns.nameservers, 3));
  for (size_t i = 0; i < dns.nameservers.size(); ++i) {
    if (!ParseAddress(dns.nameservers[i]))
      return Refuse(At("dns.nameservers", i), "be an IP address, such as 203.0.113.53");
  }
  DORMOUSE_TRY(CheckCount("dns.searches", dns.searches, 32));
  for (size_t i = 0; i < dns.searches.size(); ++i) {
    if (!IsDomain(dns.searches[i]))
      return Refuse(At("dns.searches", i), "be a domain name, such as corp.example");
  }
  DORMOUSE_TRY(CheckCount("dns.options", dns.options, 16));
  for (size_t i = 0; i < dns.options.size(); ++i) {
    if (!IsDnsOption(dns.options[i]))
      return Refuse(At("dns.options", i), "be an option of resolv.conf, such as ndots:2");
  }
  return {};
}

Result<> CheckRanges(const char* field, const std::vector<std::string>& ranges) {
  DORMOUSE_TRY(CheckCount(field, ranges, 64));
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (!IsRange(ranges[i])) {
      return Refuse(At(field, i, ".cidr"),
                    "be an address range by its first address, such as 203.0.113.0/24");
    }
    if (std::find(ranges.begin(), ranges.begin() + static_cast<ptrdiff_t>(i), ranges[i]) !=
        ranges.begin() + static_cast<ptrdiff_t>(i))
      return Refuse(At(field, i, ".cidr"), "be unique");
  }
  return {};
}

Result<> CheckNetwork(const NetworkSpec& network) {
  DORMOUSE_TRY(CheckRanges("network.allow", network.allow_cidrs));
  DORMOUSE_TRY(CheckRanges("network.deny", network.deny_cidrs));
  DORMOUSE_TRY(CheckCount("network.ports", network.ports, 32));
  std::set<std::string> names;
  std::set<std::pair<int, std::string>> numbers;
  for (size_t i = 0; i < network.ports.size(); ++i) {
    const Port& port = network.ports[i];
    if (port.name.size() > 63 || !IsName(port.name, IsLowerOrDigit, "-"))
      return Refuse(At("network.ports", i, ".name"), "be lower case letters, digits and '-'");
    if (port.protocol != "TCP" && port.protocol != "UDP")
      return Refuse(At("network.ports", i, ".protocol"), "be TCP or UDP");
    if (!names.insert(port.name).second || !numbers.emplace(port.port, port.protocol).second)
      return Refuse(At("network.ports", i), "not be there twice");
  }
  return {};
}

Result<> CheckPlacement(const SandboxSpec& spec) {
  DORMOUSE_TRY(CheckCount("nodeSelector", spec.node_selector, 64));
  for (const auto& [key, value] : spec.node_selector) {
    if (Characters(value) > 63) return Refuse("nodeSelector." + key, "be at most 63 characters");
  }
  DORMOUSE_TRY(CheckCount("tolerations", spec.tolerations, 64));
  for (size_t i = 0; i < spec.tolerations.size(); ++i) {
    const Toleration& one = spec.tolerations[i];
    const auto refuse = [i](std::string_view must) { return Refuse(At("tolerations", i), must); };
    if (one.op != "Equal" && one.op != "Exists") return refuse("have operator Equal or Exists");
    if (one.key.empty() && one.op != "Exists") return refuse("have a key, or operator: Exists");
    if (!one.value.empty() && one.op == "Exists")
      return refuse("not have a value with operator: Exists");
    if (Characters(one.key) > 316 || Characters(one.value) > 63)
      return refuse("have a key of at most 316 and a value of at most 63 characters");
    constexpr std::array kEffects = {""sv, "NoSchedule"sv, "PreferNoSchedule"sv, "NoExecute"sv};
    if (std::find(kEffects.begin(), kEffects.end(), one.effect) == kEffects.end())
      return refuse("have the effect of a taint, or none");
  }
  return {};
}

}  // namespace

size_t WeightOf(std::string_view text) {
  // JSON has \b, \t, \n, \f and \r for the other ones.
  const bool costly = std::any_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && "\b\t\n\f\r"sv.find(c) == std::string_view::npos;
  });
  return text.size() * (costly ? 3 : 1);
}

bool IsImageName(std::string_view name) {
  constexpr size_t kLongestName = 251;
  return name.size() <= kLongestName && IsName(name, IsAlphanumeric, "-._");
}

bool IsObjectName(std::string_view name) {
  return name.size() <= kMaxName && IsName(name, IsLowerOrDigit, "-.");
}

Result<> CheckSpec(const SandboxSpec& spec) {
  if (!spec.image.empty() && !IsImageName(spec.image))
    return Refuse("source.image.name", "be the name of an image, not a path, such as debian-12");
  if (!spec.snapshot_template.empty() && !IsObjectName(spec.snapshot_template))
    return Refuse("source.snapshotTemplate.name", "be the name of a SnapshotTemplate");
  DORMOUSE_TRY(CheckWorkload(spec.workload));
  DORMOUSE_TRY(CheckDns(spec.dns));
  DORMOUSE_TRY(CheckNetwork(spec.network));
  return CheckPlacement(spec);
}

}  // namespace dormouse::api
