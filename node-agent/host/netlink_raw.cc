#include "node-agent/host/netlink_raw.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace dormouse::host {
namespace {

// NLMSG_GOODSIZE is a page; an answer with a table's user data, or a burst of news, is far smaller.
constexpr size_t kBufferBytes = 32 << 10;
constexpr int kNewsBytes = 1 << 20;

Result<UniqueFd> OpenSocket(int protocol, int flags) {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, protocol));
  if (!socket) return FailErrno("netlink socket");
  return socket;
}

void Append(std::string* bytes, std::string_view more) {
  bytes->append(more);
  bytes->append(NLMSG_ALIGN(more.size()) - more.size(), '\0');
}

}  // namespace

std::string_view NetlinkMessage::payload() const {
  return {reinterpret_cast<const char*>(header) + NLMSG_HDRLEN, header->nlmsg_len - NLMSG_HDRLEN};
}

std::optional<std::string_view> NetlinkMessage::Attribute(size_t fixed, uint16_t type) const {
  std::string_view rest = payload();
  rest.remove_prefix(std::min(rest.size(), NLMSG_ALIGN(fixed)));
  while (const auto attribute = ValueOf<nlattr>(rest)) {
    if (attribute->nla_len < NLA_HDRLEN || attribute->nla_len > rest.size()) break;
    if ((attribute->nla_type & NLA_TYPE_MASK) == type)
      return rest.substr(NLA_HDRLEN, attribute->nla_len - NLA_HDRLEN);
    rest.remove_prefix(std::min<size_t>(rest.size(), NLA_ALIGN(attribute->nla_len)));
  }
  return std::nullopt;
}

NetlinkQuestion::NetlinkQuestion(uint16_t type, std::string_view fixed) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST;
  Append(&bytes_, BytesOf(header));
  Append(&bytes_, fixed);
}

NetlinkQuestion& NetlinkQuestion::Add(uint16_t type, std::string_view value) {
  nlattr attribute{};
  attribute.nla_type = type;
  attribute.nla_len = static_cast<uint16_t>(NLA_HDRLEN + value.size());
  bytes_.append(BytesOf(attribute));
  Append(&bytes_, value);
  return *this;
}

Result<std::string> NetlinkQuestion::Ask(int protocol) const {
  DORMOUSE_ASSIGN(const UniqueFd socket, OpenSocket(protocol, 0));
  std::string message = bytes_;
  reinterpret_cast<nlmsghdr*>(message.data())->nlmsg_len = static_cast<uint32_t>(message.size());
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(socket.get(), message.data(), message.size(), 0,
               reinterpret_cast<const sockaddr*>(&kernel), sizeof(kernel)) < 0)
    return FailErrno("ask by netlink");
  std::string answer(kBufferBytes, '\0');
  const ssize_t got = ::recv(socket.get(), answer.data(), answer.size(), 0);
  if (got < 0) return FailErrno("answer by netlink");
  answer.resize(static_cast<size_t>(got));
  const auto header = ValueOf<nlmsghdr>(answer);
  if (!header || header->nlmsg_len < NLMSG_HDRLEN || header->nlmsg_len > answer.size())
    return Fail(ErrorCode::kInternal, "a torn answer by netlink");
  if (header->nlmsg_type == NLMSG_ERROR) {
    const auto error = ValueOf<nlmsgerr>(std::string_view(answer).substr(NLMSG_HDRLEN));
    errno = error ? -error->error : EIO;
    if (errno == ENETUNREACH || errno == EHOSTUNREACH || errno == ESRCH || errno == ENOENT)
      return Fail(ErrorCode::kNotFound, "the kernel knows of none");
    return FailErrno("answer by netlink");
  }
  answer.resize(header->nlmsg_len);
  return answer;
}

Result<NetlinkNews> NetlinkNews::Open(int protocol, const std::vector<int>& groups) {
  DORMOUSE_ASSIGN(UniqueFd socket, OpenSocket(protocol, SOCK_NONBLOCK));
  // A firewall's restart, or a host of new routes, comes all at once.
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kNewsBytes, sizeof(kNewsBytes));
  sockaddr_nl own{};
  own.nl_family = AF_NETLINK;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&own), sizeof(own)) != 0)
    return FailErrno("bind netlink socket");
  for (const int group : groups) {
    if (::setsockopt(socket.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) != 0)
      return FailErrno("listen to netlink");
  }
  return NetlinkNews(std::move(socket));
}

bool NetlinkNews::Read(const std::function<void(const NetlinkMessage&)>& each) {
  alignas(nlmsghdr) char buffer[kBufferBytes];
  bool whole = true;
  while (true) {
    const ssize_t got = ::recv(socket_.get(), buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno != ENOBUFS) return whole;
    if (got <= 0) {
      whole = false;
      continue;
    }
    auto left = static_cast<uint32_t>(got);
    for (const nlmsghdr* header = reinterpret_cast<const nlmsghdr*>(buffer); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      each({header});
    }
  }
}

}  // namespace dormouse::host
