#include "node-agent/net/rules.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>

#include "src/common/base/hash.h"

namespace dormouse::net {
namespace {

constexpr char kTable[] = "table inet dormouse {\n";

// RFC 1918, CGNAT (RFC 6598), link-local, loopback, "this network", benchmarking, multicast,
// reserved.
const std::vector<std::string> kPrivate = {"0.0.0.0/8",    "10.0.0.0/8",     "100.64.0.0/10",
                                           "127.0.0.0/8",  "169.254.0.0/16", "172.16.0.0/12",
                                           "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15",
                                           "224.0.0.0/4",  "240.0.0.0/4"};

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

std::string Hex(uint32_t number) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", number);
  return text;
}

std::string Braced(const std::vector<std::string>& entries) {
  std::string text = "{ ";
  for (size_t i = 0; i < entries.size(); ++i) text += (i == 0 ? "" : ", ") + entries[i];
  return text + " }";
}

// Each matches on where the connection was opened to. One rule an entry: a set may not overlap
// itself.
std::string To(const std::vector<std::string>& entries, const std::string& rest) {
  std::string text;
  for (const auto& entry : OfFamily(entries, AF_INET))
    text += "    ct original ip daddr " + entry + " " + rest + "\n";
  return text;
}

std::string EgressChains(const SandboxRules& rules) {
  const EgressPolicy& policy = rules.policy;
  std::string text = "  chain always_denied {\n" + To(rules.always_denied, "drop") +
                     To(rules.platform_allowed, "return") + To(kPlatformAddresses, "drop") +
                     "  }\n  chain egress {\n"
                     "    meta nfproto ipv6 drop\n"
                     "    ct state { invalid, untracked } drop\n";
  if (policy.egress != Egress::kNone) {
    text += To(policy.resolvers, "meta l4proto { tcp, udp } ct original proto-dst 53 accept");
  }
  text += "    jump always_denied\n" + To(policy.deny, "drop") + To(policy.allow, "accept");
  if (policy.egress == Egress::kRestricted)
    text += "    ct original ip daddr " + Braced(kPrivate) + " drop\n";
  text += policy.egress == Egress::kNone ? "    drop\n" : "    accept\n";
  return text + "  }\n";
}

// `body`: the chains, and the brace that ends them.
std::string WithComment(const std::string& body) {
  return std::string(kTable) + "  comment \"" + Sha256(body).substr(0, 32) + "\"\n" + body;
}

}  // namespace

const std::vector<std::string> kPlatformAddresses = {
    // All link-local: 169.254.169.254 of nearly every cloud, .253 and .123 beside it, containers'
    // 169.254.170.2 and .23, Tencent's 169.254.0.23, Scaleway's 169.254.42.42; and what nodes keep
    // there for their pods.
    "169.254.0.0/16",
    "168.63.129.16",    // Azure
    "100.100.100.200",  // Alibaba
    "100.96.0.96",      // Volcano Engine
    "100.80.80.80",     // UCloud
    "192.0.0.192",      // Oracle, classic
};

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

std::string CommentOf(const std::string& table) {
  constexpr std::string_view kBefore = "comment \"";
  const size_t from = table.find(kBefore) + kBefore.size();
  return table.substr(from, table.find('"', from) - from);
}

std::string Created(const std::string& table) {
  // nft 1.0.6 makes no chain that stands in a `create table`, and gives no comment to a table that
  // is there.
  return "create table inet dormouse { comment \"" + CommentOf(table) + "\"; }\n" + table;
}

