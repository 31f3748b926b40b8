#include "node-agent/net/rules.h"

#include <arpa/inet.h>

#include <charconv>

namespace dormouse::net {
namespace {

// What Restricted refuses whatever is allowed: cloud metadata services hand out the node's
// credentials.
constexpr const char* kMetadata4 = "169.254.169.254";
constexpr const char* kMetadata6 = "fd00:ec2::254";
// RFC 1918, CGNAT (RFC 6598), link-local, loopback, "this network", benchmarking, multicast,
// reserved.
const std::vector<std::string> kPrivate4 = {"0.0.0.0/8",    "10.0.0.0/8",     "100.64.0.0/10",
                                            "127.0.0.0/8",  "169.254.0.0/16", "172.16.0.0/12",
                                            "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15",
                                            "224.0.0.0/4",  "240.0.0.0/4"};
// ULA, link-local, loopback and unspecified, multicast, and what embeds an IPv4 address (mapped,
// NAT64, 6to4).
const std::vector<std::string> kPrivate6 = {
    "::/127", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8"};

bool IsAddress(int family, const std::string& text) {
  unsigned char address[sizeof(in6_addr)];
  return ::inet_pton(family, text.c_str(), address) == 1;
}

int FamilyOf(const std::string& address) {
  if (IsAddress(AF_INET, address)) return AF_INET;
  return IsAddress(AF_INET6, address) ? AF_INET6 : AF_UNSPEC;
}

bool IsCidr(const std::string& text) {
  const auto slash = text.find('/');
  const int family = FamilyOf(text.substr(0, slash));
  if (family == AF_UNSPEC) return false;
  if (slash == std::string::npos) return true;
  int prefix = -1;
  const char* end = text.data() + text.size();
  const bool parsed =
      std::from_chars(text.data() + slash + 1, end, prefix).ptr == end && slash + 1 < text.size();
  return parsed && prefix >= 0 && prefix <= (family == AF_INET ? 32 : 128);
}

std::vector<std::string> OfFamily(const std::vector<std::string>& entries, int family) {
  std::vector<std::string> found;
  for (const auto& entry : entries) {
    if (FamilyOf(entry.substr(0, entry.find('/'))) == family) found.push_back(entry);
  }
  return found;
}

std::string Braced(const std::vector<std::string>& entries) {
  std::string text = "{ ";
  for (size_t i = 0; i < entries.size(); ++i) text += (i == 0 ? "" : ", ") + entries[i];
  return text + " }";
}

// One rule for each family that `entries` has; an anonymous set may overlap itself, so one rule an
// entry.
std::string Destinations(const std::vector<std::string>& entries, const std::string& rest) {
  std::string text;
  for (const auto& entry : OfFamily(entries, AF_INET))
    text += "    ip daddr " + entry + " " + rest + "\n";
  for (const auto& entry : OfFamily(entries, AF_INET6))
    text += "    ip6 daddr " + entry + " " + rest + "\n";
  return text;
}

std::string ResolverRules(const std::vector<std::string>& resolvers) {
  return Destinations(resolvers, "udp dport 53 accept") +
         Destinations(resolvers, "tcp dport 53 accept");
}

std::string EgressChain(const EgressPolicy& policy) {
  std::string text =
      "  chain egress {\n    ct state established,related accept\n    ct state invalid drop\n";
  if (policy.egress != Egress::kNone) text += ResolverRules(policy.resolvers);
  if (policy.egress == Egress::kRestricted) {
    text += std::string("    ip daddr ") + kMetadata4 + " drop\n    ip6 daddr " + kMetadata6 +
            " drop\n";
  }
  text += Destinations(policy.deny, "drop") + Destinations(policy.allow, "accept");
  if (policy.egress == Egress::kRestricted) {
    text += "    ip daddr " + Braced(kPrivate4) + " drop\n    ip6 daddr " + Braced(kPrivate6) +
            " drop\n";
  }
  text += policy.egress == Egress::kNone ? "    drop\n" : "    accept\n";
  return text + "  }\n";
}

}  // namespace

Result<> CheckPolicy(const EgressPolicy& policy) {
  for (const auto* list : {&policy.allow, &policy.deny}) {
    for (const auto& entry : *list) {
      if (!IsCidr(entry))
        return Fail(ErrorCode::kInvalid, "'" + entry + "' is no CIDR: write one like 192.0.2.0/24");
    }
  }
  for (const auto& entry : policy.resolvers) {
    if (FamilyOf(entry) == AF_UNSPEC)
      return Fail(ErrorCode::kInvalid, "resolver '" + entry + "' is no address");
  }
  return {};
}

std::string SandboxTable(const SandboxRules& rules) {
  std::string text = "table inet dormouse {\n";
  text += EgressChain(rules.policy);
  // What the guest sends, as itself or not at all; what the node asks of the guest.
  text +=
      "  chain forward {\n"
      "    type filter hook forward priority filter; policy drop;\n"
      "    iifname \"tap0\" ip saddr != " +
      std::string(kGuestAddress) +
      " drop\n"
      "    iifname \"tap0\" meta nfproto ipv6 drop\n"
      "    iifname \"tap0\" oifname \"eth0\" jump egress\n"
      "    iifname \"eth0\" oifname \"tap0\" ct state established,related accept\n"
      "    iifname \"eth0\" oifname \"tap0\" ip saddr " +
      rules.gateway +
      " accept\n"
      "  }\n";
  // The VMM itself has no business in this namespace: it may open what its guest may, and serve
  // nothing.
  text +=
      "  chain output {\n"
      "    type filter hook output priority filter; policy drop;\n"
      "    oifname \"tap0\" icmp type echo-reply accept\n"
      "    oifname \"eth0\" jump egress\n"
      "  }\n"
      "  chain input {\n"
      "    type filter hook input priority filter; policy drop;\n"
      "    iifname \"eth0\" ct state established,related accept\n"
      "    iifname \"tap0\" ip saddr " +
      std::string(kGuestAddress) + " ip daddr " + kGuestGateway +
      " icmp type echo-request limit rate 10/second accept\n"
      "  }\n";
  text +=
      "  chain prerouting {\n"
      "    type nat hook prerouting priority dstnat; policy accept;\n"
      "    iifname \"eth0\" fib daddr type local dnat ip to " +
      std::string(kGuestAddress) +
      "\n"
      "  }\n"
      "  chain postrouting {\n"
      "    type nat hook postrouting priority srcnat; policy accept;\n"
      "    oifname \"eth0\" ip saddr " +
      kGuestAddress +
      " masquerade\n"
      "    oifname \"tap0\" snat ip to " +
      kGuestGateway +
      "\n"
      "  }\n"
      "}\n";
  return text;
}

std::string NodeTable(const NodeRules& rules) {
  const auto resolvers = OfFamily(rules.resolvers, AF_INET);
  std::string before_dnat;
  std::string after_dnat;
  for (const auto& resolver : resolvers) {
    before_dnat += "    ip daddr " + resolver + " meta l4proto { tcp, udp } th dport 53 accept\n";
    after_dnat += "    ct original ip daddr " + resolver +
                  " meta l4proto { tcp, udp } ct original proto-dst 53 accept\n";
  }
  return std::string(kReplaceTable) +
         "table inet dormouse {\n"
         "  chain from_sandbox {\n"
         "    meta nfproto ipv6 drop\n"
         // A veth leads to one address (SandboxNets::ConnectVeth), and may send as that one only.
         "    fib saddr . iif oif missing drop\n"
         "    ct state established,related accept\n" +
         before_dnat +
         "    fib daddr type { local, broadcast, multicast } drop\n"
         "  }\n"
         // Between conntrack (-200) and destination NAT (-100): a NodePort is the node's own
         // address still.
         "  chain prerouting {\n"
         "    type filter hook prerouting priority -160; policy accept;\n"
         "    iifname \"dmv*\" jump from_sandbox\n"
         "  }\n"
         "  chain to_node {\n"
         "    ct state established,related accept\n" +
         after_dnat +
         "    drop\n"
         "  }\n"
         // What a service's address was translated into: the API server on this node, say.
         "  chain input {\n"
         "    type filter hook input priority -10; policy accept;\n"
         "    iifname \"dmv*\" jump to_node\n"
         "  }\n"
         // Only the node itself, whose packets are not forwarded, may open connections to a
         // sandbox.
         "  chain forward {\n"
         "    type filter hook forward priority -10; policy accept;\n"
         "    iifname \"dmv*\" oifname \"dmv*\" drop\n"
         "    oifname \"dmv*\" ct state established,related accept\n"
         "    oifname \"dmv*\" drop\n"
         "  }\n"
         "  chain postrouting {\n"
         "    type nat hook postrouting priority srcnat; policy accept;\n"
         "    ip saddr " +
         rules.range +
         " oifname != \"dmv*\" masquerade\n"
         "  }\n"
         "}\n";
}

}  // namespace dormouse::net