std::string SandboxTable(const SandboxRules& rules) {
  const std::string guest = kGuestAddress;
  // "ct direction original" at eth0 is what others open: nobody but the node may.
  return WithComment(
      EgressChains(rules) +
      "  chain forward {\n"
      "    type filter hook forward priority filter; policy drop;\n"
      "    meta nfproto ipv6 drop\n"
      "    iifname \"tap0\" ip saddr != " +
      guest +
      " drop\n"
      "    iifname { \"tap0\", \"eth0\" } oifname { \"tap0\", \"eth0\" } ct original ip saddr " +
      rules.gateway +
      " accept\n"
      "    iifname \"tap0\" oifname \"eth0\" jump egress\n"
      "    iifname \"eth0\" oifname \"tap0\" ct direction reply jump egress\n"
      "  }\n"
      // The VMM itself has no business in this namespace: it may open what its guest may, and serve
      // nothing. The kernel tells the node of what it asked and cannot have.
      "  chain output {\n"
      "    type filter hook output priority filter; policy drop;\n"
      "    oifname \"tap0\" icmp type echo-reply accept\n"
      "    oifname \"eth0\" ct state related ct original ip saddr " +
      rules.gateway +
      " accept\n"
      "    oifname \"eth0\" jump egress\n"
      "  }\n"
      "  chain input {\n"
      "    type filter hook input priority filter; policy drop;\n"
      "    iifname \"eth0\" ct direction reply jump egress\n"
      "    iifname \"tap0\" ip saddr " +
      guest + " ip daddr " + kGuestGateway +
      " icmp type echo-request limit rate 10/second accept\n"
      "  }\n"
      "  chain prerouting {\n"
      "    type nat hook prerouting priority dstnat; policy accept;\n"
      "    iifname \"eth0\" fib daddr type local dnat ip to " +
      guest +
      "\n"
      "  }\n"
      "  chain postrouting {\n"
      "    type nat hook postrouting priority srcnat; policy accept;\n"
      "    oifname \"eth0\" ip saddr " +
      guest +
      " masquerade\n"
      "    oifname \"tap0\" snat ip to " +
      kGuestGateway +
      "\n"
      "  }\n"
      "}\n");
}

std::string NodeTable(const NodeRules& rules) {
  const std::string mark = Hex(kMark);
  std::string before_dnat;
  std::string after_dnat;
  for (const auto& resolver : OfFamily(rules.resolvers, AF_INET)) {
    before_dnat += "    ip daddr " + resolver + " meta l4proto { tcp, udp } th dport 53 accept\n";
    after_dnat += "    ct original ip daddr " + resolver +
                  " meta l4proto { tcp, udp } ct original proto-dst 53 accept\n";
  }
  return std::string(kReplaceTable) +
         WithComment(
             "  chain from_sandbox {\n"
             "    meta nfproto ipv6 drop\n"
             "    meta mark set meta mark | " +
             mark +
             "\n"
             // A veth leads to one address (SandboxNets::ConnectVeth), and may send as that one
             // only. By the mark, as without it no route leads back (node_net.h).
             "    fib saddr . mark . iif oif missing drop\n" +
             // The mark stays: a resolver may be the node itself.
             before_dnat + "    meta mark set meta mark & " + Hex(~kMark) +
             "\n"
             "    ct direction reply accept\n"
             "    fib daddr type { local, broadcast, multicast } drop\n"
             "  }\n"
             // Between conntrack (-200) and destination NAT (-100): a NodePort is the node's own
             // address still.
             "  chain prerouting {\n"
             "    type filter hook prerouting priority -160; policy accept;\n"
             "    iifname \"dmv*\" jump from_sandbox\n"
             "  }\n"
             "  chain to_node {\n"
             "    ct direction reply accept\n" +
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
             "    oifname \"dmv*\" ct direction reply accept\n"
             "    oifname \"dmv*\" drop\n"
             "  }\n"
             // What the node sends from another address than the gateway's, or from none yet, was
             // routed to nowhere, and is routed again.
             "  chain output {\n"
             "    type route hook output priority mangle; policy accept;\n"
             "    oifname \"lo\" ip daddr " +
             rules.range + " meta mark set meta mark | " + mark +
             "\n"
             "  }\n"
             "  chain postrouting {\n"
             "    type nat hook postrouting priority srcnat; policy accept;\n"
             "    ip saddr " +
             rules.range +
             " oifname != \"dmv*\" masquerade\n"
             "  }\n"
             "}\n");
}

}  // namespace dormouse::net
